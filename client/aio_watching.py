"""The watch of the asyncio face: the names of the blocking one, awaited; any wait may be cancelled."""

import asyncio
import functools
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ..core.checks import check
from ..transport import sockets
from .calling import leave_behind
from .clock import now_ms
from .course import READ_S, RETRY_S, Course, Told
from .durations import Duration, milliseconds
from .errors import ClientClosed, ServiceBusy, Unavailable
from .loop_caller import LoopCaller
from .wants import Name
from .watch_feed import Feed, begins_anew_after_fork


class _Closed(Exception):
    """The watch was closed while something was waited for."""


class Watch:
    """What happens to a name or a prefix, in order: events, and `Missed` for those that the service keeps no more.

    It goes on over changes of leader and deaths of nodes, however long the service is away. It begins when it is
    entered or first asked. One task reads it; any may close it.
    """

    def __init__(self, caller: LoopCaller, course: Course) -> None:
        """Made by `Client.watch`."""
        self._caller = caller
        self._course = course
        self._feed: Feed | None = None
        self._closed = False
        self._over: BaseException | None = None
        self._interrupt: Callable[[Any], None] | None = None
        self._news = asyncio.Event()
        self._reading = asyncio.Lock()
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._look_at = 0.0
        begins_anew_after_fork(self, Watch._begin_anew)

    def __repr__(self) -> str:
        """Show what it watches, and where it stands."""
        return f"<Watch {self._course} revision={self.revision}{' closed' if self._closed else ''}>"

    @property
    def revision(self) -> int:
        """Where to go on: `client.watch(..., since=revision)` tells what comes after what this one has told."""
        return self._course.revision

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    async def next(self, timeout: Duration | None = None) -> Told | None:  # noqa: ASYNC109 - as in the other face
        """Return what happened next; None if nothing did in time, or if the watch was closed.

        While the service does not answer it may take half a second, however short the timeout.

        Raises:
            BadRequest: the name is none.
            ClientClosed: the client was closed.
        """
        until = None if timeout is None else asyncio.get_running_loop().time() + milliseconds(timeout) / 1000
        async with self._reading:
            try:
                return await self._next(until)
            except _Closed:
                return None

    async def close(self) -> None:
        """End the watch, and any wait for it, at once. May be called twice."""
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Close the watch; whoever reads it gets the error."""
        if self._closed:
            return
        self._closed, self._over = True, error
        if self._interrupt is not None:
            self._interrupt(_Closed())
        self._news.set()
        feed, self._feed = self._feed, None
        if feed is not None:
            asyncio.get_running_loop().remove_reader(feed.fileno())
            _leave(feed)

    def _begin_anew(self) -> None:
        """Be the watch of a new process: it goes on from where the parent's was."""
        if self._feed is not None:
            leave_behind(self._feed)
        if self._finalizer is not None:
            self._finalizer.detach()
        self._feed = self._interrupt = self._finalizer = None
        self._news, self._reading = asyncio.Event(), asyncio.Lock()

    def __aiter__(self) -> Self:
        """Return the watch itself."""
        return self

    async def __anext__(self) -> Told:
        """Wait for what happens next; the watch ends only by being closed."""
        told = await self.next()
        if told is None:
            raise StopAsyncIteration
        return told

    async def __aenter__(self) -> Self:
        """Begin: what happens from now on is told.

        Raises:
            Unavailable, ServiceBusy, BadRequest: as `Client.acquire`.
        """
        async with self._reading:
            try:
                self._open()
                if not self._course.begun:
                    await self._read()
            except _Closed:
                pass  # there is nothing to be told
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the watch."""
        await self.close()

    async def _next(self, until: float | None) -> Told | None:
        feed = self._open()
        loop = asyncio.get_running_loop()
        while True:
            told = self._course.next()
            if told is not None:
                return told
            if self._closed:
                raise self._over or _Closed
            if self._course.due:
                try:
                    await self._read(until)
                except (Unavailable, ServiceBusy):
                    await self._wait(min(loop.time() + RETRY_S, until or loop.time() + RETRY_S))
                    if until is not None and loop.time() >= until:
                        return None
                continue
            if until is not None and loop.time() >= until:
                return None
            await self._wait_for(feed, min(self._look_at, until or self._look_at))
            if not self._closed:
                feed.read(self._course)
            if loop.time() >= self._look_at:
                self._course.look()

    async def _read(self, until: float | None = None) -> None:
        ask = self._course.ask()
        check(ask.operation)

        def begin(done: Callable[[Any], None], deadline: int) -> None:
            self._interrupt = done
            if until is not None:
                left_s = max(READ_S, until - asyncio.get_running_loop().time())
                deadline = min(deadline, now_ms() + int(1000 * left_s))
            self._caller.protocol.call(ask.operation, done, deadline)

        try:
            self._course.take(ask.read(await self._caller.ask(begin)))
        except _Closed:
            raise (self._over or _Closed()) from None
        finally:
            self._interrupt = None
        self._look_at = asyncio.get_running_loop().time() + self._course.look_after()

    async def _wait_for(self, feed: Feed, until: float) -> None:
        """Wait for the feed. Its descriptor is looked at only here, since nobody else takes in what it tells."""
        if feed.readable:
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(feed.fileno(), self._news.set)
        try:
            await self._wait(until)
        finally:
            if not self._closed:
                loop.remove_reader(feed.fileno())

    async def _wait(self, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                await self._news.wait()
        except TimeoutError:
            pass
        if not self._closed:
            self._news.clear()

    def _open(self) -> Feed:
        if self._closed:
            raise self._over or _Closed
        if self._feed is None:
            self._feed = Feed(self._caller, self._course)
            self._finalizer = weakref.finalize(self, _leave, self._feed)
            self._finalizer.atexit = False
        return self._feed


class Watches:
    """What a client offers of watches, and that they end with it."""

    namespace: str
    _caller: LoopCaller

    @functools.cached_property
    def _watches(self) -> "weakref.WeakSet[Watch]":
        return weakref.WeakSet()

    def watch(self, name: Name | None = None, *, below: bool = False, since: int | None = None) -> Watch:
        """Return an iterator over what happens to a name: its owners, its data, its end (`event.kind`).

        Args:
            name: or path; None: whatever happens anywhere, in any namespace.
            below: also what happens to names under it.
            since: tell what happened after this revision, of an event or of `revision()`; None: from now on.

        What the service does not keep any more is told as `Missed`, so nothing is missed in silence.

        >>> async def example(client):
        ...     async with client.watch("x") as watch:
        ...         await (await client.acquire("x")).release()
        ...         print([(await anext(watch)).kind for _ in range(2)])
        >>> run(example)
        ['granted', 'released']
        """
        watch = Watch(self._caller, Course(self.namespace, name, since, below=below))
        self._watches.add(watch)
        return watch

    def _end_watches(self) -> None:
        for watch in list(self._watches):
            watch._end(ClientClosed("the client was closed"))  # noqa: SLF001 - so that its reader is told why


def _leave(feed: Feed) -> None:
    context = feed.close()
    if context is not None:  # its end may take a moment, and the loop is not to wait
        threading.Thread(target=sockets.end_context, args=(context,), name="lessor-zmq-end", daemon=True).start()
