"""A directory for a while: whatever signal ends the work in it, from its first moment on, it does not stay behind."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Made:
    """A directory that was made; it is removed at the end unless `keep` is set."""

    path: Path
    keep: bool = False


@contextmanager
def temporary_directory(prefix: str, parent: Path | None = None) -> Iterator[Made]:
    """Make a directory, and remove it at the end of the block.

    Unless they are ignored or handled already, SIGTERM and SIGHUP interrupt the block as Ctrl-C does, with the number
    of the signal in the KeyboardInterrupt.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    ours = [number for number, how in before.items() if how in (signal.SIG_DFL, signal.default_int_handler)]
    came: list[int] = []

    def note(number: int, _frame: Any) -> None:
        came.append(number)

    # while it is made or removed, signals are only noted (a mask would not do: they may reach another thread)
    for number in ours:
        signal.signal(number, note)
    try:
        made = Made(Path(tempfile.mkdtemp(prefix=prefix, dir=parent)))
        try:
            for number in ours:
                signal.signal(number, _interrupt)
            if came:
                raise KeyboardInterrupt(came[0])
            yield made
        finally:
            for number in ours:
                signal.signal(number, note)
            if not made.keep:
                shutil.rmtree(made.path, ignore_errors=True)
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _interrupt(number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt(number)
