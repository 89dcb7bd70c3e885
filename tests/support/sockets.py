"""The other end of a node's sockets: a client that says what it is told to, and raw TCP that speaks ZMTP badly."""

import os
import random
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import zmq

from lessor.core.requests import StatusAnswer, StatusRequest
from lessor.transport.packets import decode_packet, encode_packet
from lessor.transport.ports import ReservedPorts
from lessor.transport.sockets import Context, Socket, dealer, receive, send

from .waiting import until

HOST = "127.0.0.1"


@contextmanager
def a_context() -> Iterator[Context]:
    """A ZeroMQ context that keeps its sockets until it ends, and then ends them, whatever is still queued."""
    kept: list[Any] = []

    class Keeping(zmq.Context[Socket]):
        def socket(self, *arguments: Any, **options: Any) -> Any:
            kept.append(super().socket(*arguments, **options))
            return kept[-1]

    context = Keeping(io_threads=1)
    try:
        yield context
    finally:
        context.destroy(linger=0)


def seeded(name: str) -> random.Random:
    """Chance for one test, from LESSOR_SEED if that is set; pytest shows how to have it again if the test fails."""
    seed = int(os.environ.get("LESSOR_SEED") or secrets.randbits(32))
    sys.stdout.write(f"to repeat: LESSOR_SEED={seed} pytest -m '' -k {name}\n")
    return random.Random(seed)


_reserved: list[ReservedPorts] = []


def free_port() -> int:
    """A port that is free now, with the ones above it that a node needs; nobody else is given it."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many such ports."""
    _reserved.append(ReservedPorts(count, HOST))
    if len(_reserved) > 100:  # long used by then
        _reserved.pop(0).close()
    return _reserved[-1].bases


def free_endpoints(count: int) -> dict[int, str]:
    """Endpoints for a cluster of so many nodes on this machine, whose ports are all free now."""
    return {node: f"tcp://{HOST}:{base}" for node, base in enumerate(free_ports(count), start=1)}


def is_free(port: int) -> bool:
    """Whether a node could listen there. As ZeroMQ does, it does not mind connections that are just ending."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


class Asker:
    """A client of one gateway that says exactly what it is told to."""

    def __init__(self, context: Context, endpoint: str) -> None:
        self.socket = dealer(context, endpoint)
        self.heard: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, *messages: Any) -> None:
        self.say_frames([encode_packet(messages)])

    def say_frames(self, frames: list[bytes]) -> None:
        """Send as soon as there is a connection."""
        until(lambda: send(self.socket, frames), "the connection to a gateway", every=0.005)

    def hear(self, wanted: Callable[[Any], bool], what: str, timeout: float = 60.0) -> Any:
        """Wait for a message that is wanted, and take it out of those that came."""

        def look() -> Any:
            self.socket.poll(20)
            for frames in receive(self.socket):
                self.heard += decode_packet(frames[-1])
            return next((message for message in self.heard if wanted(message)), None)

        found = until(look, what, timeout=timeout, every=0)
        self.heard.remove(found)
        return found

    def ask(self, message: Any, timeout: float = 60.0) -> Any:
        """Send a request, and return what comes back under its number."""
        self.say(message)
        return self.hear(
            lambda answer: getattr(answer, "number", None) == message.number, f"an answer to {message}", timeout
        )

    def status(self) -> StatusAnswer:
        answer = self.ask(StatusRequest(secrets.randbits(40)))
        assert isinstance(answer, StatusAnswer)
        return answer


def status_of(endpoint: str) -> StatusAnswer:
    """What a node says of itself."""
    with a_context() as context, Asker(context, endpoint) as asker:
        return asker.status()


def counter(status: StatusAnswer, name: str) -> int:
    """One of the counters of a node, 0 if it has not counted anything under that name."""
    return next((counter.value for counter in status.counters if counter.name == name), 0)


# --- raw ZMTP 3.0 (rfc.zeromq.org/spec/23) ---------------------------------------------------------------------------

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""Signature, version, mechanism, no server, filler."""

MORE, LONG, COMMAND = 1, 2, 4


def zmtp_frame(body: bytes, *, more: bool = False) -> bytes:
    return (
        bytes([MORE * more, len(body)]) + body
        if len(body) < 256
        else bytes([MORE * more | LONG]) + struct.pack(">Q", len(body)) + body
    )


def zmtp_command(name: bytes, rest: bytes) -> bytes:
    body = bytes([len(name)]) + name + rest
    return bytes([COMMAND, len(body)]) + body


def zmtp_ready(kind: bytes) -> bytes:
    name = b"Socket-Type"
    return zmtp_command(b"READY", bytes([len(name)]) + name + struct.pack(">I", len(kind)) + kind)


class RawPeer:
    """A TCP connection to one of a node's ports."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send, unless the node has closed the connection."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def greet(self, kind: bytes) -> Self:
        """Shake hands as a socket of this kind."""
        self.socket.sendall(GREETING)
        self.read(len(GREETING))
        self.socket.sendall(zmtp_ready(kind))
        _, size = self.read(2)
        self.read(size)
        return self

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "the node closed the connection"
            data += piece
        return data

    def is_closed(self, timeout: float = 60.0) -> bool:
        """Whether the node ends the connection in time; what it sends before that is thrown away."""
        deadline = time.monotonic() + timeout
        try:
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(65_536):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False
