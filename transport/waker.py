"""A waker: one thread rings it, and another that polls its file descriptor among its sockets wakes up."""

import os
from typing import Protocol


class Waker(Protocol):
    """What rings and is rung."""

    def fileno(self) -> int:
        """Return the descriptor to poll for reading."""
        ...

    def ring(self) -> None:
        """Make the descriptor readable, from any thread."""
        ...

    def hush(self) -> None:
        """Make it unreadable again."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


class _EventFd:
    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def ring(self) -> None:
        os.eventfd_write(self._fd, 1)

    def hush(self) -> None:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self._fd)


class _Pipe:
    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def fileno(self) -> int:
        return self._out

    def ring(self) -> None:
        try:
            os.write(self._in, b"\0")
        except BlockingIOError:
            pass  # full: it is ringing already

    def hush(self) -> None:
        try:
            os.read(self._out, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)


def make_waker() -> Waker:
    """Return the cheapest waker of this platform."""
    return _EventFd() if hasattr(os, "eventfd") else _Pipe()
