"""P11: whatever anybody sends to any port of a node, it goes on serving, and its state and its memory are its own."""

import random
import struct
from contextlib import ExitStack
from typing import Any

from lessor.core import limits
from lessor.core.ballot import Ballot
from lessor.core.commands import Claim, Ping
from lessor.core.effects import Role
from lessor.core.encoding import INT_MAX, dumps, encode, to_list
from lessor.core.events import Event
from lessor.core.messages import (
    Accept,
    Accepted,
    Fetch,
    Fetched,
    FetchSnapshot,
    Heartbeat,
    Prepare,
    Promise,
    Refuse,
    SnapshotChunk,
    Stranger,
)
from lessor.core.requests import Request, StatusRequest
from lessor.core.resources import Resource
from lessor.transport.packets import VERSION, Sender, encode_packet, encode_peer_packet

from ..support.sockets import (
    GREETING,
    RawPeer,
    zmtp_command,
    zmtp_frame,
    zmtp_ready,
)
from ..support.target import (
    BAD,
    CLUSTER,
    ENDED,
    FOREIGN,
    HANDSHAKE,
    MALFORMED,
    PORTS,
    ROUTERS,
    Target,
    attack,
)
from ..support.wire_values import CLASSES, an_instance, array, bignum, head, number, octets, tag, text

# --- bytes that are no ZeroMQ ----------------------------------------------------------------------------------------


def garbage(chance: random.Random) -> bytes:
    return chance.choice(
        (
            chance.randbytes(chance.choice((1, 10, 100, 1000, 10_000))),
            b"\xff" + chance.randbytes(300),
            bytes(chance.choice((1, 64, 1000))),
            b"\xff" * 1000,
            b"GET / HTTP/1.1\r\nHost: lessor\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(200),
            GREETING[: chance.randrange(len(GREETING))],
            GREETING.replace(b"NULL\0", b"PLAIN"),
            GREETING + chance.randbytes(300),
            GREETING + zmtp_command(b"READY", chance.randbytes(50)),
            GREETING + zmtp_command(b"ERROR", b"\x05hello"),
            GREETING + zmtp_ready(b"NOTHING"),
            GREETING + zmtp_ready(b"PUB"),
        )
    )


