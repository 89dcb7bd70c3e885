"""The guard of a port: who sends and sends, and never ends a message, is cut off, and nobody else ever is."""

import itertools
import os
import socket as kernel
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lessor.core import limits
from lessor.transport import guard as guard_module
from lessor.transport.guard import LOOK_MS, SOON_MS, Guard
from lessor.transport.sockets import Context, Socket, publisher, router, send

from ..support.sockets import RawPeer, zmtp_frame
from ..support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only the kernel of Linux is asked")

PART = zmtp_frame(bytes(100_000), more=True)


class Counts:
    """What a guard has counted and said."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.texts: list[str] = []

    def count(self, name: str, times: int = 1) -> None:
        self.counts[name] += times

    def complain(self, name: str, text: str) -> None:
        self.counts[name] += 1
        self.texts.append(text)

    def __getitem__(self, name: str) -> int:
        return self.counts[name]


class House:
    """A port that is guarded, and read only when it is asked for."""

    def __init__(self, context: Context, endpoint: str, *, feed_bytes: int | None = None) -> None:
        self.number = int(endpoint.rpartition(":")[2])
        self.socket: Socket = (router if feed_bytes is None else publisher)(context, endpoint)
        self.counts = Counts()
        self.guard = Guard(self.socket, self.counts, in_all=feed_bytes)

    def peer(self, kind: bytes = b"DEALER") -> RawPeer:
        """A connection that has shaken hands, and that the guard knows of."""
        before = self.guard.connections
        peer = RawPeer(self.number).greet(kind)
        until(lambda: self.guard.look() and self.guard.connections > before, "the connection", every=0.002)
        return peer

    def turn(self) -> list[list[bytes]]:
        """Do what an actor does in one turn: read, then look."""
        arrived = list(self.guard.arriving())
        self.guard.look()
        return arrived

    def cut_off(self, peer: RawPeer, data: bytes = PART) -> int:
        """Have `peer` send these bytes again and again until the guard has ended the connection; return how many."""
        sent = [0]

        def go_on() -> None:
            while peer.send(data):
                sent[0] += len(data)

        sender = threading.Thread(target=go_on)
        sender.start()
        until(lambda: self.turn() is not None and not sender.is_alive(), "the connection to be ended", every=0.001)
        return sent[0]


@pytest.fixture
def house(context: Context, endpoint: str) -> Iterator[House]:
    house = House(context, endpoint)
    yield house
    house.guard.close()


def in_the_background(peer: RawPeer, *messages: bytes) -> threading.Thread:
    peer.socket.settimeout(60)

    def say() -> None:
        for message in messages:
            assert peer.send(message)

    sender = threading.Thread(target=say)
    sender.start()
    return sender


# --- who is cut off --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 300, 100_000])
def test_a_message_that_never_ends_ends_its_connection(house: House, size: int) -> None:  # P10, P11
    part = zmtp_frame(bytes(size), more=True)
    with house.peer() as peer, house.peer() as other:
        house.cut_off(peer, part * (100_000 // len(part) + 1))
        assert house.counts["messages_endless"] == 1
        assert "127.0.0.1 port" in house.counts.texts[0]
        until(lambda: house.turn() is not None and house.guard.connections == 1, "the end to be told", every=0.002)
        assert (house.counts["connections_open"], house.counts["connections_ended"]) == (1, 1)
        other.send(zmtp_frame(b"still served"))
        assert until(house.turn, "the other's message", every=0.002)[0][1:] == [b"still served"]


def test_a_message_that_does_not_say_whence_it_came_is_read_while_somebody_is_suspect(house: House) -> None:  # P11
    with house.peer() as suspect, RawPeer(house.number) as old:
        suspect.send(PART * 5)
        until(lambda: house.turn() is not None and house.guard.suspects, "the suspicion", every=0.002)
        old.send(b"\x01\x00" + b"\x06\x00hello")  # ZMTP 1.0: no greeting, an identity that is empty, a message
        assert until(house.turn, "the message", every=0.002)[0][1:] == [b"hello"]
        assert house.guard.suspects == 1


def test_whole_messages_before_an_endless_one_do_not_excuse_it(house: House) -> None:  # P10, P11
    with house.peer() as peer:
        for _ in range(20):
            peer.send(zmtp_frame(bytes(500_000)))
            until(house.turn, "a whole message", every=0.001)
        house.cut_off(peer)
        assert house.counts["messages_endless"] == 1


def test_the_whole_messages_of_others_do_not_excuse_an_endless_one(house: House) -> None:  # P10, P11
    end = threading.Event()
    with house.peer() as peer, house.peer() as busy:

        def work() -> None:
            while not end.is_set() and busy.send(zmtp_frame(b"work")):
                pass

        worker = threading.Thread(target=work)
        worker.start()
        house.cut_off(peer)
        end.set()
        until(lambda: house.turn() is not None and not worker.is_alive(), "the worker to end", every=0.001)
        assert house.counts["messages_endless"] == 1
        busy.send(zmtp_frame(b"last"))
        until(lambda: any(b"last" in frames for frames in house.turn()), "the last word", every=0.001)


def cut_off_although_it_drips(house: House, peer: RawPeer) -> bool:
    """Whether the guard ends a connection of which, at each look, ZeroMQ has taken in all that had come."""
    [number] = house.guard._book

    def taken_in() -> bool:
        try:
            return guard_module._unread(number) == 0
        except OSError:
            return True  # it has ended

    for _ in range(100):
        peer.send(PART)
        until(taken_in, "ZeroMQ to take it in", every=0.001)
        house.turn()
        if house.counts["messages_endless"]:
            return True
    return False


def test_the_kernel_tells_of_what_has_come_and_was_taken_in_since(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10, P11
    monkeypatch.setattr(guard_module, "ROUND_CONNECTIONS", 0)
    with house.peer() as peer:
        assert cut_off_although_it_drips(house, peer)


def test_who_takes_nothing_of_what_it_is_sent_is_looked_at_all_the_same(house: House) -> None:  # P10, P11
    """The kernel tells of a connection what can be done with it, and to this one nothing can be written."""
    with house.peer() as peer:
        peer.send(zmtp_frame(b"ask"))
        [[identity, _]] = until(house.turn, "the question", every=0.002)
        for _ in range(1_000):
            send(house.socket, [identity, bytes(100_000)])
        assert cut_off_although_it_drips(house, peer)


def test_a_reader_of_the_feed_may_send_only_so_much_in_all(context: Context, endpoint: str) -> None:  # P10, P11
    house = House(context, endpoint, feed_bytes=100_000)
    with house.peer(b"SUB") as peer, house.peer(b"SUB") as other:
        other.send(zmtp_frame(b"\x01topic"))
        house.cut_off(peer, b"".join(zmtp_frame(b"\x01%d" % turn + bytes(1_000)) for turn in range(100)))
        assert house.counts["subscriptions_endless"] == 1
        house.socket.send_multipart([b"topic", b"news"])
        news = zmtp_frame(b"topic", more=True) + zmtp_frame(b"news")
        assert other.read(len(news)) == news
    house.guard.close()


def test_a_connection_over_which_only_pulses_come_is_renewed_without_complaint(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNSUSPECTED_BYTES_MAX", 1_000)
    monkeypatch.setattr(limits, "UNFINISHED_BYTES_MAX", 1_000)
    monkeypatch.setattr(limits, "PULSE_BYTES_S", 10**9)
    with house.peer() as peer:
        house.cut_off(peer, b"\x04\x07\x04PING\0\0" * 10)
    assert (house.counts["connections_renewed"], house.counts.texts) == (1, [])


# --- who is not ------------------------------------------------------------------------------------------------------


def test_the_largest_message_that_comes_slowly_is_taken_in(house: House) -> None:
    message = zmtp_frame(bytes(limits.SOCKET_MESSAGE_BYTES_MAX))
    with house.peer() as peer:
        for _ in range(2):
            for place in range(0, len(message), 50_000):
                peer.send(message[place : place + 50_000])
                if place + 50_000 < len(message):
                    assert house.turn() == []
            [[_, body]] = until(house.turn, "the message", every=0.001)
            assert len(body) == limits.SOCKET_MESSAGE_BYTES_MAX
        assert house.counts.texts == []


@pytest.mark.parametrize("size", [100, 100_000, 2_000_000])
def test_whoever_has_very_much_under_way_is_not_cut_off(house: House, size: int) -> None:
    """A look after each single message, so that there is one at every moment that may be wrong."""
    messages = [zmtp_frame(struct.pack(">I", number) + bytes(size)) for number in range(50_000_000 // (size + 4_900))]
    with house.peer() as peer:
        sender = in_the_background(peer, *messages)
        got = 0
        suspected = False
        while got < len(messages):
            assert house.socket.poll(30_000), house.counts.texts
            for frames in itertools.islice(house.guard.arriving(), 1):
                assert struct.unpack(">I", frames[-1][:4]) == (got,), "nothing is lost, and nothing out of order"
                got += 1
            house.guard.look()
            suspected |= bool(house.guard.suspects)
        sender.join()
        assert suspected, "the guard had reason to look closer"
        assert house.counts.texts == []


@pytest.mark.parametrize("size", [1_000, 1_000_000])
def test_whoever_sends_while_the_reader_stands_still_is_not_cut_off(house: House, size: int) -> None:
    """A reader that stands still looks before it reads: what lies in the sockets speaks for those who sent it."""
    messages = [
        zmtp_frame(zlib.crc32(b"%d" % number).to_bytes(4) + bytes(size)) for number in range(50_000_000 // size)
    ]
    with house.peer() as peer:
        sender = in_the_background(peer, *messages)
        received = [0]

        def held_back() -> bool:
            for _ in range(50):
                house.guard.look()
            received.append(sum(each.received for each in house.guard._book.values()))
            return len(received) > 10 and received[-10] == received[-1] > limits.UNSUSPECTED_BYTES_MAX

        until(held_back, "the sender to be held back, or to have said all")
        assert house.guard.suspects == 1
        got = [frames[-1][:4] for frames in house.guard.arriving()]
        while len(got) < len(messages):
            assert house.socket.poll(30_000), house.counts.texts
            got += [frames[-1][:4] for frames in house.guard.arriving()]
            house.guard.look()
        assert got == [zlib.crc32(b"%d" % number).to_bytes(4) for number in range(len(messages))]
        sender.join()
        assert house.counts.texts == []


def test_what_zeromq_has_not_taken_in_yet_is_not_held_against_anybody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stood still finds much in the buffers of the kernel, and its threads do not start all at once."""
    unread = [limits.UNFINISHED_BYTES_MAX * 10]
    monkeypatch.setattr(guard_module, "_unread", lambda _: unread[0])
    with house.peer() as peer:
        for _ in range(100):
            peer.send(PART)
            house.turn()
        until(lambda: house.turn() is not None and house.guard._again, "the suspicion", every=0.002)
        assert house.counts.texts == []
        unread[0] = 0
        until(lambda: house.turn() is not None and house.counts.texts, "the judgement", every=0.002)


