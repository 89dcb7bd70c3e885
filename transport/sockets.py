"""ZeroMQ sockets as this project wants them: bounded in every direction, and never lingering."""

import struct
import threading
from collections.abc import Iterator
from typing import Any

import zmq

from ..core import limits

RECONNECT_MS = 20
"""First wait before a broken connection is tried again."""

RECONNECT_MS_MAX = 500
"""Longest wait between two tries: a node that comes back is reached within half a second."""

PULSE_MS = 1_000
"""How often ZeroMQ itself asks a silent connection whether it lives; three times this without an answer breaks it."""

HANDSHAKE_MS = 5_000
"""How long a connection may take to say who it is. Ours take some milliseconds; one that never does is closed."""

LANES_MAX = 10
"""Most threads that ZeroMQ is given: one for what connects to us, and one for each peer of the largest cluster."""

MONITOR_EVENTS_MAX = 100_000
"""Events that wait to be read from a monitor, some tens of megabytes. When there are more, ZeroMQ's thread waits, and
with it all that it serves; and there are two for each connection that comes and goes."""

END_S = 0.5
"""How long the end of ZeroMQ's threads is waited for; without trouble it takes a millisecond."""

END_IN_ALL_S = 5.0
"""How long it is waited for by whoever needs a port of it."""

_endings: list[threading.Thread] = []
"""The ends of contexts that nobody has waited for."""

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

# as plain numbers: the arithmetic of enumerations costs as much as sending a small message does
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)
_NOBLOCK, _NOBLOCK_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

TROUBLE = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


def router(context: Context, endpoint: str) -> Socket:
    """Return a ROUTER bound to `endpoint`.

    Raises:
        zmq.ZMQError: the address cannot be bound.
    """
    socket = context.socket(zmq.ROUTER)
    _bound(socket)
    _take_lane(socket, context, 0)
    # a client that is slow to read loses packets (all are repeatable) rather than holding up the node
    socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
    _bind(socket, endpoint)
    return socket


def make_context(lanes: int = 1) -> Context:
    """Return a context with so many threads of ZeroMQ's own, up to `LANES_MAX`: see `dealer`."""
    return zmq.Context(io_threads=max(1, min(lanes, LANES_MAX)))


def end_context(context: Context) -> None:
    """End a context whose sockets are closed, without waiting for long.

    ZeroMQ waits for its threads, and one of them may be looking a name up: that is left to a thread that keeps nobody.
    """
    ending = threading.Thread(target=context.destroy, args=(0,), name="lessor-zmq-end", daemon=True)
    ending.start()
    ending.join(END_S)
    _endings[:] = [thread for thread in [*_endings, ending] if thread.is_alive()]


def dealer(context: Context, endpoint: str, lane: int = 0) -> Socket:
    """Return a DEALER that connects, and connects again, to `endpoint`.

    It queues nothing while it is not connected: what is said to a node that is away is soon said again, and a queue of
    repetitions would only greet it when it comes back.

    ZeroMQ looks host names up in the thread that serves the connection, and the name of a machine that is gone may take
    many seconds not to be found. So connections to different machines take different lanes: none waits for another.
    """
    socket = context.socket(zmq.DEALER)
    _bound(socket)
    _take_lane(socket, context, lane)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, 2_000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, PULSE_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * PULSE_MS)
    socket.connect(endpoint)
    return socket


def publisher(context: Context, endpoint: str) -> Socket:
    """Return an XPUB bound to `endpoint`: a PUB that also tells whether anybody listens.

    Raises:
        zmq.ZMQError: the address cannot be bound.
    """
    socket = context.socket(zmq.XPUB)
    _bound(socket)
    socket.setsockopt(zmq.SNDHWM, limits.FEED_QUEUE_EVENTS)
    _take_lane(socket, context, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.NAME_BYTES_MAX * 2)  # what it receives are subscriptions to a name
    _bind(socket, endpoint)
    return socket


