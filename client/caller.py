"""How a thread asks and waits: the blocking bridge between callers and the protocol, which the engine runs."""

import _thread
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ..core.commands import FOREVER, Claim
from .calling import CLOSE_TIMEOUT_MS, END_TIMEOUT_MS, BaseCaller, end_at_exit, leave_behind
from .clock import now_ms
from .engine import Engine
from .errors import ClientClosed, LessorError, ServiceBusy, Unavailable
from .protocol import Protocol
from .records import Acquire, Terms

T = TypeVar("T")
INTERRUPTED = "this thread is in the midst of another call of this client, as in a signal handler, and cannot wait"
log = logging.getLogger(__name__)


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
        try:
            self._undone.release()
        except RuntimeError:
            pass  # it was set before, maybe by another thread, as the end of a watch is

    def wait(self) -> Any:
        """Return the outcome; raise it if it is an error."""
        self._undone.acquire()
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class Caller(BaseCaller):
    """Asks on behalf of any thread. The engine is started with the first question."""

    def __init__(self, make_protocol: Callable[[], Protocol], request_timeout_ms: int) -> None:
        """Start without a thread or a socket."""
        super().__init__(make_protocol, request_timeout_ms)
        self._engine: Engine | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._lock = threading.RLock()  # of the engine's making and ending
        self._steps = threading.RLock()  # of the protocol
        self._ending = False

    def ask(self, begin: Callable[[Callable[[Any], None], int], T], abandon: Callable[[T], None] | None = None) -> Any:
        """Have `begin` begin a request, and return its result; raise it if it is an error.

        `abandon` is called, with what `begin` returned, if nobody waits for the result any more.

        Raises:
            Unavailable: the thread is in the midst of another call of this client, in a signal handler for instance,
                and cannot wait. What was asked, such as a release, goes on in the background.
        """
        if self._interrupts_itself():
            if abandon is None:
                self._in_background(lambda: self.ask(begin))
            raise Unavailable(INTERRUPTED, indefinite=abandon is None)
        engine = self._running()
        outcome = Outcome()
        with engine.lock:
            now = self.protocol.now_ms = now_ms()
            begun = begin(outcome.set, now + self.request_timeout_ms)
        engine.wake()
        try:
            return self._wait(outcome)
        except BaseException:
            if abandon is not None:
                with engine.lock:
                    self.protocol.now_ms = now_ms()
                    abandon(begun)
                engine.wake()
            raise

    def acquire(self, operation: Claim, terms: Terms) -> Any:
        """Return a LeaseRecord or a Denied, or raise."""
        if self._interrupts_itself():
            raise Unavailable(INTERRUPTED, indefinite=False)
        engine = self._running()
        outcome = Outcome()
        wait_ms = operation.wait_ms
        acquire: Acquire | None = None
        try:
            with engine.lock:
                now = self.protocol.now_ms = now_ms()
                deadline = None if wait_ms == FOREVER else now + (wait_ms or self.request_timeout_ms)
                acquire = self.protocol.acquire(operation, outcome.set, deadline, terms)
            engine.wake()
            return self._wait(outcome)
        except BaseException:
            # Ctrl-C while waiting leaves no ghost in the queue, nor a grant that nobody took
            if acquire is not None:
                with engine.lock:
                    self.protocol.now_ms = now_ms()
                    self.protocol.abandon(acquire)
                engine.wake()
            raise

    def do(self, step: Callable[[], T]) -> T:
        """Do something with the protocol that needs no answer."""
        with self._steps:
            result = super().do(step)
        if self._engine is not None:
            self._engine.wake()
        return result

    def post(self, tell: Callable[[], None]) -> bool:
        """Have user code called in a thread of its own."""
        try:
            threading.Thread(target=tell, name="lessor-tell", daemon=True).start()
        except RuntimeError:
            log.exception("a change of a lease cannot be told now: there is no thread for it")
            return False
        return True

    def make_event(self) -> threading.Event:
        """Return an event for threads."""
        return threading.Event()

    def close(self) -> None:
        """End the session, within two seconds; later calls raise ClientClosed. May be called twice.

        In a signal handler that interrupts another call of this client nothing can be waited for: it is ended soon.
        """
        if self._interrupts_itself():
            self._in_background(self.close)
            return
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

    def begin_end(self) -> None:
        """Begin to end, as the interpreter does."""
        self._ending = True
        if self._engine is not None:
            self._engine.retire(END_TIMEOUT_MS)

    def wait_end(self, timeout_ms: int) -> None:
        """Wait for the end to be over, but no longer than this."""
        if self._engine is not None:
            self._engine.join(timeout_ms / 1000)

    def _interrupts_itself(self) -> bool:
        """Return whether this thread has interrupted itself while it had a lock: the engine would wait for it."""
        return any(lock._is_owned() for lock in (self._steps, self._lock))  # type: ignore[attr-defined]  # noqa: SLF001

    def _in_background(self, do: Callable[[], Any]) -> None:
        def run() -> None:
            try:
                do()
            except LessorError:
                pass  # nobody waits for it

        # a Thread would take a lock of `threading` that may be held here, when the engine was just about to be started
        _thread.start_new_thread(run, ())

    def _wait(self, outcome: Outcome) -> Any:
        try:
            return outcome.wait()
        except ClientClosed:
            if self._ending and threading.current_thread().daemon:
                # it stands still until it is gone, instead of complaining; what atexit calls, though, is told
                threading.Event().wait()
            raise

    def _running(self) -> Engine:
        engine = self._engine
        if engine is None:
            with self._lock:
                self.check_open()
                if self._engine is None:
                    self.protocol.now_ms = now_ms()
                    self._engine = Engine(self.protocol, self._steps)
                    self._finalizer = weakref.finalize(self, Engine.retire, self._engine, END_TIMEOUT_MS)
                    self._finalizer.atexit = False
                    end_at_exit()
                engine = self._engine
        return engine

    def _abandon_engine(self) -> None:
        leave_behind((self._engine, self.protocol))
        if self._finalizer is not None:
            self._finalizer.detach()
        self._engine = None
        self._lock, self._steps = threading.RLock(), threading.RLock()
