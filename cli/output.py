"""How the commands print: JSON for programs, tables and short durations for people, colours on a terminal only."""

import base64
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from ..core.errors import BadRequest

COLOURS: Final = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "bold": 1, "dim": 2}


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: Any) -> None:
    """Print one JSON document on one line, at once, for a reader that follows along."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def complain(command: str, text: str) -> None:
    """Print a line on stderr, as `lessor lock: …`."""
    print(f"lessor {command}: {text}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    r"""Return text as it may be shown: whoever wrote it must not be able to play with the reader's terminal.

    >>> printable("ends"), printable("\x1b[31m")
    ('ends', "'\\x1b[31m'")
    """
    return text if text.isprintable() else repr(text)


def as_text(data: bytes) -> str | None:
    """Return data as text, None if it is none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def data_fields(data: bytes | None) -> dict[str, Any]:
    """Return data for programs: as text, where it is text, and in base64."""
    return {
        "data": None if data is None else as_text(data),
        "data_base64": None if data is None else base64.b64encode(data).decode(),
    }


def shown_data(data: bytes) -> str:
    """Return data for people."""
    text = as_text(data)
    return f"{base64.b64encode(data).decode()} (base64)" if text is None else printable(text)


def counted(count: int, what: str, plural: str = "") -> str:
    """Return so many of something in words.

    >>> counted(1, "claim"), counted(0, "claim"), counted(2, "waits", "wait")
    ('1 claim', '0 claims', '2 wait')
    """
    return f"{count} {what if count == 1 else plural or what + 's'}"


def at_a_terminal() -> bool:
    """Return whether there is somebody to be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(command: str, question: str, *, yes: bool) -> bool:
    """Ask whoever sits at the terminal, unless he said `--yes`.

    Raises:
        BadRequest: there is nobody to ask.
    """
    if yes:
        return True
    if not at_a_terminal():
        raise BadRequest("there is no terminal to ask on whether this is really wanted; say --yes if it is")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    complain(command, "nothing was done")
    return False


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[str] = ()) -> str:
    """Return rows under a header, the columns named in `right` aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[place]) for line in [list(header), *cells]) for place in range(len(header))]
    to_the_right = [name in set(right) for name in header]
    lines = [
        "  ".join(
            cell.rjust(width) if rightly else cell.ljust(width)
            for cell, width, rightly in zip(line, widths, to_the_right, strict=True)
        ).rstrip()
        for line in [list(header), *cells]
    ]
    return "\n".join(lines)


def short(seconds: float) -> str:
    """Return a length of time as people say it.

    >>> [short(seconds) for seconds in (0.012, 4.2, 75, 3700, 200000)]
    ['12ms', '4.2s', '1m15s', '1h01m', '2d07h']
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def colourful(stream: TextIO) -> bool:
    """Return whether colours are wanted there (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, *colours: str) -> str:
    """Return the text in a colour."""
    codes = ";".join(str(COLOURS[colour]) for colour in colours)
    return f"\x1b[{codes}m{text}\x1b[0m"
