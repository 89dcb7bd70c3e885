"""A process that holds a lease and writes down, over and over, whether it believes so; run by tests/system/test_belief.

    believer.py FACE ENDPOINTS NAME TTL FILE

It says on stdout what has become of the lease, and ends when stdin does. What it believes goes to FILE: see `Look`.
"""

import asyncio
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lessor

FORMAT: Final = struct.Struct("<qqqqb?")
QUIET_NS: Final = 500_000
"""An answer like the last one is written down only so often: nearly a million looks a second are too many to keep."""

INHERITED_LOOKS: Final = 200

SESSION_TIMEOUT: Final = 60
"""So that what ends a lease in time is its ttl."""


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a lease: when it began and ended (CLOCK_BOOTTIME, ns), and what was said.

    `until`: the moment up to which `remaining()` counts, at least. `kind`: which question was asked, from `ASKS`.
    """

    before: int
    after: int
    token: int
    until: int
    kind: int
    said: bool


def looks(path: Path) -> list[Look]:
    """Return what was written down so far."""
    data = path.read_bytes() if path.exists() else b""
    return [Look(*fields) for fields in FORMAT.iter_unpack(data[: len(data) // FORMAT.size * FORMAT.size])]


def passes_check(lease: Any) -> bool:
    """Ask by `check()`."""
    try:
        lease.check()
    except lessor.LeaseLost:
        return False
    return True


ASKS: Final[tuple[Callable[[Any], float], ...]] = (
    lambda lease: lease.remaining(),
    lambda lease: lease.held,
    passes_check,
    lambda lease: lease.state in (lessor.LeaseState.HELD, lessor.LeaseState.JEOPARDY),
)
"""Every way to ask a lease whether it is held."""


def now_ns() -> int:
    """Return the time that all processes of this machine share."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Book:
    """Looks at a lease and writes down what it said, unbuffered: nothing is lost with a process that is killed."""

    def __init__(self, path: str) -> None:
        """Go on at the end of the file."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = [0] * len(ASKS)
        self._said = [False] * len(ASKS)

    def look(self, lease: Any) -> None:
        """Ask in every way. After a pause, and with each change, whatever is said is written down."""
        told = b""
        for kind, ask in enumerate(ASKS):
            before = now_ns()
            answer = ask(lease)
            after = now_ns()
            said = answer > 0
            if said != self._said[kind] or before - self._written[kind] > QUIET_NS:
                until = before + int(answer * 1e9) if kind == 0 and said else 0
                told += FORMAT.pack(before, after, lease.token, until, kind, said)
                self._said[kind], self._written[kind] = said, before
        if told:  # only now: other threads, who would see a loss first, come to their turn while this one writes
            os.write(self._file, told)


def tell(*words: object) -> None:
    """Say it on one line, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def ending() -> threading.Event:
    """Return what is set when stdin ends."""
    over = threading.Event()

    def wait() -> None:
        while os.read(0, 1024):
            pass
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    return over


def announce(lease: Any) -> None:
    """Say that it is held, since when, under which token and by which process, and which one keeps it."""
    keeper = lease._keeper
    if keeper is not None:
        while not keeper._shared[0] and lease.held:
            pass  # it has not renewed yet
    tell("held", now_ns(), lease.token, os.getpid(), *([keeper.pid] if keeper is not None else []))


def hold(lock: Any, book: Book) -> None:
    """Hold it in a thread."""
    over = ending()
    try:
        with lock as lease:
            announce(lease)
            while not over.is_set():
                book.look(lease)
    except lessor.LeaseLost as lost:
        tell("lost", lost)
    else:
        tell("released")


async def hold_in_a_task(endpoints: str, name: str, ttl: float, book: Book) -> None:
    """Hold it in a task, which lets the event loop turn between its looks."""
    over = ending()
    async with lessor.aio.connect(endpoints, session_timeout=SESSION_TIMEOUT) as client:
        try:
            async with client.lock(name, ttl) as lease:
                announce(lease)
                while not over.is_set():
                    book.look(lease)
                    await asyncio.sleep(0)
        except lessor.LeaseLost as lost:
            tell("lost", lost)
        else:
            tell("released")


def in_a_fork(work: Callable[[], None]) -> None:
    """Do it in a child of this process, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    os.waitpid(pid, 0)


def main(face: str, endpoints: str, name: str, ttl: float, file: str) -> None:
    """Hold the lease by this face of the client."""
    sys.setswitchinterval(0.05)  # the thread that looks goes on where it stood, before one that could tell it of a loss
    if face == "asyncio":
        asyncio.run(hold_in_a_task(endpoints, name, ttl, Book(file)))
        return
    with lessor.connect(endpoints, session_timeout=SESSION_TIMEOUT) as client:
        if face == "forked":  # the client is in use when it is forked
            with client.lock(f"{name} of the parent"):
                in_a_fork(lambda: hold(client.lock(name, ttl), Book(file)))
        elif face == "forks":
            with client.lock(name, ttl) as lease:
                if os.fork() == 0:
                    # what the child thinks of its parent's lease; then it stands in line for one of its own
                    theirs = Book(file + ".child")
                    for _ in range(INHERITED_LOOKS):
                        theirs.look(lease)
                    hold(client.lock(name, 60), theirs)  # it is to hold until it is told to end
                    os._exit(0)
                announce(lease)
                over, book = ending(), Book(file)
                while not over.is_set():
                    book.look(lease)
        else:
            hold(client.lock(name, ttl, keeper="process" if face == "keeper" else None), Book(file))


def spans(seen: list[Look]) -> Iterator[tuple[int, int, int]]:
    """Return when each token was certainly believed in: from when on, until when, and which."""
    for token in dict.fromkeys(look.token for look in seen):
        # `before`, also of the last look: it was asked no earlier, and what is held then was held all the time
        times = [look.before for look in seen if look.token == token and look.said]
        if times:
            yield min(times), max(times), token


if __name__ == "__main__":
    _, FACE, ENDPOINTS, NAME, TTL, FILE = sys.argv
    main(FACE, ENDPOINTS, NAME, float(TTL), FILE)
