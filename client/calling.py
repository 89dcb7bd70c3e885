"""What the callers of both faces share: the protocol of one client, and what becomes of it after a fork and at the end.

A client that nobody refers to any more, neither it nor a lease of its, gives back what it holds; so does each client
that is still open when the interpreter ends. Neither waits for long. In the child of a fork every lease that the client
had is lost, without a call of anything that was to be told of it: the parent still holds it. The client itself can be
used there: it begins anew, with a session and sockets of its own.
"""

import atexit
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar
from typing import Protocol as Kind

from .clock import now_ms
from .errors import ClientClosed
from .protocol import Protocol
from .states import Loss

CLOSE_TIMEOUT_MS = 2_000
"""How long closing waits for the service to release what was held; it ends by itself with the session otherwise."""

END_TIMEOUT_MS = 1_000
"""How long the end of the interpreter, or of a client that was collected, waits for that."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Ending(Kind):
    """An engine that ends by itself."""

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        ...


class BaseCaller:
    """Asks on behalf of a face."""

    def __init__(self, make_protocol: Callable[[], Protocol], request_timeout_ms: int) -> None:
        """Start without an engine."""
        self.protocol = make_protocol()
        self.request_timeout_ms = request_timeout_ms
        self._make_protocol = make_protocol
        self._closed = False
        _callers.add(self)  # from the first on: a fork may come while another thread makes the engine

    def check_open(self) -> None:
        """Return if the client may still be used.

        Raises:
            ClientClosed: it was closed.
        """
        if self._closed:
            raise ClientClosed("the client is closed")

    def do(self, step: Callable[[], T]) -> T:
        """Do something with the protocol that needs no answer."""
        self.protocol.now_ms = now_ms()
        return step()

    def post(self, tell: Callable[[], None]) -> bool:
        """Have user code called at once, where it holds up nothing of the client; False if that is impossible."""
        tell()
        return True

    def make_event(self) -> Any:
        """Return an event of the face's kind."""
        raise NotImplementedError

    def begin_end(self) -> None:
        """Begin to end, as the interpreter does."""

    def wait_end(self, timeout_ms: int) -> None:
        """Wait for the end to be over, but no longer than this."""

    def begin_anew(self) -> None:
        """Be the client of a new process: what was held belongs to the parent."""
        self._abandon_engine()
        self.protocol.lose_all("this process was forked from the one that holds it", Loss.FORK)
        self.protocol = self._make_protocol()

    def _abandon_engine(self) -> None:
        """Forget the engine of the parent without touching its sockets."""


def end_at_exit() -> None:
    """Have the clients that are open when the interpreter ends give back what they hold."""
    # registered late, so that it runs early: what the program itself registered before may still use the client
    atexit.unregister(_end_all)
    atexit.register(_end_all)


_callers: "weakref.WeakSet[BaseCaller]" = weakref.WeakSet()
_ending: set[Ending] = set()
"""Engines of clients that were collected, while they end."""

_left_behind: list[object] = []
"""Engines of a parent process; were they collected here, they would close what is not theirs."""


def leave_behind(engine: object) -> None:
    """Keep something that belongs to the parent process from being touched."""
    _left_behind.append(engine)


def ends(engine: Ending) -> None:
    """Have the end of the interpreter wait for that of an engine."""
    _ending.add(engine)


def has_ended(engine: Ending) -> None:
    """Have nobody wait for an engine any more."""
    _ending.discard(engine)


def _end_all() -> None:
    callers = list(_callers)
    until_ms = now_ms() + END_TIMEOUT_MS
    for caller in callers:
        try:
            caller.begin_end()
        except Exception:  # the others are to end all the same
            log.exception("the end of a client failed")
    for caller in callers:
        caller.wait_end(max(0, until_ms - now_ms()))
    for engine in list(_ending):
        engine.join(max(0, until_ms - now_ms()) / 1000)


def _after_fork() -> None:
    _left_behind.extend(_ending)
    _ending.clear()
    for caller in list(_callers):
        caller.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
