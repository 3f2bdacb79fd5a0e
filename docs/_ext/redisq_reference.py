"""Pages that are written by the code: keys, scripts, states, command line, wire format.

Each directive makes Markdown out of what the modules say and gives it to MyST, so that a page cannot say anything else
than the code. None of them has arguments.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from redisq.broker import commands
from redisq.broker.keys import FIXED, GATES, GROUP, SHARED, GroupKeys, QueueKeys
from redisq.broker.registry import Registry
from redisq.broker.scripts import SCRIPT_NAMES
from redisq.cli.main import main
from redisq.codec.values import EXTENSIONS
from redisq.states import TRANSITIONS, State
from redisq.worker.exits import Exit

_LUA = files("redisq.broker").joinpath("lua")

#: The functions of `QueueKeys` that name a key for each of something, by the word that stands for it here.
_NAMED = (
    ("flow", "flow", "zset"), ("waiting", "gate", "zset"), ("dedupe", "key", "string"), ("call", "caller", "string"),
    ("result", "id", "string"), ("progress", "id", "string"), ("done", "id", "channel"),
)  # fmt: skip
_OTHERS = ("named",)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| " + " | ".join(headers) + " |"
    yield "|" + "---|" * len(headers)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    yield ""


def literal(text: str) -> Iterator[str]:
    """A block that is shown as it stands."""
    yield from ("```text", text.rstrip(), "```", "")


def keys() -> Iterator[str]:
    """All keys of the queue `chat_api`."""
    of_queue = QueueKeys("chat_api")
    functions = {name for name, _ in inspect.getmembers(QueueKeys, inspect.isfunction) if not name.startswith("_")}
    unknown = functions - {name for name, *_ in _NAMED} - set(_OTHERS)
    if unknown:
        raise ValueError(f"docs/_ext/redisq_reference.py: say of what type these keys of QueueKeys are: {sorted(unknown)}")
    rows = [(f"`{of_queue.named(key.name)}`", key.type, f"{key.content}") for key in (*FIXED, *GATES) if key.name != "never"]
    for name, word, kind in _NAMED:
        function = getattr(of_queue, name)
        content = inspect.cleandoc(function.__doc__).partition("\n")[0]
        rows.append((f"`{function('{' + word + '}')}`", kind, content[0].lower() + content[1:].rstrip(".")))
    yield from table(("key", "type", "content"), rows)


def group() -> Iterator[str]:
    """What the group `telegram` has."""
    of_group = GroupKeys("telegram")
    shared = [key for key in GATES if key.name in SHARED]
    yield from table(
        ("key", "type", "content"), [(f"`{of_group.named(key.name)}`", key.type, key.content) for key in (*GROUP, *shared)]
    )


def registry() -> Iterator[str]:
    """The keys and channels that all workers of a namespace share."""
    shared = Registry()
    kinds = {"workers": "set", "worker": "string", "mark": "string", "control": "channel", "reply": "channel"}
    found = {name for name in vars(Registry) if not name.startswith("_")} - {"namespace"}
    if found != set(kinds):
        raise ValueError(f"docs/_ext/redisq_reference.py: say of what type these are: {sorted(found ^ set(kinds))}")
    rows = []
    for name, kind in kinds.items():
        member = inspect.getattr_static(Registry, name)
        key = getattr(shared, name) if isinstance(member, property) else getattr(shared, name)("name").replace("name", "{name}")
        content = inspect.cleandoc(member.__doc__).partition("\n")[0]
        rows.append((f"`{key}`", kind, content[0].lower() + content[1:].rstrip(".")))
    yield from table(("key", "type", "content"), rows)


def header(script: str) -> str:
    """The comment that a script, or an include, begins with, without its marks."""
    lines = _LUA.joinpath(f"{script}.lua").read_text(encoding="utf-8").splitlines()
    head = []
    for line in lines:
        if not line.startswith("---"):
            break
        head.append(line.removeprefix("---").removeprefix(" "))
    return "\n".join(head).strip()


def scripts() -> Iterator[str]:
    """Each script: what it is for, its header as it stands, who sends it, and the transitions that it makes."""
    for name in SCRIPT_NAMES:
        head = "\n".join(line for line in header(name).splitlines() if not line.startswith("@include"))
        purpose, _, rest = head.partition("\n\n")
        purpose = purpose.removeprefix(f"{name}: ")
        yield from (f"({name}-script)=", f"## {name}", "", purpose[0].upper() + purpose[1:], "")
        yield from literal(rest)
        if sender := getattr(commands, name, None):
            yield from (f"Sent by `redisq.broker.commands.{name}`: {inspect.cleandoc(sender.__doc__)}", "")
        if made := [arrow for arrow in TRANSITIONS if arrow.script == name]:
            yield from ("Transitions: " + "; ".join(f"{arrow.event} ({_arrow(arrow)})" for arrow in made) + ".", "")


def _arrow(arrow: Any) -> str:
    return f"{arrow.source or 'sent'} → {arrow.target}"


def includes() -> Iterator[str]:
    """The headers of the includes that define a format."""
    for name in ("lease", "meta", "descriptor", "dedupe", "ledger", "keys", "done"):
        yield from (f"### {name}", "")
        text = header(f"include/{name}").splitlines()
        yield from literal("\n".join(line for line in text if not line.startswith("@include")))


def states() -> Iterator[str]:
    """The diagram and the table of transitions."""
    width = max(len(arrow.event) for arrow in TRANSITIONS)
    drawn = []
    for source in (None, *State):
        arrows = [arrow for arrow in TRANSITIONS if arrow.source == source]
        for at, arrow in enumerate(arrows):
            start = f"{source or 'sent'!s:<10}" if at == 0 else " " * 10
            joint = "─" if len(arrows) == 1 else "┬" if at == 0 else "└" if at == len(arrows) - 1 else "├"
            drawn.append(f"{start} {joint}─ {arrow.event} {'─' * (width - len(arrow.event))}─▶ {arrow.target}")
    yield from literal("\n".join(drawn))
    rows = [(arrow.source or "-", arrow.event, arrow.target, f"[{arrow.script}](#{arrow.script}-script)") for arrow in TRANSITIONS]
    yield from table(("from", "event", "to", "script"), rows)


def extensions() -> Iterator[str]:
    """The extension types of the wire format."""
    yield from table(("code", "value"), [(str(code), text) for code, text in EXTENSIONS.items()])


def command_line() -> Iterator[str]:
    """Each command with its help and its options, as click has them."""
    yield from _command(main, "redisq", 2)


def _command(command: click.Command, path: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    yield from (f"({path.replace(' ', '-')}-command)=", f"{'#' * level} {path}", "")
    yield from literal(command.get_usage(context).removeprefix("Usage: "))
    # Where click would break a line, Markdown may as well; where it must not (\b), neither may Markdown.
    yield from (re.sub(r"(--?[a-z][\w-]*)", r"`\1`", _escaped(inspect.cleandoc(command.help or ""))), "")
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    if options:
        yield from table(("option", "variable", "default", "what it does"), [_option(option, context) for option in options])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if found := command.get_command(context, name):
                yield from _command(found, f"{path} {name}", min(level + 1, 4))


def _escaped(text: str) -> str:
    # `{"id"}` and `[state]` are text, not links. What is in backquotes stays.
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\[\]<>*_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str, str]:
    names, _ = option.get_help_record(context) or (option.opts[0], "")
    default = "" if option.is_flag or option.default in (None, ()) or not option.show_default else f"`{option.default}`"
    return f"`{names}`", f"`{option.envvar}`" if option.envvar else "", default, _escaped(option.help or "")


def exits() -> Iterator[str]:
    """The exit codes of a worker process, with the remarks behind them."""
    remarks = re.findall(r"^    \w+ = (\d+)  # (.*)$", inspect.getsource(Exit), re.MULTILINE)
    assert [int(code) for code, _ in remarks] == list(Exit)
    yield from table(("code", "why it ended"), remarks)


GENERATORS: dict[str, Callable[[], Iterator[str]]] = {
    "redisq-keys": keys,
    "redisq-group": group,
    "redisq-registry": registry,
    "redisq-scripts": scripts,
    "redisq-includes": includes,
    "redisq-states": states,
    "redisq-extensions": extensions,
    "redisq-cli": command_line,
    "redisq-exits": exits,
}


class Generated(SphinxDirective):
    """Puts what a generator writes in the directive's place."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the generated Markdown."""
        text = "\n".join(GENERATORS[self.name]())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def keep_colons(_app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Napoleon takes a property's "All tasks, by name: its own ..." for a type and its description."""
    if what in ("attribute", "property") and lines:
        lines[0] = lines[0].replace(": ", " - ")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    for name in GENERATORS:
        app.add_directive(name, Generated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