def test_raw_garbage_on_every_port_is_counted_and_harms_nobody(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        for _ in range(30):
            for role in PORTS:
                with target.raw(role) as peer:
                    peer.send(garbage(chance))

    attack(target, "raw_garbage", carry_out, HANDSHAKE)


def test_hundreds_of_half_open_connections_keep_nobody_out(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> ExitStack:
        held = ExitStack()
        for turn in range(300):
            peer = held.enter_context(target.raw(chance.choice(PORTS)))
            peer.send(GREETING[: chance.randrange(len(GREETING))] if turn % 2 else b"")
        return held

    attack(target, "half_open", carry_out, HANDSHAKE)


def test_connections_that_come_and_go_keep_nobody_out(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        for turn in range(300):
            role = chance.choice(PORTS)
            (target.peer if turn % 3 else target.raw)(role).close()

    attack(target, "come_and_go", carry_out)


def test_a_connection_that_breaks_the_rules_after_its_handshake_is_ended(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        for role in PORTS:
            for broken in (
                b"\xff" * 100,
                b"\x02" + b"\xff" * 8,  # a frame of 2^64 - 1 bytes is announced
                b"\x02" + struct.pack(">Q", INT_MAX),
                b"\x02" + struct.pack(">Q", limits.SOCKET_MESSAGE_BYTES_MAX + 1),
            ):
                with target.peer(role) as peer:
                    peer.send(broken)
                    assert peer.is_closed(), f"{broken[:9]!r} at the port of the {role.name}"

    attack(target, "breaks_the_rules", carry_out)


# --- messages that are no packets ------------------------------------------------------------------------------------


def test_random_bytes_in_good_frames_are_counted_and_dropped(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        for role in PORTS:
            sizes = [chance.choice((0, 1, 5, 100, 1000)) for _ in range(300)]
            target.say(role, *[chance.randbytes(size) for size in sizes])
            with target.peer(role) as peer:
                for word in (b"PING", b"PONG", b"SUBSCRIBE", b"CANCEL", b"ERROR", b"READY", b"WHAT"):
                    peer.send(zmtp_command(word, chance.randbytes(20)))
        target.say(Role.GATEWAY, chance.randbytes(100))

    attack(target, "random_bytes", carry_out, MALFORMED)


def some_request(chance: random.Random) -> Request:
    claim = Claim("default", (Resource(("stolen",)),), "thief", chance.randbytes(50), 60_000, 0, detached=True)
    return Request(chance.randrange(1, 5), chance.randrange(1, 100), 1, claim)


def test_packets_cut_off_anywhere_are_counted_and_dropped(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        packets = [
            encode_packet([some_request(chance), StatusRequest(1)]),
            encode_peer_packet(Sender(CLUSTER, 2, 3), [Accept(Ballot(9, 2), 1, b"entry", 0)]),
        ]
        for role in ROUTERS:
            target.say(role, *[packet[:size] for packet in packets for size in range(len(packet))])

    attack(target, "cut_off", carry_out, MALFORMED)


def test_packets_of_other_versions_are_counted_and_dropped(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        request = to_list(some_request(chance))
        others: list[Any] = [0, VERSION + 1, -1, True, 1.0, "1", b"1", None, INT_MAX, [VERSION]]
        target.say(Role.GATEWAY, *[dumps([version, [request]]) for version in others])
        for role in ROUTERS[1:]:
            target.say(role, *[dumps([version, CLUSTER, 1, 1, [request]]) for version in others])

    attack(target, "other_versions", carry_out, MALFORMED)


def test_messages_of_unknown_kinds_and_wrong_fields_are_counted_and_dropped(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        good = to_list(some_request(chance))
        bad: list[Any] = [[9999], [0, 1], [], 5, "x", None, [-1], [True], [110], [110, 1, 2, 3], [*good, 1]]
        wrong: list[Any] = [-1, INT_MAX + 1, 1.5, None, True, "x", b"x", [], [[]], [44, 1], {"a": 1}]
        places = range(1, len(good))
        bad += [[*good[:place], each, *good[place + 1 :]] for place in places for each in wrong]
        target.say(Role.GATEWAY, *[dumps([VERSION, [each]]) for each in bad], dumps([VERSION, bad]))

    attack(target, "unknown_kinds", carry_out, BAD)


def test_cbor_that_would_unfold_into_much_more_is_refused(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        size = limits.PACKET_BYTES_MAX - 100
        for role in ROUTERS:
            target.say(
                role,
                b"\x81" * size,
                head(4, 2**62),
                array(number(VERSION), head(4, 2**62)),
                array(number(VERSION), head(2, 2**62)),
                array(number(VERSION), b"\x9f" + b"\x00" * 1000),
                array(number(VERSION), tag(28, array(tag(29, number(0))))),
                array(number(VERSION), array(tag(35, text("(a+)+" * 1000)))),
                array(number(VERSION), array(array(number(113), bignum(1 << 800_000)))),
                array(number(VERSION), array(octets(bytes(size // 2)))),
            )
        # two million empty lists, maps, and numbers
        for role, item in ((Role.GATEWAY, b"\x80"), (Role.ACCEPTOR, b"\xa0"), (Role.LEARNER, b"\x00")):
            target.say(role, array(number(VERSION), head(4, size) + item * size))  # two million values

    attack(target, "cbor_bombs", carry_out, MALFORMED)


# --- sizes -----------------------------------------------------------------------------------------------------------


def test_messages_without_content_are_counted_and_dropped(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        for role in PORTS:
            with target.peer(role) as peer:
                for count in (1, 2, 3, 100):
                    peer.send((zmtp_frame(b"", more=True) * (count - 1) + zmtp_frame(b"")) * 20)
                target.read_all(peer, role)

    attack(target, "empty", carry_out, MALFORMED)


def test_messages_of_ten_thousand_parts_are_counted_and_dropped_even_if_the_last_one_is_good(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        last = encode_packet([some_request(chance)])
        for role in PORTS:
            with target.peer(role) as peer:
                for part in (b"", b"x", chance.randbytes(300)):
                    peer.send(zmtp_frame(part, more=True) * 9_999 + zmtp_frame(last))
                target.read_all(peer, role)
                peer.send(zmtp_frame(b"unfinished", more=True) * 10_000)

    attack(target, "ten_thousand_parts", carry_out, MALFORMED)


def test_packets_just_too_large_are_counted_and_dropped(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        packet = array(number(VERSION), head(2, limits.PACKET_BYTES_MAX) + bytes(limits.PACKET_BYTES_MAX))
        for role in ROUTERS:
            target.say(role, *[packet[: limits.PACKET_BYTES_MAX + 1]] * 5)
            target.say(role, packet + bytes(limits.SOCKET_MESSAGE_BYTES_MAX - len(packet)))

    attack(target, "packet_too_large", carry_out, MALFORMED)


def test_frames_just_too_large_end_their_connection_unread(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        frame = zmtp_frame(bytes(limits.SOCKET_MESSAGE_BYTES_MAX + 1))
        for role in PORTS:
            for _ in range(3):
                with target.peer(role) as peer:
                    peer.send(frame)
                    assert peer.is_closed()

    attack(target, "frame_too_large", carry_out, ENDED)


def test_a_client_that_asks_and_asks_and_never_listens_is_not_waited_for(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> RawPeer:
        peer = target.peer(Role.GATEWAY)
        questions = zmtp_frame(encode_packet([StatusRequest(turn) for turn in range(100)]))
        nonsense = zmtp_frame(b"\xff" * 20)
        for _ in range(30):
            peer.send(questions + nonsense * 50)
        target.read_all(peer, Role.GATEWAY)
        return peer

    attack(target, "never_listens", carry_out, MALFORMED)


def test_a_reader_of_the_feed_that_joins_and_leaves_thousands_of_topics_silences_nobody(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> RawPeer:
        peer = target.peer(Role.FEED)
        topics = [b"topic %d" % turn for turn in range(3_000)]
        peer.send(b"".join(zmtp_frame(b"\x01" + topic) for topic in topics))
        peer.send(b"".join(zmtp_frame(b"\x00" + topic) for topic in (*topics, b"")))
        return peer

    attack(target, "topics", carry_out)


# --- good packets in the wrong place ---------------------------------------------------------------------------------


def test_every_kind_on_every_port_but_its_own_is_counted_and_dropped(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        # a request would be served, and a question about the status answered
        strange = [cls for cls in CLASSES.values() if cls not in (Request, StatusRequest)]
        messages = [an_instance(chance, cls) for cls in strange for _ in range(3)]
        target.say(Role.GATEWAY, encode_packet(messages))
        everything = [*messages, some_request(chance), StatusRequest(1)]
        for role in ROUTERS:
            target.say(role, *[encode_peer_packet(Sender(CLUSTER, node, 5), everything) for node in (1, 2)])
        for role in ROUTERS[1:]:
            target.say(role, encode_packet([some_request(chance)]))
        for role in PORTS:
            target.say(role, encode(some_request(chance)), encode_packet([an_instance(chance, Event)]))

    attack(target, "wrong_port", carry_out, BAD, MALFORMED, FOREIGN)


def forged(node: int) -> dict[Role, list[Any]]:
    """What would do harm if it were believed."""
    high = Ballot(1_000_000, node)
    strangers = [Stranger(1, 1), Stranger(1, INT_MAX)]
    return {
        Role.PROPOSER: [
            Heartbeat(high, INT_MAX),
            Refuse(Ballot(1, 1), node, high),
            Promise(Ballot(1, 1), node, 1, (), 0, INT_MAX),
            *strangers,
        ],
        Role.ACCEPTOR: [
            Prepare(high, 1),
            Accept(high, 1, b"forged", INT_MAX),
            Fetch(node, 1),
            Fetched(node, (), INT_MAX),
            *strangers,
        ],
        Role.LEARNER: [
            Accepted(high, node, 1),
            FetchSnapshot(node, 0, 0),
            SnapshotChunk(node, INT_MAX, 0, 1, b"x"),
            *strangers,
        ],
    }


def test_a_forged_sender_is_counted_and_not_listened_to(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        senders = [
            Sender(CLUSTER, 1, 1),
            Sender(CLUSTER, 1, INT_MAX),
            Sender(CLUSTER, 2, 1),
            Sender(CLUSTER, 0, 0),
            Sender(CLUSTER + 1, 2, 1),
            Sender(0, 1, 1),
        ]
        for role in ROUTERS[1:]:
            target.say(role, *[encode_peer_packet(sender, forged(sender.node)[role]) for sender in senders])

    attack(target, "forged_sender", carry_out, FOREIGN)


def test_requests_for_sessions_that_never_were_change_nothing(target: Target) -> None:
    def carry_out(target: Target, chance: random.Random) -> None:
        requests = [
            Request(session, number, acked_below, Ping((1, 2, INT_MAX)))
            for session in (1_000, INT_MAX)
            for number in (0, 1, INT_MAX)
            for acked_below in (0, 1, INT_MAX)
        ]
        target.say(Role.GATEWAY, encode_packet(requests))

    attack(target, "no_session", carry_out)
