"""Sockets: nothing is queued without bound or for an absent peer, and what happens to a connection is told."""

import socket as socketlib
import threading
from collections.abc import Callable

import pytest
import zmq

from lessor.core import limits
from lessor.transport import sockets
from lessor.transport.sockets import (
    Context,
    Socket,
    dealer,
    monitor_connection,
    monitor_port,
    publisher,
    read_monitor,
    readable,
    receive,
    router,
    send,
    subscriber,
)

from ..support.sockets import GREETING, HOST, RawPeer, a_context, free_port, zmtp_frame
from ..support.waiting import until

FEW = 20
KILOBYTES = bytes(64 * 1024)


def arrived(socket: Socket, what: str = "a message") -> list[list[bytes]]:
    return until(lambda: receive(socket), what, every=0.005)


def connected(context: Context, endpoint: str) -> Socket:
    """A dealer that has its connection."""
    socket = dealer(context, endpoint)
    until(lambda: socket.poll(0, zmq.POLLOUT), "the connection", every=0.005)
    return socket


def wait_for(monitor: Socket, *events: int) -> list[int]:
    """Wait until a monitor has told of these events, in this order; return all that it told up to then."""
    seen: list[int] = []

    def look() -> bool:
        seen.extend(read_monitor(monitor))
        left = iter(seen)
        return all(event in left for event in events)

    until(look, f"the events {[zmq.Event(event) for event in events]!r}", every=0.005)
    return seen


# --- a queue for those who are there ---------------------------------------------------------------------------------


def test_nothing_is_queued_for_a_peer_that_is_not_there(context: Context, endpoint: str) -> None:  # P10
    socket = dealer(context, endpoint)
    assert not any(send(socket, [b"early %d" % number]) for number in range(100))
    port = router(context, endpoint)
    until(lambda: send(socket, [b"in time"]), "the connection", every=0.005)
    assert [frames[-1] for frames in arrived(port)] == [b"in time"]


def test_nothing_is_queued_for_a_peer_that_has_gone(context: Context, endpoint: str) -> None:  # P10
    port = router(context, endpoint)
    socket = dealer(context, endpoint)
    monitor = monitor_connection(socket)
    until(lambda: send(socket, [b"hello"]), "the connection", every=0.005)
    arrived(port)
    port.close()
    wait_for(monitor, zmq.EVENT_DISCONNECTED)
    until(lambda: not send(socket, [b"too late"]), "the connection to be given up", every=0.005)
    assert not any(send(socket, [b"too late"]) for _ in range(100))
    port = until(lambda: try_router(context, endpoint), "the port to be free again")
    until(lambda: send(socket, [b"back"]), "the next connection", every=0.005)
    assert [frames[-1] for frames in arrived(port)] == [b"back"]


def try_router(context: Context, endpoint: str) -> Socket | None:
    try:
        return router(context, endpoint)
    except zmq.ZMQError:
        return None


