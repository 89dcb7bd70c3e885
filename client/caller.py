"""How a thread asks and waits: the blocking bridge between callers and the protocol, which the engine runs."""

import os
import threading
from collections.abc import Callable
from typing import Any

from ..core.commands import FOREVER, Claim
from .clock import now_ms
from .engine import Engine
from .errors import ClientClosed, ServiceBusy, Unavailable
from .protocol import Protocol
from .records import Acquire

CLOSE_TIMEOUT_MS = 2_000
"""How long closing waits for the service to release what was held; it ends by itself with the session otherwise."""


class Outcome:
    """What a caller waits for: set once, from the client's thread.

    A bare lock, where an Event makes two and a list of waiters: with many threads that is a fifth of the client's time.
    """

    __slots__ = ("_undone", "value")

    def __init__(self) -> None:
        """Start unset."""
        self._undone = threading.Lock()
        self._undone.acquire()
        self.value: Any = None

    def set(self, value: Any) -> None:
        """Take the outcome, and wake the caller."""
        self.value = value
        if self._undone.locked():
            self._undone.release()

    def wait(self) -> Any:
        """Return the outcome; raise it if it is an error."""
        self._undone.acquire()
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class Caller:
    """Asks on behalf of any thread. The engine is started with the first question."""

    def __init__(self, protocol: Protocol, request_timeout_ms: int) -> None:
        """Start without a thread or a socket."""
        self.protocol = protocol
        self.request_timeout_ms = request_timeout_ms
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()

    def ask(self, begin: Callable[[Callable[[Any], None], int], Any]) -> Any:
        """Have `begin` begin a request, and return its result; raise it if it is an error."""
        engine = self._running()
        outcome = Outcome()
        with engine.lock:
            now = self.protocol.now_ms = now_ms()
            begin(outcome.set, now + self.request_timeout_ms)
        engine.wake()
        return outcome.wait()

    def acquire(self, operation: Claim, *, auto_renew: bool) -> Any:
        """Return a LeaseRecord or a Denied, or raise."""
        engine = self._running()
        outcome = Outcome()
        wait_ms = operation.wait_ms
        acquire: Acquire | None = None
        try:
            with engine.lock:
                now = self.protocol.now_ms = now_ms()
                deadline = None if wait_ms == FOREVER else now + (wait_ms or self.request_timeout_ms)
                acquire = self.protocol.acquire(operation, outcome.set, deadline, auto_renew=auto_renew)
            engine.wake()
            return outcome.wait()
        except BaseException:
            # Ctrl-C while waiting leaves no ghost in the queue, nor a grant that nobody took
            if acquire is not None:
                with engine.lock:
                    self.protocol.now_ms = now_ms()
                    self.protocol.abandon(acquire)
                engine.wake()
            raise

    def close(self) -> None:
        """End the session, within two seconds; later calls raise ClientClosed. May be called twice."""
        with self._lock:
            engine, self._closed = self._engine, True
            self._engine = None
        if engine is None:
            return
        outcome = Outcome()
        with engine.lock:
            now = self.protocol.now_ms = now_ms()
            self.protocol.close(outcome.set, now + CLOSE_TIMEOUT_MS)
        engine.wake()
        try:
            outcome.wait()
        except (Unavailable, ServiceBusy, ClientClosed):
            pass  # the session ends by itself
        finally:
            engine.stop()
            with engine.lock:
                self.protocol.end_calls()  # of other threads, if this one did not wait to the end

    def _running(self) -> Engine:
        if os.getpid() != self._process:
            raise ClientClosed("this client belongs to the process that made it; connect anew after a fork")
        engine = self._engine
        if engine is None:
            with self._lock:
                if self._closed:
                    raise ClientClosed("the client is closed")
                if self._engine is None:
                    self.protocol.now_ms = now_ms()
                    self._engine = Engine(self.protocol)
                engine = self._engine
        return engine
