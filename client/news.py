"""Tells whoever asked what becomes of a lease: events, callbacks, a signal to this process."""

import logging
import os
import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .calling import BaseCaller
from .errors import BadRequest
from .records import LeaseRecord
from .states import LeaseState, Loss

log = logging.getLogger(__name__)

SIGNALS: Final = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL}
"""What `on_lost` may name."""


class News:
    """What is to be told of one lease. The protocol calls it with each change; it holds no client alive.

    Signals and events come first, from where the change was noticed. Callbacks run where user code holds up nothing:
    each lease's in the order of its changes, one after the other.
    """

    def __init__(self, caller: BaseCaller, record: LeaseRecord, lease_of: Callable[[Any, LeaseRecord], Any]) -> None:
        """Tell nothing yet."""
        self._caller = weakref.ref(caller)
        self._lease_of = lease_of
        self._callbacks: list[Callable[[Any, LeaseState], object]] = []
        self._first: list[Callable[[LeaseRecord], None]] = []
        self._events: list[Any] = []
        self._ends: list[Any] = []
        self._untold: deque[LeaseState] = deque()
        self._telling = False
        self._lock = threading.Lock()
        record.on_change = self

    @classmethod
    def of(cls, caller: BaseCaller, record: LeaseRecord, lease_of: Callable[[Any, LeaseRecord], Any]) -> "News":
        """Return what tells of this record."""
        return record.on_change if isinstance(record.on_change, cls) else cls(caller, record, lease_of)

    def tell_first(self, step: Callable[[LeaseRecord], None]) -> None:
        """Have a step done at once with each change; it must neither wait nor fail."""
        self._first.append(step)

    def set_on_loss(self, event: Any) -> None:
        """Have an event set when the lease is lost."""
        self._events.append(event)

    def set_on_end(self, event: Any) -> None:
        """Have an event set when the lease is lost or released."""
        self._ends.append(event)

    def tell(self, callback: Callable[[Any, LeaseState], object]) -> None:
        """Have a callback called with the lease and its new state."""
        self._callbacks.append(callback)

    def __call__(self, record: LeaseRecord) -> None:
        """Take in a change."""
        if record.loss is Loss.FORK:
            self._forked()
            return
        if record.state is LeaseState.LOST:
            for event in self._events:
                _at_once(event.set)
        if record.over:
            for event in self._ends:
                _at_once(event.set)
        for step in self._first:
            _at_once(lambda step=step: step(record))  # type: ignore[misc]
        caller = self._caller()
        if not self._callbacks or caller is None:
            return
        with self._lock:
            self._untold.append(record.state)
            begin, self._telling = not self._telling, True
        if begin:
            lease = self._lease_of(caller, record)
            if not caller.post(lambda: self._tell(lease)):
                self._telling = False  # the next change tells this one too

    def _forked(self) -> None:
        """Be in the child of a fork: what was asked for in the parent is done there, and not here."""
        for event in (*self._events, *self._ends):
            if isinstance(event, threading.Event):
                event._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001 - a thread of the parent may have held its lock
            event.set()

    def _tell(self, lease: Any) -> None:
        while True:
            with self._lock:
                if not self._untold:
                    self._telling = False
                    return
                state = self._untold.popleft()
            for callback in list(self._callbacks):
                call(callback, lease, state)


def _at_once(step: Callable[[], object]) -> None:
    try:
        step()
    except RuntimeError:  # it would have woken a task of a loop that is closed by now, and the rest is to be told
        log.debug("a change of a lease could not be told", exc_info=True)


def call(callback: Callable[..., object], *arguments: object) -> None:
    """Call user code; an error in it is logged, and harms nothing."""
    try:
        callback(*arguments)
    except Exception:
        log.exception("a callback of a lease failed")


def on_loss(caller: BaseCaller, on_lost: Any, lease_of: Callable[[Any, LeaseRecord], Any]) -> Callable[[Any], None]:
    """Return the step that does what `on_lost` says once a lease is lost."""
    reference = weakref.ref(caller)

    def step(record: LeaseRecord) -> None:
        if record.state is not LeaseState.LOST:
            return
        if on_lost in SIGNALS:
            log.critical("%r was lost (%s): this process is told to end", "/".join(record.path), record.reason)
            os.kill(os.getpid(), SIGNALS[on_lost])
            return
        found = reference()
        if found is not None:
            lease = lease_of(found, record)
            found.post(lambda: call(on_lost, lease))

    return step


def check_on_lost(on_lost: Any) -> None:
    """Refuse what cannot be done on a loss.

    Raises:
        BadRequest: it is neither a callable nor the name of a signal.
    """
    if on_lost is not None and not callable(on_lost) and on_lost not in list(SIGNALS):  # what was given may not hash
        raise BadRequest(f"on_lost is a callable, 'terminate' or 'kill', not {on_lost!r:.80}")
