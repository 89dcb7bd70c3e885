"""Watches what comes over each connection of a bound socket, and ends one whose message never does (P10, P11).

ZeroMQ keeps the parts of a message until the last one has come, however many they are, and tells nobody. So the kernel
is asked now and then how many bytes have come over each connection; and ZeroMQ, only while some connection is suspect,
which connection a whole message came from. What sends so much without ever ending a message is no client of ours.

Only the kernel of Linux is asked. Elsewhere connections are counted, and none is ended.
"""

import array
import os
import select
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from socket import AF_INET, IPPROTO_TCP, SHUT_RDWR, SO_LINGER, SOCK_STREAM, SOL_SOCKET
from socket import socket as KernelSocket  # noqa: N812 - it is a class, and `Socket` is ZeroMQ's
from typing import Any, Protocol

import zmq

from ..core import limits
from .sockets import Socket, arriving, monitor_port, read_events, readable, whole

if sys.platform == "linux":
    import fcntl
    import termios

LOOK_MS = 100
"""How often the connections are looked at: what a fast sender can send in this time is kept before it is noticed."""

SOON_MS = 5
"""The same while a suspect goes on sending."""

LOOK_SHARE = 0.02
"""Part of one processor that looking may take at most: if a look takes longer, the next one comes later."""

LOOK_CONNECTIONS = 200
"""Connections that have received something and are weighed in one look, a millisecond; the others have the next one."""

ROUND_CONNECTIONS = 8
"""Connections weighed in each look whatever the kernel says of them: it does not say that one has received something
whose peer takes nothing of what we send."""

TCP_INFO, TCP_INFO_BYTES, BYTES_RECEIVED = 11, 136, slice(128, 136)
"""Where tcpi_bytes_received is in struct tcp_info of linux/tcp.h, which has only ever grown at its end."""


HANDSHAKE_FAILED = "a connection ended before its handshake was over: it does not speak ZeroMQ, or it went away at once"


class Counts(Protocol):
    """Where a guard says what it saw."""

    def count(self, name: str, times: int = 1) -> None:
        """Count an occurrence."""
        ...

    def complain(self, name: str, text: str) -> None:
        """Count an occurrence, and log it."""
        ...


@dataclass(slots=True)
class Connection:
    """What has come over a connection, in bytes, and when it began to be weighed."""

    since: float
    received: int = 0
    whole: int = 0
    """How much had come when a whole message was last known to have come, or when the connection became suspect."""
    ended: bool = False

    @property
    def unfinished(self) -> int:
        """What may be parts of a message that has not ended."""
        return self.received - self.whole


