"""How a task asks and waits: the bridge between coroutines and the protocol, which the loop's engine runs."""

import asyncio
import os
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ..core.commands import FOREVER, Claim
from .calling import CLOSE_TIMEOUT_MS, END_TIMEOUT_MS, BaseCaller, end_at_exit, leave_behind
from .clock import now_ms
from .errors import ClientClosed
from .loop_engine import LoopEngine, runs_here
from .protocol import Protocol
from .records import Acquire, Terms

T = TypeVar("T")


class LoopCaller(BaseCaller):
    """Asks on behalf of any task of one event loop. The engine is started with the first question."""

    def __init__(self, make_protocol: Callable[[], Protocol], request_timeout_ms: int) -> None:
        """Start without a socket."""
        super().__init__(make_protocol, request_timeout_ms)
        self._engine: LoopEngine | None = None
        self._closing: asyncio.Future[None] | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    async def ask(
        self, begin: Callable[[Callable[[Any], None], int], T], abandon: Callable[[T], None] | None = None
    ) -> Any:
        """Have `begin` begin a request, and return its result; raise it if it is an error.

        `abandon` is called, with what `begin` returned, if nobody waits for the result any more.
        """
        engine = self._running()
        outcome = engine.loop.create_future()
        now = self.protocol.now_ms = now_ms()
        begun = begin(lambda value: _set(outcome, value), now + self.request_timeout_ms)
        engine.wake()
        try:
            return _told(await outcome)
        except BaseException:
            if abandon is not None:
                self.protocol.now_ms = now_ms()
                abandon(begun)
                engine.wake()
            raise

    async def acquire(self, operation: Claim, terms: Terms) -> Any:
        """Return a LeaseRecord or a Denied, or raise."""
        engine = self._running()
        outcome = engine.loop.create_future()
        wait_ms = operation.wait_ms
        now = self.protocol.now_ms = now_ms()
        deadline = None if wait_ms == FOREVER else now + (wait_ms or self.request_timeout_ms)
        acquire: Acquire = self.protocol.acquire(operation, lambda value: _set(outcome, value), deadline, terms)
        engine.wake()
        try:
            return _told(await outcome)
        except BaseException:
            # a task that is cancelled while it waits leaves no ghost in the queue, nor a grant that nobody took
            self.protocol.now_ms = now_ms()
            self.protocol.abandon(acquire)
            engine.wake()
            raise

    def do(self, step: Callable[[], T]) -> T:
        """Do something with the protocol that needs no answer."""
        result = super().do(step)
        if self._engine is not None:
            self._engine.wake()
        return result

    def post(self, tell: Callable[[], None]) -> bool:
        """Have user code called by the event loop."""
        return self._engine is not None and _call(self._engine.loop, tell)

    def make_event(self) -> asyncio.Event:
        """Return an event for tasks."""
        return _Event()

    async def close(self) -> None:
        """End the session, within two seconds; later calls raise ClientClosed. May be called twice.

        Once it has begun it goes on, though the task that asked for it is cancelled.
        """
        self._closed = True
        engine = self._engine
        if engine is None:
            return
        if not runs_here(engine.loop):
            await self._close_elsewhere(engine)
            return
        if self._closing is None:
            if engine.ended:
                return
            closing = self._closing = engine.loop.create_future()
            protocol = self.protocol

            def done(_: Any) -> None:
                engine.loop.call_soon(end)

            def end() -> None:
                engine.stop()
                protocol.end_calls()
                _set(closing, None)

            now = protocol.now_ms = now_ms()
            protocol.close(done, now + CLOSE_TIMEOUT_MS)
            engine.wake()
        await asyncio.shield(self._closing)

    async def _close_elsewhere(self, engine: LoopEngine) -> None:
        """Close in another loop than that of the client, which may not run any more."""
        engine.retire(CLOSE_TIMEOUT_MS)
        await asyncio.get_running_loop().run_in_executor(None, engine.join, CLOSE_TIMEOUT_MS / 1000)

    def begin_end(self) -> None:
        """Begin to end, as the interpreter does."""
        if self._engine is not None:
            self._engine.retire(END_TIMEOUT_MS)

    def wait_end(self, timeout_ms: int) -> None:
        """Wait for the end to be over, but no longer than this."""
        if self._engine is not None and not runs_here(self._engine.loop):
            self._engine.join(timeout_ms / 1000)

    def _running(self) -> LoopEngine:
        self.check_open()
        if self._engine is None:
            self.protocol.now_ms = now_ms()
            self._engine = LoopEngine(self.protocol)
            self._finalizer = weakref.finalize(self, LoopEngine.retire, self._engine, END_TIMEOUT_MS)
            self._finalizer.atexit = False
            end_at_exit()
        elif self._engine.loop is not asyncio.get_running_loop():
            raise ClientClosed("this client belongs to another event loop; connect anew in this one")
        return self._engine

    def _abandon_engine(self) -> None:
        leave_behind((self._engine, self.protocol))
        self._engine = self._closing = None
        if self._finalizer is not None:
            self._finalizer.detach()


class _Event(asyncio.Event):
    """An event for the tasks of one loop that any thread may set, such as one that ends a client."""

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()  # in the child of a fork nobody runs the loop
        try:
            self._home: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._home = None

    def set(self) -> None:
        home = self._home
        if home is None or not home.is_running() or os.getpid() != self._pid or runs_here(home):
            super().set()
        else:
            _call(home, super().set)


def _set(outcome: "asyncio.Future[Any]", value: Any) -> None:
    def step() -> None:
        if not outcome.done():
            outcome.set_result(value)

    loop = outcome.get_loop()
    if runs_here(loop):
        step()
    else:
        _call(loop, step)


def _call(loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> bool:
    """Have a step done by a loop, which may run elsewhere, or be closed: then nobody waits for it any more."""
    try:
        loop.call_soon_threadsafe(step)
    except RuntimeError:
        return False
    return True


def _told(value: Any) -> Any:
    if isinstance(value, BaseException):
        raise value
    return value
