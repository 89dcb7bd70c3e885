"""Packets: what was sent is read again, and any other bytes are one typed error, or one bad message among good ones."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.ballot import Ballot
from lessor.core.encoding import INT_MAX, dumps, to_list
from lessor.core.errors import Malformed
from lessor.core.messages import Accepted, Prepare, Vote
from lessor.core.requests import Busy, Rejected, StatusRequest
from lessor.transport.packets import (
    VERSION,
    BadMessage,
    Sender,
    decode_packet,
    decode_peer_packet,
    encode_packet,
    encode_peer_packet,
    payload,
    split,
)

from ..support.sockets import seeded
from ..support.wire_values import CLASSES, an_instance

SENDER = Sender(cluster=7, node=2, incarnation=INT_MAX)
GOOD = to_list(Busy(5))


def some_values(chance: random.Random, count: int) -> list[Any]:
    return [an_instance(chance, chance.choice(list(CLASSES.values()))) for _ in range(count)]


# --- round trips -----------------------------------------------------------------------------------------------------


def test_every_kind_of_message_comes_out_of_a_packet_as_it_went_in() -> None:
    chance = seeded("every_kind_of_message")
    for cls in CLASSES.values():
        messages = [an_instance(chance, cls) for _ in range(5)]
        assert decode_packet(encode_packet(messages)) == messages
        assert decode_peer_packet(encode_peer_packet(SENDER, messages)) == (SENDER, messages)


def test_messages_keep_their_order_and_may_be_none_at_all() -> None:
    messages = [Busy(number) for number in range(limits.PACKET_MESSAGES_MAX)]
    assert decode_packet(encode_packet(messages)) == messages
    assert decode_packet(encode_packet([])) == []
    assert decode_peer_packet(encode_peer_packet(SENDER, [])) == (SENDER, [])


@pytest.mark.parametrize("sender", [Sender(0, 0, 0), Sender(1, 2, 3), Sender(INT_MAX, INT_MAX, INT_MAX)])
def test_a_sender_is_named_by_any_whole_numbers(sender: Sender) -> None:
    assert decode_peer_packet(encode_peer_packet(sender, [Busy(1)])) == (sender, [Busy(1)])


def test_a_packet_as_large_as_may_be_is_read() -> None:
    around = len(encode_packet([Vote(1, Ballot(1, 1), b"x" * 1_000_000)])) - 1_000_000
    vote = Vote(1, Ballot(1, 1), b"x" * (limits.PACKET_BYTES_MAX - around))
    packet = encode_packet([vote])
    assert len(packet) == limits.PACKET_BYTES_MAX
    assert decode_packet(packet) == [vote]


# --- bad packets -----------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[Any, str]] = {
    "a number": (VERSION, "starts with its version"),
    "a text": ("hello", "starts with its version"),
    "a map": ({"version": VERSION}, "starts with its version"),
    "nothing in it": ([], "starts with its version"),
    "null": (None, "starts with its version"),
    "no version": ([[GOOD]], "another"),
    "an older version": ([VERSION - 1, [GOOD]], f"speaks version {VERSION} of the protocol, the packet another"),
    "a newer version": ([VERSION + 1, [GOOD]], f"speaks version {VERSION} of the protocol, the packet another"),
    "a newer version of another shape": ([VERSION + 1, {"what": "ever"}, 1, 2], "another"),
    "a version that is true": ([True, [GOOD]], "another"),
    "a version that is a float": ([float(VERSION), [GOOD]], "another"),
    "a version that is a text": ([str(VERSION), [GOOD]], "another"),
    "a version that is a list": ([[VERSION], [GOOD]], "another"),
    "a version alone": ([VERSION], "a packet has 2 parts, not 1"),
    "a part too many": ([VERSION, [GOOD], []], "a packet has 2 parts, not 3"),
    "a packet of a node": ([VERSION, 1, 2, 3, [GOOD]], "a packet has 2 parts, not 5"),
    "messages that are a number": ([VERSION, 7], "a list of at most"),
    "messages that are bytes": ([VERSION, b"\x00"], "a list of at most"),
    "messages that are a map": ([VERSION, {}], "a list of at most"),
    "messages that are null": ([VERSION, None], "a list of at most"),
    "a message too many": (
        [VERSION, [GOOD] * (limits.PACKET_MESSAGES_MAX + 1)],
        f"at most {limits.PACKET_MESSAGES_MAX} messages",
    ),
}


@pytest.mark.parametrize(("value", "fault"), BAD.values(), ids=BAD)
def test_what_is_no_packet_of_this_version_is_malformed_and_the_fault_is_named(value: Any, fault: str) -> None:  # P11
    with pytest.raises(Malformed, match=fault):
        decode_packet(dumps(value))


BAD_PEER: dict[str, tuple[Any, str]] = {
    "a packet of a client": ([VERSION, [GOOD]], "a packet has 5 parts, not 2"),
    "another version": ([VERSION + 1, 1, 2, 3, [GOOD]], "another"),
    "a negative cluster": ([VERSION, -1, 2, 3, [GOOD]], "three whole numbers"),
    "a node that is true": ([VERSION, 1, True, 3, [GOOD]], "three whole numbers"),
    "a node that is a float": ([VERSION, 1, 2.0, 3, [GOOD]], "three whole numbers"),
    "a node that is a text": ([VERSION, 1, "2", 3, [GOOD]], "three whole numbers"),
    "a node that is null": ([VERSION, 1, None, 3, [GOOD]], "three whole numbers"),
    "an incarnation beyond all bounds": ([VERSION, 1, 2, INT_MAX + 1, [GOOD]], "three whole numbers"),
    "an incarnation that is a list": ([VERSION, 1, 2, [3], [GOOD]], "three whole numbers"),
    "messages that are none": ([VERSION, 1, 2, 3, 4], "a list of at most"),
    "a message too many": ([VERSION, 1, 2, 3, [GOOD] * (limits.PACKET_MESSAGES_MAX + 1)], "a list of at most"),
}


@pytest.mark.parametrize(("value", "fault"), BAD_PEER.values(), ids=BAD_PEER)
def test_what_is_no_packet_of_a_node_is_malformed_and_the_fault_is_named(value: Any, fault: str) -> None:  # P11
    with pytest.raises(Malformed, match=fault):
        decode_peer_packet(dumps(value))


@pytest.mark.parametrize("decode", [decode_packet, decode_peer_packet])
def test_a_packet_that_is_too_large_is_refused_before_it_is_decoded(
    decode: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr("lessor.transport.packets.loads", None)
    with pytest.raises(Malformed, match=f"at most {limits.PACKET_BYTES_MAX} bytes, not {limits.PACKET_BYTES_MAX + 1}"):
        decode(bytes(limits.PACKET_BYTES_MAX + 1))


@pytest.mark.parametrize("decode", [decode_packet, decode_peer_packet])
def test_a_packet_cut_off_anywhere_is_malformed(decode: Callable[[bytes], Any]) -> None:
    messages = [Prepare(Ballot(3, 1), 4), Vote(1, Ballot(2, 2), b"entry"), Rejected(7, "because")]
    packet = encode_packet(messages) if decode is decode_packet else encode_peer_packet(SENDER, messages)
    for size in range(len(packet)):
        with pytest.raises(Malformed):
            decode(packet[:size])


@pytest.mark.parametrize("decode", [decode_packet, decode_peer_packet])
def test_random_and_damaged_bytes_are_a_packet_or_malformed_and_nothing_else(decode: Callable[[bytes], Any]) -> None:
    chance = seeded("random_and_damaged_bytes")
    for _ in range(1500):
        data = bytearray(encode_peer_packet(SENDER, some_values(chance, chance.randrange(4))))
        if decode is decode_packet or chance.random() < 0.2:
            data = bytearray(encode_packet(some_values(chance, chance.randrange(4))))
        if chance.random() < 0.2:
            data = bytearray(chance.randbytes(chance.randrange(200)))
        for _ in range(chance.randrange(1, 4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            decode(bytes(data))
        except Malformed as error:
            assert str(error)  # noqa: PT017 - that it is raised is allowed, not wanted


# --- bad messages in good packets ------------------------------------------------------------------------------------

BAD_MESSAGES: dict[str, tuple[Any, str]] = {
    "a kind that nobody knows": ([9999, 1], "unknown kind"),
    "a kind that is negative": ([-1], "unknown kind"),
    "a kind that is a text": (["Busy", 1], "unknown kind"),
    "a kind that is true": ([True, 1], "unknown kind"),
    "no kind": ([], "starts with its code"),
    "a number": (5, "starts with its code"),
    "a field too many": ([113, 5, 6], "Busy has 1 fields, not 2"),
    "a field too few": ([113], "Busy has 1 fields, not 0"),
    "a field of another type": ([113, "5"], "Busy: expected a whole number"),
    "a negative number": ([113, -5], "Busy: expected a whole number"),
    "a number beyond all bounds": ([113, INT_MAX + 1], "Busy: expected a whole number"),
    "a message where another belongs": ([110, 1, 2, 3, to_list(Busy(4)), 0], "Request: Busy has no place here"),
}


@pytest.mark.parametrize(("raw", "fault"), BAD_MESSAGES.values(), ids=BAD_MESSAGES)
def test_a_bad_message_stands_in_its_place_among_the_good_ones(raw: Any, fault: str) -> None:  # P11
    packet = dumps([VERSION, [GOOD, raw, to_list(StatusRequest(8))]])
    before, bad, after = decode_packet(packet)
    assert (before, after) == (Busy(5), StatusRequest(8))
    assert isinstance(bad, BadMessage)
    assert bad.raw == raw
    assert fault in bad.error
    sender, messages = decode_peer_packet(dumps([VERSION, 7, 2, INT_MAX, [raw, GOOD]]))
    assert sender == SENDER
    assert messages == [BadMessage(raw, bad.error), Busy(5)]


# --- several packets, several frames ---------------------------------------------------------------------------------


def packets_of(messages: Sequence[Any]) -> list[bytes]:
    return split(messages, lambda part: encode_peer_packet(SENDER, part))


def test_what_fits_into_one_packet_travels_in_one() -> None:
    messages = [Accepted(Ballot(1, 1), 2, slot) for slot in range(limits.PACKET_MESSAGES_MAX)]
    assert packets_of(messages) == [encode_peer_packet(SENDER, messages)]


@pytest.mark.parametrize(
    ("count", "size"), [(limits.PACKET_MESSAGES_MAX * 5 // 2, 1), (9, 500_000), (40, 64 * 1024), (3, 1_999_000)]
)
def test_what_does_not_fit_travels_in_several_packets_in_order(count: int, size: int) -> None:  # P10
    messages = [Vote(slot, Ballot(1, 1), bytes(size)) for slot in range(count)]
    packets = packets_of(messages)
    assert len(packets) > 1
    assert max(map(len, packets)) <= limits.PACKET_BYTES_MAX
    assert [message for packet in packets for message in decode_peer_packet(packet)[1]] == messages


def test_a_message_that_is_too_large_by_itself_does_not_hold_up_the_others() -> None:
    messages = [Busy(1), Vote(1, Ballot(1, 1), bytes(limits.PACKET_BYTES_MAX)), Busy(2)]
    packets = packets_of(messages)
    assert [len(packet) > limits.PACKET_BYTES_MAX for packet in packets] == [False, True, False]


def test_the_packet_is_in_the_last_of_a_few_frames() -> None:
    for count in range(1, limits.PACKET_FRAMES_MAX + 1):
        assert payload([b""] * (count - 1) + [b"packet"]) == b"packet"


def test_a_message_of_too_many_frames_is_malformed() -> None:  # P10
    with pytest.raises(Malformed, match=f"at most {limits.PACKET_FRAMES_MAX} frames"):
        payload([encode_packet([Busy(1)])] * 10_000)