def subscriber(context: Context, endpoint: str, topic: bytes = b"") -> Socket:
    """Return a SUB that follows the feed at `endpoint`; see `follow` for more of them."""
    socket = context.socket(zmq.SUB)
    _bound(socket)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    socket.setsockopt(zmq.SUBSCRIBE, topic)
    follow(socket, context, endpoint, 0)
    return socket


def follow(socket: Socket, context: Context, endpoint: str, lane: int) -> None:
    """Have a SUB follow the feed at `endpoint` too, in a lane of its own: see `dealer`."""
    _take_lane(socket, context, lane)
    socket.connect(endpoint)


def monitor_connection(socket: Socket) -> Socket:
    """Return a monitor that tells when `socket` has got its connection, has lost it, or cannot get it."""
    return _monitor(socket, zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)


def monitor_port(socket: Socket) -> Socket:
    """Return a monitor that tells of connections to `socket`: that one has come, that it is not ours, that it ended."""
    return _monitor(socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | TROUBLE)


def read_monitor(monitor: Socket) -> list[int]:
    """Return the events that a monitor has, without waiting."""
    return [event for event, _ in read_events(monitor)]


def read_events(monitor: Socket) -> list[tuple[int, int]]:
    """Return the events that a monitor has, and the value of each: mostly the descriptor of the connection."""
    events: list[tuple[int, int]] = []
    while readable(monitor):
        events.append(struct.unpack("=hi", monitor.recv_multipart(zmq.NOBLOCK)[0]))
    return events


def readable(socket: Socket) -> bool:
    """Return whether a message has arrived."""
    return bool(int(socket.get(_EVENTS)) & _POLLIN)


def arriving(socket: Socket, burst: int = limits.RECEIVE_BURST) -> Iterator[list[bytes]]:
    """Yield the multipart messages that have arrived, at most `burst`, each taken only when it is asked for."""
    try:
        for _ in range(burst):
            yield whole(socket, socket.recv(_NOBLOCK, copy=False))
    except zmq.Again:
        pass


def whole(socket: Socket, frame: zmq.Frame) -> list[bytes]:
    """Return the frames of the message that begins with this one; of too many, only as many as show that they are.

    This is faster than `recv_multipart`, which asks ZeroMQ after each frame whether there is another.
    """
    frames = [frame.bytes]
    while frame.more:
        frame = socket.recv(_NOBLOCK, copy=False)
        if len(frames) <= limits.PACKET_FRAMES_MAX:
            frames.append(frame.bytes)
    return frames


def receive(socket: Socket, burst: int = limits.RECEIVE_BURST) -> list[list[bytes]]:
    """Return the multipart messages that have arrived, at most `burst` of them, without waiting."""
    return list(arriving(socket, burst))


def send(socket: Socket, frames: list[bytes]) -> bool:
    """Send without waiting; False when the queue is full or nobody is connected: the packet is dropped."""
    try:
        for frame in frames[:-1]:
            socket.send(frame, _NOBLOCK_MORE)
        socket.send(frames[-1], _NOBLOCK)
    except zmq.Again:
        return False
    return True


def _bound(socket: Any) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, limits.SOCKET_QUEUE_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, limits.SOCKET_QUEUE_MESSAGES_IN)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.SOCKET_MESSAGE_BYTES_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.IPV6, 1)


def _take_lane(socket: Any, context: Context, lane: int) -> None:
    lanes = int(context.get(zmq.IO_THREADS))
    socket.setsockopt(zmq.AFFINITY, 1 << (lane % lanes))


def _bind(socket: Socket, endpoint: str) -> None:
    try:
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            endings = _endings[:]  # a node of this process that has just stopped may not have let go of its ports yet
            if error.errno != zmq.EADDRINUSE or not endings:
                raise
            for ending in endings:
                ending.join(END_IN_ALL_S)
            socket.bind(endpoint)
    except zmq.ZMQError:
        socket.close()
        raise


def _monitor(socket: Socket, events: int) -> Socket:
    monitor = socket.get_monitor_socket(events)
    monitor.setsockopt(zmq.RCVHWM, MONITOR_EVENTS_MAX)
    return monitor
