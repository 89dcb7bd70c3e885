"""The event feed: every applied change of a lease, published by each node to whoever subscribes."""

import time

import zmq

from ..core import limits
from ..core.errors import Malformed
from ..core.events import Event
from .packets import decode_packet, encode_packet, payload
from .sockets import Context, Socket, follow, monitor_connection, publisher, read_monitor, readable, send, subscriber

_LEFT, _JOINED = b"\x00", b"\x01"

TOPICS_MAX = 10_000
"""Topics whose subscribers are kept account of. Once there were more, events are published whoever listens."""


def topic_of(namespace: str, path: tuple[str, ...]) -> bytes:
    """Return the topic of a resource's events; the topic of a namespace is a prefix of those of its resources.

    Each part ends with a zero byte, which no name holds: so the topic of `a` is no prefix of those of `ab`.
    """
    return "".join([f"{part}\0" for part in (namespace, *path)]).encode() if namespace else b""


class FeedPublisher:
    """A node's end of the feed."""

    def __init__(self, context: Context, endpoint: str) -> None:
        """Bind the feed's port.

        Raises:
            zmq.ZMQError: the address cannot be bound.
        """
        self.socket: Socket = publisher(context, endpoint)
        self._topics: set[bytes] = set()
        self._forgetful = False

    def publish(self, events: tuple[Event, ...]) -> None:
        """Publish events in order; costs nothing while nobody listens."""
        self._look()
        if not self._topics and not self._forgetful:
            return
        for event in events:
            packet = encode_packet([event])
            # what happens to a claim on several paths is told to the readers of each; one of all reads it several times
            for path in (event.path, *event.others):
                send(self.socket, [topic_of(event.namespace, path), packet])

    def _look(self) -> None:
        """Take in which topics have got their first subscriber or have lost their last one.

        ZeroMQ also hands over that somebody leaves a topic whom it never heard join it. So it is believed only when it
        says of itself that a topic has no subscriber left, since a connection has ended: nobody silences the others.
        """
        for _ in range(limits.RECEIVE_BURST):
            if not readable(self.socket):
                return
            told = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)[0]
            kind, topic = told.bytes[:1], told.bytes[1:]
            if kind == _JOINED and len(self._topics) < TOPICS_MAX:
                self._topics.add(topic)
            elif kind == _JOINED:
                self._forgetful = True
            elif kind == _LEFT and not _is_from_a_peer(told):
                self._topics.discard(topic)


def _is_from_a_peer(told: zmq.Frame) -> bool:
    try:
        return bool(told.get("Peer-Address"))
    except zmq.ZMQError:
        return False


class FeedSubscriber:
    """A reader of the feeds of one node or of several, which tell the same events under the same revisions."""

    def __init__(self, context: Context, *endpoints: str, namespace: str = "", path: tuple[str, ...] = ()) -> None:
        """Subscribe to the events of a resource, of a namespace, or to all."""
        self._socket = subscriber(context, endpoints[0], topic_of(namespace, path))
        self._monitor = monitor_connection(self._socket)
        for lane, endpoint in enumerate(endpoints[1:], 1):
            follow(self._socket, context, endpoint, lane)

    def wait_connected(self, timeout_ms: int) -> bool:
        """Wait until one of the feeds is connected: the subscription is on its way to it then, before anything else."""
        deadline = time.monotonic() + timeout_ms / 1000
        while (left := deadline - time.monotonic()) > 0:
            if self._monitor.poll(int(left * 1000)) and zmq.EVENT_HANDSHAKE_SUCCEEDED in read_monitor(self._monitor):
                return True
        return False

    def next(self, timeout_ms: int | None = None) -> Event | None:
        """Return the next event, None if none came in time.

        Raises:
            Malformed: what came is no event of this version.
        """
        if not self._socket.poll(timeout_ms):
            return None
        frames = self._socket.recv_multipart()
        messages = decode_packet(payload(frames))
        if len(messages) != 1 or not isinstance(messages[0], Event):
            raise Malformed("the feed sent something that is no event")
        return messages[0]

    def fileno(self) -> int:
        """Return the descriptor that tells of changes; read all that there is before it is waited for."""
        return int(self._socket.fileno())

    @property
    def readable(self) -> bool:
        """Whether something has arrived; the descriptor need not tell of it again."""
        return readable(self._socket)

    def arrived(self) -> tuple[list[Event], bool]:
        """Return the events that have arrived, and whether something else came that could not be read; do not wait."""
        events: list[Event] = []
        garbled = False
        while readable(self._socket):
            try:
                event = self.next(0)
            except Malformed:
                garbled = True
                continue
            if event is not None:
                events.append(event)
        return events, garbled

    def close(self) -> None:
        """Leave the feed."""
        self._monitor.close()
        self._socket.close()
