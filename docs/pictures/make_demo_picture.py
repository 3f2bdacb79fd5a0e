"""Make `demo.svg`, the picture of the README: run the demo, and keep what a terminal shows at its end."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from redisq.broker.commands import QueueView
from redisq.demo.live import Live, progress_panel
from redisq.demo.run import run

PICTURE = Path(__file__).with_name("demo.svg")


class Recorder(Live):
    """Draws the progress once, at its end: a recorded console keeps all that was ever drawn."""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._console.print(self._last)

    def progress(self, seconds: float, total: int, view: QueueView) -> None:
        """Keep it for the end."""
        self._last = progress_panel(seconds, total, view)


def main() -> None:
    """Run the demo once."""
    console = Console(record=True, width=92, force_terminal=True, color_system="truecolor", file=io.StringIO())
    console.print(Text("$ redisq demo", style="bold"))
    show = Recorder(console)
    show.end(run(show))
    text = console.export_svg(title="redisq demo", unique_id="demo")
    # Without the fonts that it would load from elsewhere: pictures in a README may not.
    text = re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL)
    PICTURE.write_text("".join(f"{line.rstrip()}\n" for line in text.splitlines()))


if __name__ == "__main__":
    main()