class Guard:
    """The guard of one bound socket. It belongs to the thread that reads the socket."""

    def __init__(self, socket: Socket, counts: Counts, *, in_all: int | None = None) -> None:
        """Watch `socket`. With `in_all` a connection may send so much in its whole life, in whatever messages."""
        self.socket = socket
        self._counts = counts
        self._in_all = in_all
        self._monitor = monitor_port(socket)
        self._book: dict[int, Connection] = {}
        self._suspects: dict[int, Connection] = {}
        self._again: list[int] = []
        self._round: list[int] = []
        self._epoll: Any = None

    @property
    def connections(self) -> int:
        """How many connections are open, as far as is known."""
        return len(self._book)

    @property
    def suspects(self) -> int:
        """How many of them have sent much, and since then no whole message."""
        return len(self._suspects)

    def arriving(self) -> Iterator[list[bytes]]:
        """Yield the messages that have arrived, as `sockets.arriving` does, and note whence if that is of interest."""
        return self._noting() if self._suspects else arriving(self.socket)

    def look(self) -> int:
        """Look at what the connections have sent; return after how many milliseconds to look again.

        Not while messages are taken from `arriving`: it would not note whose they are, if a suspect is found now.
        """
        began = time.thread_time_ns()
        for event, value in read_events(self._monitor):
            if event == zmq.EVENT_ACCEPTED:
                self._open(value)
            elif event == zmq.EVENT_DISCONNECTED:
                self._forget(value)
            else:
                self._counts.complain("handshakes_failed", HANDSHAKE_FAILED)
        urgent = False
        for number in self._to_weigh():
            urgent |= self._weigh(number)
        took_ms = (time.thread_time_ns() - began) / 1_000_000
        return max(SOON_MS if urgent else LOOK_MS, int(took_ms / LOOK_SHARE))

    def close(self) -> None:
        """Watch no more."""
        self._monitor.close()
        if self._epoll is not None:
            self._epoll.close()

    # --- the reader's side -------------------------------------------------------------------------------------------

    def _noting(self) -> Iterator[list[bytes]]:
        for _ in range(limits.RECEIVE_BURST):
            try:
                first = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            cleared = self._suspects.pop(_source(first), None)
            if cleared is not None:
                cleared.whole = cleared.received
            yield whole(self.socket, first)

    # --- weighing ----------------------------------------------------------------------------------------------------

    def _to_weigh(self) -> list[int]:
        if self._epoll is None:
            return []
        if not self._round:
            self._round = list(self._book)
        some, self._round = self._round[:ROUND_CONNECTIONS], self._round[ROUND_CONNECTIONS:]
        some += self._again
        self._again = []
        some += [number for number, _ in self._epoll.poll(0, LOOK_CONNECTIONS)]
        return list(dict.fromkeys(some))

    def _weigh(self, number: int) -> bool:
        """Ask what has come over a connection, and judge it; return whether it is suspect and has sent still more."""
        connection = self._book.get(number)
        if connection is None or connection.ended:
            return False
        before = connection.received
        try:
            connection.received = _received(number)
        except OSError:
            self._forget(number)  # ZeroMQ has closed it, and may not have said so
            return False
        if self._in_all is not None:
            if connection.received > self._in_all:
                self._end(number, connection, "subscriptions_endless")
        elif number not in self._suspects:
            if connection.unfinished > limits.UNSUSPECTED_BYTES_MAX:
                connection.whole, connection.since = connection.received, time.monotonic()
                self._suspects[number] = connection
                return True
        elif connection.unfinished > limits.UNFINISHED_BYTES_MAX:
            self._judge(number, connection)
            return True
        else:
            return connection.received > before
        return False

    def _judge(self, number: int, suspect: Connection) -> None:
        try:
            taken_in = suspect.unfinished - _unread(number)
        except OSError:
            return  # it has ended
        # the end of a message may be in what ZeroMQ has not taken in yet, or in what the reader has not read yet
        if taken_in > limits.UNFINISHED_BYTES_MAX and not readable(self.socket):
            self._end(number, suspect, "messages_endless")
        else:
            self._again.append(number)

    def _end(self, number: int, connection: Connection, name: str) -> None:
        try:
            # by a copy: ZeroMQ may close the descriptor at any moment, and another file be given its number
            with _copy_of(number) as own:
                if own.getsockname()[1] != self._port() or _bytes_received(own) < connection.received:
                    self._forget(number)
                    return
                host, port = own.getpeername()[:2]
                own.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # or the peer goes on trying to send
                own.shutdown(SHUT_RDWR)
        except OSError:
            return  # it has ended by itself, of which the monitor tells
        connection.ended = True
        self._suspects.pop(number, None)
        if connection.unfinished < limits.PULSE_BYTES_S * (time.monotonic() - connection.since):
            self._counts.count("connections_renewed")
        else:
            sent = f"{connection.unfinished} bytes and no end"
            self._counts.complain(name, f"{host.removeprefix('::ffff:')} port {port} has sent {sent}; it is cut off")

    def _port(self) -> int:
        endpoint = self.socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(endpoint, bytes)
        return int(endpoint.rstrip(b"\0").rpartition(b":")[2])

    # --- the book ----------------------------------------------------------------------------------------------------

    def _open(self, number: int) -> None:
        self._forget(number)
        self._book[number] = Connection(time.monotonic())
        self._counts.count("connections_open")
        if sys.platform != "linux":
            return
        if self._epoll is None:
            self._epoll = select.epoll()
        try:
            # EPOLLOUT since it lasts: what has come is told even when ZeroMQ has taken it in by the time of the look
            self._epoll.register(number, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        except OSError:
            pass  # it has ended already; the monitor tells so next

    def _forget(self, number: int) -> None:
        if self._book.pop(number, None) is not None:
            self._suspects.pop(number, None)
            self._counts.count("connections_open", -1)
            self._counts.count("connections_ended")


def _received(number: int) -> int:
    """Return how many bytes have come over the connection that has this descriptor, which stays ZeroMQ's."""
    borrowed = KernelSocket(AF_INET, SOCK_STREAM, 0, fileno=number)
    try:
        return _bytes_received(borrowed)
    finally:
        borrowed.detach()


def _copy_of(number: int) -> KernelSocket:
    copy = os.dup(number)
    try:
        return KernelSocket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _source(frame: zmq.Frame) -> int:
    """Return over which descriptor a frame came, -1 if nothing tells: so it is with what speaks ZMTP 1.0."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1


def _bytes_received(connection: KernelSocket) -> int:
    return int.from_bytes(connection.getsockopt(IPPROTO_TCP, TCP_INFO, TCP_INFO_BYTES)[BYTES_RECEIVED], sys.byteorder)


def _unread(number: int) -> int:
    """Return how many of them ZeroMQ has not taken in yet."""
    size = array.array("i", [0])
    fcntl.ioctl(number, termios.FIONREAD, size)
    return size[0]
