"""How the demo tells its story: one line for each turn, and between them, on a terminal, a line that lives."""

import shutil
import sys
from collections.abc import Sequence
from typing import Final, TextIO

from ..output import colourful, paint

LABEL_WIDTH: Final = 11
LEVELS: Final = " ▁▂▃▄▅▆▇█"
PLAIN_LEVELS: Final = " .:-=+*#@"


class Story:
    """Tells people; a silent one tells nothing."""

    def __init__(self, stream: TextIO | None = None, *, silent: bool = False) -> None:
        """Tell it on a stream, stdout if none is named."""
        self._stream = stream or sys.stdout
        self._silent = silent
        self._colours = colourful(self._stream)
        self._lives = self._stream.isatty() and not silent
        self._alive = False
        self._levels = LEVELS if "utf" in (self._stream.encoding or "").lower() else PLAIN_LEVELS

    def say(self, label: str, text: str, colour: str = "cyan") -> None:
        """Tell a turn of the story."""
        shown = f"{label:{LABEL_WIDTH}}"
        self._write(f"  {paint(shown, 'bold', colour) if self._colours else shown}{text}")

    def title(self, text: str) -> None:
        """Tell what this is."""
        self._write(f"{paint(text, 'bold') if self._colours else text}\n")

    def blank(self) -> None:
        """Leave a line free."""
        self._write("")

    def live(self, text: str, counts: Sequence[int]) -> None:
        """Show how things stand, in place of how they stood: some words, and as many of the last bars as fit."""
        if self._lives:
            width = shutil.get_terminal_size().columns - 1
            room = max(0, width - LABEL_WIDTH - len(text) - 5)
            line = f"  {'':{LABEL_WIDTH}}{text}   {self.bars(counts[-room:] if room else [])}"[:width]
            self._stream.write(f"\r\x1b[K{paint(line, 'dim') if self._colours else line}")
            self._stream.flush()
            self._alive = True

    def bars(self, counts: Sequence[int]) -> str:
        """Return numbers as a row of bars; only nothing looks like nothing."""
        highest = max(counts, default=0)
        if not highest:
            return " " * len(counts)
        top = len(self._levels) - 1
        return "".join(self._levels[-(-count * top // highest)] for count in counts)

    def end(self) -> None:
        """Take the living line away."""
        if self._alive:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._alive = False

    def _write(self, line: str) -> None:
        if not self._silent:
            self.end()
            print(line, file=self._stream, flush=True)