# --- the book --------------------------------------------------------------------------------------------------------


def test_a_thousand_connections_that_come_and_go_leave_nothing_in_the_book(house: House) -> None:  # P10
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for turn in range(1_000):
        with RawPeer(house.number) as peer:
            if turn % 2:
                peer.greet(b"DEALER").send(PART * (turn % 7))
        if turn % 50 == 0:
            house.turn()
    until(lambda: house.turn() is not None and house.counts["connections_ended"] == 1_000, "the ends", every=0.002)
    assert (house.guard.connections, house.guard.suspects, house.counts["connections_open"]) == (0, 0, 0)
    house.turn()
    assert house.guard._again == house.guard._round == []
    # one more is for the kernel's list of who has sent something; ZeroMQ tells of an end before it has closed
    until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 1, "the descriptors to be given back")


def test_a_descriptor_that_has_become_another_file_is_struck_off_and_left_alone(house: House) -> None:
    with house.peer():
        read, write = os.pipe()
        mine, other = kernel.socketpair()
        with (
            kernel.create_server(("127.0.0.1", 0)) as server,
            kernel.create_connection(server.getsockname()) as dialled,
        ):
            for number in (read, mine.fileno(), dialled.fileno()):
                house.guard._open(number)
            far, _ = server.accept()
            far.sendall(bytes(300_000))
            far.sendall(bytes(300_000))
            until(lambda: house.guard.look() and house.guard.connections == 2, "the two to be struck off")
            connection = house.guard._book[dialled.fileno()]
            house.guard._end(dialled.fileno(), connection, "messages_endless")
            assert house.guard.connections == 1, "a connection that is not to this port"
            far.sendall(b"still open")
            far.close()
            said = b""
            while piece := dialled.recv(65_536):
                said += piece
            assert said.endswith(b"still open")
        os.write(write, b"x")
        assert os.read(read, 1) == b"x"
        other.send(b"x")
        assert mine.recv(1) == b"x"
        for number in (read, write):
            os.close(number)
        mine.close()
        other.close()
        assert house.counts.texts == []


# --- how often -------------------------------------------------------------------------------------------------------


def test_the_next_look_comes_soon_while_a_suspect_sends_and_at_ease_otherwise(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "thread_time_ns", lambda: 0)
    with house.peer() as peer:
        assert house.guard.look() == LOOK_MS
        peer.send(PART * 4)
        assert until(lambda: house.guard.look() == SOON_MS, "the suspicion", every=0.001)
        until(lambda: house.guard.look() == LOOK_MS, "the suspect to pause", every=0.001)
        assert house.guard.suspects == 1


def test_looks_that_take_long_come_less_often(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**12, 10_000_000))  # each look takes 10 ms
    monkeypatch.setattr(time, "thread_time_ns", lambda: next(clock))
    assert house.guard.look() == 500


def test_a_reader_without_suspects_reads_as_ever(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guard, "_noting", None)
    with house.peer() as peer:
        peer.send(zmtp_frame(b"hello") * 3)
        arrived = 0
        while arrived < 3:
            arrived += len(until(house.turn, "three messages", every=0.002))
