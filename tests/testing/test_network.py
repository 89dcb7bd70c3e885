"""The network of a test cluster, between a client and a server of plain TCP: what passes, what waits, what breaks."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lessor.core.effects import Role
from lessor.testing.network import CLIENTS, Network
from lessor.transport.endpoints import of_role, parse

from ..support.sockets import free_port

HOST = "127.0.0.1"


@dataclass
class Two:
    """Two nodes of which the second one is a plain server."""

    network: Network
    server: socket.socket

    def call(self, source: int = CLIENTS) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection from a party to the second node."""
        near = socket.create_connection(self.address(source), timeout=60)
        far, _ = self.server.accept()
        far.settimeout(60)
        return near, far

    def address(self, source: int = CLIENTS) -> tuple[str, int]:
        role = Role.GATEWAY if source == CLIENTS else Role.ACCEPTOR
        return parse(of_role(self.network.endpoint(source, 2), role))


@pytest.fixture(params=[CLIENTS, 1], ids=["a client", "a peer"])
def source(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def two(source: int) -> Iterator[Two]:
    base = free_port()
    port = base + (Role.GATEWAY if source == CLIENTS else Role.ACCEPTOR)
    network = Network([1, 2])
    with socket.create_server((HOST, port)) as server:
        server.settimeout(60)
        network.up(2, base)
        yield Two(network, server)
        network.close()


def read(end: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = end.recv(size - len(data))
        assert piece, "the connection was closed"
        data += piece
    return bytes(data)


def is_silent(end: socket.socket) -> bool:
    """Whether nothing comes for a while: shorter on a slow machine, where this may only fail to see a mistake."""
    end.settimeout(0.05)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        end.settimeout(60)


def test_bytes_pass_in_both_directions_and_so_does_the_end(two: Two, source: int) -> None:
    near, far = two.call(source)
    with near, far:
        near.sendall(b"ask")
        assert read(far, 3) == b"ask"
        far.sendall(b"answer")
        far.close()
        assert read(near, 6) == b"answer"
        assert near.recv(1) == b""


def test_a_node_that_is_down_keeps_its_ports_refuses_and_is_reached_again_once_it_is_up(two: Two, source: int) -> None:
    _, base = parse(two.network.endpoint(source, 2))
    near, far = two.call(source)
    with near, far:
        two.network.down(2)
        with pytest.raises(ConnectionRefusedError):
            two.call(source)
        assert near.recv(1) == b"", "its connections have ended"
        assert far.recv(1) == b""
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind(two.address(source))
    two.network.up(2, two.server.getsockname()[1] - (Role.GATEWAY if source == CLIENTS else Role.ACCEPTOR))
    assert parse(two.network.endpoint(source, 2)) == (HOST, base), "under the same address"
    near, far = two.call(source)
    with near, far:
        near.sendall(b"back")
        assert read(far, 4) == b"back"


def test_the_end_of_a_node_breaks_the_connections_that_it_made_too(two: Two, source: int) -> None:
    near, far = two.call(source)
    with near, far:
        two.network.down(1)
        if source == 1:
            assert far.recv(1) == b""
        else:
            near.sendall(b"alive")
            assert read(far, 5) == b"alive"


def test_a_silenced_direction_keeps_what_is_said_until_it_is_healed_and_the_other_goes_on(
    two: Two, source: int
) -> None:
    near, far = two.call(source)
    with near, far:
        two.network.silence([(source, 2)])
        near.sendall(b"held ")
        far.sendall(b"heard")
        assert read(near, 5) == b"heard"
        assert is_silent(far)
        near.sendall(b"back")
        two.network.heal()
        assert read(far, 9) == b"held back"


def test_whoever_connects_into_silence_is_neither_refused_nor_answered(two: Two, source: int) -> None:
    two.network.silence([(source, 2), (2, source)])
    near, far = two.call(source)
    with near, far:
        near.sendall(b"hello")
        assert is_silent(far)
        far.sendall(b"hello")
        assert is_silent(near)
        two.network.heal()
        assert read(far, 5) == read(near, 5) == b"hello"


def test_a_frozen_node_neither_hears_nor_is_heard_until_it_thaws_though_the_network_heals(
    two: Two, source: int
) -> None:
    near, far = two.call(source)
    with near, far:
        two.network.freeze(2)
        two.network.heal()
        near.sendall(b"hello")
        far.sendall(b"hello")
        assert is_silent(near)
        assert is_silent(far)
        two.network.thaw(2)
        assert read(far, 5) == read(near, 5) == b"hello"


def test_a_connection_that_is_closed_in_silence_is_found_closed_afterwards(two: Two, source: int) -> None:
    near, far = two.call(source)
    with near, far:
        two.network.silence([(source, 2), (2, source)])
        near.sendall(b"last words")
        near.close()
        assert is_silent(far)
        two.network.heal()
        assert read(far, 10) == b"last words"
        assert far.recv(1) == b""


def test_a_slow_reader_holds_the_sender_back_and_misses_nothing(two: Two, source: int) -> None:
    near, far = two.call(source)
    piece = bytes(range(251)) * 261  # of a length at which no mistake fits
    sent = 0
    with near, far:
        near.settimeout(0.2)
        try:
            while True:
                sent += near.send(piece[sent % len(piece) :])
        except TimeoutError:
            pass
        assert read(far, sent) == (piece * (sent // len(piece) + 1))[:sent]
        near.settimeout(60)
        near.sendall(b"end")
        assert read(far, 3) == b"end"


def test_a_server_that_does_not_listen_breaks_the_connection(two: Two, source: int) -> None:
    two.server.close()
    try:
        with socket.create_connection(two.address(source), timeout=60) as near:
            assert near.recv(1) == b""
    except ConnectionResetError:
        pass


def test_a_closed_network_gives_everything_back_and_says_so(two: Two, source: int) -> None:
    near, far = two.call(source)
    with near, far:
        two.network.close()
        two.network.close()
        assert far.recv(1) == b""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(two.address(source))
            probe.listen()
        with pytest.raises(Exception, match="the cluster is closed"):
            two.network.heal()
