"""The blocking watch: an iterator over what happens to a name or a prefix, which nothing is missing from silently."""

import functools
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import zmq

from ..core.checks import check
from ..transport import sockets
from ..transport.waker import make_waker
from .caller import Caller
from .calling import leave_behind
from .clock import now_ms
from .course import READ_S, RETRY_S, Course, Told
from .durations import Duration, milliseconds
from .errors import ClientClosed, ServiceBusy, Unavailable
from .wants import Name
from .watch_feed import Feed, begins_anew_after_fork


class _Closed(Exception):
    """The watch was closed while something was waited for."""


class Watch:
    """What happens to a name or a prefix, in order: events, and `Missed` for those that the service keeps no more.

    It goes on over changes of leader and deaths of nodes, however long the service is away. It begins when it is
    entered or first asked. One thread reads it; any may close it.
    """

    def __init__(self, caller: Caller, course: Course) -> None:
        """Made by `Client.watch`."""
        self._caller = caller
        self._course = course
        self._line: _Line | None = None
        self._closed = False
        self._over: BaseException | None = None
        self._interrupt: Callable[[Any], None] | None = None
        self._reading = threading.Lock()
        self._state = threading.RLock()
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

    def next(self, timeout: Duration | None = None) -> Told | None:
        """Return what happened next; None if nothing did in time, or if the watch was closed.

        While the service does not answer it may take half a second, however short the timeout.

        Raises:
            BadRequest: the name is none.
            ClientClosed: the client was closed.
        """
        until = None if timeout is None else time.monotonic() + milliseconds(timeout) / 1000
        with self._reading:
            try:
                return self._next(until)
            except _Closed:
                return None
            finally:
                if self._closed:
                    self._free()

    def close(self) -> None:
        """End the watch, and any wait for it, at once. May be called twice."""
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Close the watch; whoever reads it gets the error."""
        with self._state:
            if self._closed:
                return
            self._closed, self._over = True, error
            interrupt = self._interrupt
            if self._line is not None:
                self._line.waker.ring()
        if interrupt is not None:
            interrupt(_Closed())
        if self._reading.acquire(blocking=False):  # else whoever reads does it
            try:
                self._free()
            finally:
                self._reading.release()

    def _begin_anew(self) -> None:
        """Be the watch of a new process: it goes on from where the parent's was."""
        if self._line is not None:
            leave_behind(self._line)
        if self._finalizer is not None:
            self._finalizer.detach()
        self._line = self._interrupt = self._finalizer = None
        self._reading, self._state = threading.Lock(), threading.RLock()

    def __iter__(self) -> Self:
        """Return the watch itself."""
        return self

    def __next__(self) -> Told:
        """Wait for what happens next; the watch ends only by being closed."""
        told = self.next()
        if told is None:
            raise StopIteration
        return told

    def __enter__(self) -> Self:
        """Begin: what happens from now on is told.

        Raises:
            Unavailable, ServiceBusy, BadRequest: as `Client.acquire`.
        """
        with self._reading:
            try:
                self._open()
                if not self._course.begun:
                    self._read()
            except _Closed:
                pass  # there is nothing to be told
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the watch."""
        self.close()

    def _next(self, until: float | None) -> Told | None:
        line = self._open()
        while True:
            told = self._course.next()
            if told is not None:
                return told
            if self._closed:
                raise self._over or _Closed
            if self._course.due:
                try:
                    self._read(until)
                except (Unavailable, ServiceBusy):
                    if line.waits_for_end(RETRY_S, until):
                        return None
                continue
            if until is not None and time.monotonic() >= until:
                return None
            line.wait(min(self._look_at, until or self._look_at))
            line.feed.read(self._course)
            if time.monotonic() >= self._look_at:
                self._course.look()

    def _read(self, until: float | None = None) -> None:
        ask = self._course.ask()
        check(ask.operation)

        def begin(done: Callable[[Any], None], deadline: int) -> None:
            with self._state:
                self._interrupt, closed = done, self._closed
            if until is not None:
                deadline = min(deadline, now_ms() + int(1000 * max(READ_S, until - time.monotonic())))
            if closed:
                done(_Closed())
            else:
                self._caller.protocol.call(ask.operation, done, deadline)

        try:
            self._course.take(ask.read(self._caller.ask(begin)))
        except _Closed:
            raise (self._over or _Closed()) from None
        finally:
            self._interrupt = None
        self._look_at = time.monotonic() + self._course.look_after()

    def _open(self) -> "_Line":
        with self._state:
            if self._closed:
                raise self._over or _Closed
            if self._line is None:
                self._line = _Line(Feed(self._caller, self._course))
                # not at the interpreter's end: a daemon thread may still be reading
                self._finalizer = weakref.finalize(self, self._line.close)
                self._finalizer.atexit = False
            return self._line

    def _free(self) -> None:
        with self._state:
            line, self._line = self._line, None
        if line is not None:
            line.close()


_watches_lock = threading.Lock()


def _after_fork() -> None:
    global _watches_lock  # noqa: PLW0603 - a thread of the parent may have held it
    _watches_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Watches:
    """What a client offers of watches, and that they end with it."""

    namespace: str
    _caller: Caller

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

        >>> with client.watch("x") as watch:
        ...     client.acquire("x").release()
        ...     [next(watch).kind for _ in range(2)]
        True
        ['granted', 'released']
        """
        watch = Watch(self._caller, Course(self.namespace, name, since, below=below))
        with _watches_lock:
            self._watches.add(watch)
        return watch

    def _end_watches(self) -> None:
        with _watches_lock:
            watches = list(self._watches)
        for watch in watches:
            watch._end(ClientClosed("the client was closed"))  # noqa: SLF001 - so that its reader is told why


class _Line:
    """The feed, and what wakes whoever waits for it."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.waker = make_waker()
        self._poller = zmq.Poller()
        self._poller.register(feed.fileno(), zmq.POLLIN)
        self._poller.register(self.waker.fileno(), zmq.POLLIN)
        self._over = False

    def wait(self, until: float) -> None:
        """Wait for the feed, or to be woken."""
        left_ms = int((until - time.monotonic()) * 1000) + 1
        if left_ms > 0 and not self.feed.readable:
            self._poller.poll(left_ms)

    def waits_for_end(self, seconds: float, until: float | None) -> bool:
        """Wait to be woken; True once there is no time left."""
        now = time.monotonic()
        end = min(now + seconds, until or now + seconds)
        poller = zmq.Poller()
        poller.register(self.waker.fileno(), zmq.POLLIN)
        poller.poll(max(0, int((end - now) * 1000)))
        return until is not None and time.monotonic() >= until

    def close(self) -> None:
        """Leave the feed."""
        if not self._over:
            self._over = True
            context = self.feed.close()
            if context is not None:
                sockets.end_context(context)
            self.waker.close()
