"""The event feeds of all nodes, as a watch wants them: told only that something has happened, and what to poll."""

from ..core.effects import Role
from ..transport import sockets
from ..transport.endpoints import of_role
from ..transport.feed import FeedSubscriber
from .calling import BaseCaller
from .course import Course


class Feed:
    """A subscription at every node, to be read by one thread."""

    def __init__(self, endpoints: list[str], course: Course) -> None:
        """Subscribe to what the course is about."""
        self._context: sockets.Context | None = sockets.make_context(len(endpoints))
        feeds = [of_role(endpoint, Role.FEED) for endpoint in endpoints]
        self._subscriber = FeedSubscriber(self._context, *feeds, namespace=course.namespace, path=course.path)

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
        """Leave the feeds, and return the context if that is still to be ended: it may take a moment."""
        context, self._context = self._context, None
        if context is not None:
            self._subscriber.close()
        return context


def open_feed(caller: BaseCaller, course: Course) -> Feed:
    """Return the feeds of the nodes that a client asks."""
    return Feed(caller.protocol.endpoints, course)
