"""The event feeds of all nodes, as a watch wants them: told only that something has happened, and what to poll."""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ..core.effects import Role
from ..transport import sockets
from ..transport.endpoints import of_role
from ..transport.feed import FeedSubscriber
from .calling import BaseCaller
from .course import Course
from .protocol import Protocol


class _Shared:
    """The threads of ZeroMQ that all watches of one client share, and how many watches there are."""

    def __init__(self, lanes: int) -> None:
        self.context = sockets.make_context(lanes)
        self.users = 0


_shared: "weakref.WeakKeyDictionary[Protocol, _Shared]" = weakref.WeakKeyDictionary()
_lock = threading.RLock()  # also the garbage collector may close a watch


W = TypeVar("W")
_watches: "weakref.WeakKeyDictionary[Any, Callable[[Any], None]]" = weakref.WeakKeyDictionary()


def begins_anew_after_fork(watch: W, begin_anew: Callable[[W], None]) -> None:
    """Have a watch told that it is in the child of a fork: its locks are nobody's, and its sockets are the parent's."""
    _watches[watch] = begin_anew


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may have held it
    _lock = threading.RLock()
    for watch, begin_anew in list(_watches.items()):
        begin_anew(watch)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Feed:
    """A subscription at every node, to be read by one thread."""

    def __init__(self, caller: BaseCaller, course: Course) -> None:
        """Subscribe to what the course is about."""
        self._protocol = caller.protocol  # which a fork replaces: the child shares nothing with its parent
        endpoints = self._protocol.endpoints
        feeds = [of_role(endpoint, Role.FEED) for endpoint in endpoints]
        with _lock:
            shared = _shared.get(self._protocol)
            if shared is None:
                shared = _shared[self._protocol] = _Shared(len(endpoints))
            shared.users += 1
        self._from: _Shared | None = shared
        self._subscriber = FeedSubscriber(shared.context, *feeds, namespace=course.namespace, path=course.path)

    def fileno(self) -> int:
        """Return the descriptor that tells of changes."""
        return self._subscriber.fileno()

    @property
    def readable(self) -> bool:
        """Whether something has arrived; the descriptor need not tell of it again."""
        return self._subscriber.readable

    def read(self, course: Course) -> bool:
        """Hand on what has arrived; True if anything has."""
        events, garbled = self._subscriber.arrived()
        course.hint(events)
        if garbled:  # from a node of another version; it may have been an event of ours
            course.look()
        return garbled or bool(events)

    def close(self) -> sockets.Context | None:
        """Leave the feeds; return the context if nobody uses it any more: to end it takes a moment."""
        shared, self._from = self._from, None
        if shared is None:
            return None
        self._subscriber.close()
        with _lock:
            shared.users -= 1
            if shared.users:
                return None
            _shared.pop(self._protocol, None)
        return shared.context