def test_a_dealer_drops_what_a_slow_peer_does_not_take_and_never_blocks(
    context: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr(limits, "SOCKET_QUEUE_MESSAGES", FEW)
    port = router(context, endpoint)
    socket = connected(context, endpoint)
    taken = sum(send(socket, [KILOBYTES]) for _ in range(3000))
    assert FEW <= taken < 1000, "the two queues and what the kernel holds, of 64 KiB each"
    got = 0

    def all_of_them() -> bool:
        nonlocal got
        got += len(receive(port))
        return got == taken

    until(all_of_them, "what was taken to arrive", every=0.001)


def test_a_router_drops_what_a_slow_client_does_not_take_and_serves_the_others(
    context: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr(limits, "SOCKET_QUEUE_MESSAGES", FEW)
    port = router(context, endpoint)
    slow, quick = connected(context, endpoint), connected(context, endpoint)
    send(slow, [b"slow"])
    [[slow_identity, _]] = arrived(port)
    send(quick, [b"quick"])
    [[quick_identity, _]] = arrived(port)
    for _ in range(3000):
        send(port, [slow_identity, KILOBYTES])
    send(port, [quick_identity, b"answer"])
    assert arrived(quick) == [[b"answer"]]
    got = 0

    def no_more() -> bool:
        nonlocal got
        news = len(receive(slow))
        got += news
        return got >= FEW and not news and not slow.poll(200)

    until(no_more, "the slow client to read its queue up", every=0)
    assert got < 1000


def test_an_answer_to_a_client_that_has_gone_is_dropped(context: Context, endpoint: str) -> None:
    port = router(context, endpoint)
    socket = connected(context, endpoint)
    send(socket, [b"question"])
    [[identity, _]] = arrived(port)
    socket.close()
    for _ in range(100):
        send(port, [identity, b"answer"])
    send(port, [b"nobody", b"answer"])


def test_a_frame_that_is_too_large_ends_its_connection_and_the_next_one_is_good(
    context: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10, P11
    monkeypatch.setattr(limits, "SOCKET_MESSAGE_BYTES_MAX", 1000)
    port = router(context, endpoint)
    socket = connected(context, endpoint)
    monitor = monitor_connection(socket)
    send(socket, [bytes(1001)])
    wait_for(monitor, zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED)
    until(lambda: send(socket, [bytes(1000)]), "the next connection", every=0.005)
    assert [frames[1:] for frames in arrived(port)] == [[bytes(1000)]]


def test_a_burst_leaves_the_rest_for_the_next_look(context: Context, endpoint: str) -> None:
    port = router(context, endpoint)
    socket = connected(context, endpoint)
    for number in range(50):
        send(socket, [b"%d" % number])
    first: list[bytes] = []
    while len(first) < 30:
        assert port.poll(60_000)
        burst = receive(port, burst=10)
        assert len(burst) <= 10
        first += [frames[-1] for frames in burst]
    assert first == [b"%d" % number for number in range(len(first))]


def test_of_a_message_of_too_many_frames_only_the_first_are_kept(context: Context, endpoint: str) -> None:  # P11
    port = router(context, endpoint)
    socket = connected(context, endpoint)
    most = limits.PACKET_FRAMES_MAX
    send(socket, [b"part"] * 10_000)
    send(socket, [b"next"] * (most - 1))
    got = arrived(port)
    while len(got) < 2:
        got += arrived(port)
    assert [frames[1:] for frames in got] == [[b"part"] * most, [b"next"] * (most - 1)]


def test_to_receive_nothing_does_not_wait(context: Context, endpoint: str) -> None:
    port = router(context, endpoint)
    assert receive(port) == []
    assert not readable(port)


# --- what happens to a connection is told ----------------------------------------------------------------------------


def test_a_monitor_tells_that_there_is_no_connection_then_that_there_is_one_then_that_it_is_lost(
    context: Context, endpoint: str
) -> None:
    monitor = monitor_connection(dealer(context, endpoint))
    assert set(wait_for(monitor, zmq.EVENT_CLOSED)) == {zmq.EVENT_CLOSED}
    port = router(context, endpoint)
    seen = wait_for(monitor, zmq.EVENT_HANDSHAKE_SUCCEEDED)
    assert zmq.EVENT_DISCONNECTED not in seen
    assert read_monitor(monitor) == []
    port.close()
    wait_for(monitor, zmq.EVENT_DISCONNECTED)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\xff" * 100,
        GREETING.replace(b"NULL\0", b"PLAIN"),
        GREETING + zmtp_frame(b"a message before the handshake"),
    ],
)
def test_a_monitor_tells_of_connections_that_do_not_speak_as_we_do(
    context: Context, endpoint: str, said: bytes
) -> None:  # P11
    monitor = monitor_port(router(context, endpoint))
    seen: list[int] = []

    def told() -> bool:
        seen.extend(read_monitor(monitor))
        return any(event & sockets.TROUBLE for event in seen)

    with RawPeer(int(endpoint.rpartition(":")[2])) as peer:
        peer.send(said)
    until(told, "the monitor to tell", every=0.005)


def test_a_monitor_tells_of_no_trouble_with_good_connections(context: Context, endpoint: str) -> None:
    port = router(context, endpoint)
    monitor = monitor_port(port)
    socket = connected(context, endpoint)
    send(socket, [b"hello"])
    arrived(port)
    socket.close()
    assert wait_for(monitor, zmq.EVENT_DISCONNECTED) == [zmq.EVENT_ACCEPTED, zmq.EVENT_DISCONNECTED]


def test_a_monitor_that_nobody_reads_holds_nobody_up(context: Context, endpoint: str) -> None:  # P11
    monitor_port(router(context, endpoint))
    for _ in range(1_500):
        RawPeer(int(endpoint.rpartition(":")[2])).greet(b"DEALER").close()


def test_a_connection_that_never_shakes_hands_is_ended(
    context: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 300)
    port = router(context, endpoint)
    with RawPeer(int(endpoint.rpartition(":")[2])) as peer:
        assert peer.is_closed()
    assert receive(port) == []


# --- beginnings and ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bind", [router, publisher])
def test_a_port_that_is_taken_is_an_error_and_leaves_no_socket_behind(
    context: Context, endpoint: str, bind: Callable[[Context, str], Socket]
) -> None:
    other: Context = zmq.Context()
    port = router(context, endpoint)
    with pytest.raises(zmq.ZMQError, match="in use"):
        bind(other, endpoint)
    ended = threading.Thread(target=other.term, daemon=True)  # waits for every socket that is open
    ended.start()
    ended.join(60)
    assert not ended.is_alive()
    assert not port.closed


def test_what_nobody_has_read_does_not_hold_up_the_end(context: Context, endpoint: str) -> None:
    other: Context = zmq.Context()
    port = router(context, endpoint)
    socket = connected(other, endpoint)
    for _ in range(500):
        send(socket, [KILOBYTES])
    assert port.poll(60_000)
    socket.close()
    ended = threading.Thread(target=other.term, daemon=True)
    ended.start()
    ended.join(60)
    assert not ended.is_alive()


def test_a_port_is_free_again_once_its_context_has_ended() -> None:
    port = free_port()
    for _ in range(5):
        with a_context() as context:
            router(context, f"tcp://{HOST}:{port}")


def test_a_port_that_a_node_of_this_process_has_not_let_go_of_yet_is_waited_for(
    context: Context, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = router(context, endpoint)

    class Ending:
        def join(self, timeout: float) -> None:
            before.close()
            until(lambda: _is_free(endpoint), "the port to be free", every=0.005)

    monkeypatch.setattr(sockets, "_endings", [Ending()])
    assert not router(context, endpoint).closed


def _is_free(endpoint: str) -> bool:
    with socketlib.socket() as probe:
        try:
            probe.bind((HOST, int(endpoint.rpartition(":")[2])))
        except OSError:
            return False
        return True


def test_a_subscriber_finds_a_publisher_that_comes_later_and_one_that_comes_back(
    context: Context, endpoint: str
) -> None:
    feed = subscriber(context, endpoint, b"topic")
    for _ in range(2):
        with a_context() as other:
            port = publisher(other, endpoint)

            def subscription(port: Socket = port) -> list[list[bytes]]:
                readable(feed)  # a subscriber subscribes again when it is looked at
                return receive(port)

            assert until(subscription, "the subscription", every=0.005) == [[b"\x01topic"]]
            port.send_multipart([b"topic", b"news"])
            assert arrived(feed) == [[b"topic", b"news"]]
