"""Compare what a page shows with what was printed; learn what the page's ids stand for."""

from __future__ import annotations

import re

_ID = r"\b(?=\w*[A-Z])(?=\w*[a-z])[A-Za-z0-9]{16}\b"
_PARTS = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})"
    r"|(?P<any>\.\.\.)"
    rf"|(?P<id>{_ID})"
    r"|(?P<length>\b\d+(?:\.\d+)? (?:ms|s|min|MB)\b)"
    r"|(?P<space>\s+)"
)
_STANDS_FOR = {
    "time": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}",
    "any": r".*",
    "length": r"\d+(?:\.\d+)? (?:ms|s|min|MB)",
    "space": r"\s+",
}


class Ids:
    """What the ids of a page stand for."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}

    def put_in(self, text: str) -> str:
        """The text with the real ids."""
        return re.sub(_ID, lambda found: self._real.get(found[0], found[0]), text)

    def pattern(self, line: str) -> re.Pattern[str]:
        """What a line has to look like."""
        out, at, groups = "", 0, set[str]()
        for part in _PARTS.finditer(line):
            out += re.escape(line[at : part.start()])
            at = part.end()
            kind, text = str(part.lastgroup), part[0]
            if kind != "id":
                out += _STANDS_FOR[kind]
            elif text in self._real:
                out += re.escape(self._real[text])
            else:
                name = f"id_{text}"
                out += f"(?P={name})" if name in groups else f"(?P<{name}>{_ID})"
                groups.add(name)
        return re.compile(out + re.escape(line[at:]))

    def fits(self, line: str, printed: str, *, within: bool = False) -> bool:
        """Whether a printed line is as the page shows it; `within`: somewhere in it."""
        pattern = self.pattern(line.strip())
        match = pattern.search(printed) if within else pattern.fullmatch(printed.strip())
        if match:
            self._real.update({name.removeprefix("id_"): real for name, real in match.groupdict().items()})
        return bool(match)

    def mismatch(self, expected: list[str], printed: list[str]) -> str | None:
        """Why the lines that were printed are not those that the page shows; None if they are."""
        if not expected:
            return None
        if expected[0].strip() == "...":
            tails = [self.mismatch(expected[1:], printed[at:]) for at in range(len(printed) + 1)] if expected[1:] else [None]
            return None if None in tails else tails[0]
        if not printed:
            return f"not printed: {expected[0]}"
        if not self.fits(expected[0], printed[0]):
            return f"the page shows:  {expected[0]}\nbut this was printed:  {printed[0]}"
        if not expected[1:]:
            return None if not printed[1:] else f"printed, and not on the page:  {printed[1]}"
        return self.mismatch(expected[1:], printed[1:])
