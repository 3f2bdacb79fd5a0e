"""The interpreter of one page, as a process of its own: JSON lines in, JSON lines out.

In: {"code", "page", "line"}, or {"module"}: import it anew. Out: {"printed", "error"}.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Coroutine
from contextlib import redirect_stdout
from inspect import CO_COROUTINE
from typing import Any

from redisq import RedisQ


class Interpreter:
    """Names that live on, and an event loop for `await` outside of functions."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def run(self, code: str, page: str, line: int) -> None:
        # Line numbers of a traceback are those of the page.
        compiled = compile("\n" * (line - 1) + code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if compiled.co_flags & CO_COROUTINE:
            work: Coroutine[Any, Any, object] = eval(compiled, self.names)
            self.loop.run_until_complete(work)
        else:
            exec(compiled, self.names)

    def load(self, module: str) -> None:
        known = sys.modules.pop(module, None)
        if known:
            self.close(vars(known))
        importlib.invalidate_caches()
        importlib.import_module(module)

    def close(self, names: dict[str, Any]) -> None:
        for value in names.values():
            if isinstance(value, RedisQ):
                value.close()
                self.loop.run_until_complete(self._aclose(value))

    async def _aclose(self, app: RedisQ) -> None:
        await app.aclose()

    def end(self) -> None:
        for module in list(sys.modules.values()):
            self.close(dict(vars(module)))
        self.close(self.names)
        self.loop.close()


def main() -> None:
    # Answers go where nothing else is printed.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, os.getcwd())
    interpreter = Interpreter()
    for line in sys.stdin:
        asked = json.loads(line)
        printed, error = io.StringIO(), ""
        try:
            with redirect_stdout(printed):
                if "module" in asked:
                    interpreter.load(asked["module"])
                else:
                    interpreter.run(asked["code"], asked["page"], asked["line"])
        except BaseException:  # noqa: BLE001 - also SystemExit: told to the test, which fails
            error = traceback.format_exc()
        answers.write(json.dumps({"printed": printed.getvalue(), "error": error}) + "\n")
        answers.flush()
    interpreter.end()
    answers.close()


if __name__ == "__main__":
    main()
