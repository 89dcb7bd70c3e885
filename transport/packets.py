"""Packets: several messages in one frame of CBOR, behind a version, and between nodes behind the sender's identity."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..core import limits
from ..core.encoding import INT_MAX, dumps, from_list, loads, to_list
from ..core.errors import Malformed

VERSION: Final = 1
"""The version of the protocol. A packet of another version is refused whole, never guessed at."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a packet between nodes is from: a node, of which cluster, with which incarnation of its journal."""

    cluster: int
    node: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class BadMessage:
    """A message of a packet that could not be read, as far as it could be; the others of the packet are good."""

    raw: Any
    error: str


def encode_packet(messages: Iterable[Any]) -> bytes:
    """Return the frame of messages between a client and a gateway, or of the feed."""
    return dumps([VERSION, list(map(to_list, messages))])


def decode_packet(frame: bytes) -> list[Any]:
    """Return the messages of a frame, a `BadMessage` in place of each that cannot be read.

    Raises:
        Malformed: the frame as a whole is no packet of this version.
    """
    return list(map(_message, _items(_parts(frame, 2)[1])))


def encode_peer_packet(sender: Sender, messages: Iterable[Any]) -> bytes:
    """Return the frame of messages between nodes."""
    return dumps([VERSION, sender.cluster, sender.node, sender.incarnation, list(map(to_list, messages))])


def decode_peer_packet(frame: bytes) -> tuple[Sender, list[Any]]:
    """Return the sender and the messages of a frame, a `BadMessage` in place of each that cannot be read.

    Raises:
        Malformed: the frame as a whole is no packet of this version.
    """
    _, cluster, node, incarnation, items = _parts(frame, 5)
    for number in (cluster, node, incarnation):
        if type(number) is not int or not 0 <= number <= INT_MAX:
            raise Malformed("a sender is named by three whole numbers")
    return Sender(cluster, node, incarnation), list(map(_message, _items(items)))


def split(messages: Sequence[Any], encode: Callable[[Sequence[Any]], bytes]) -> list[bytes]:
    """Return what `encode` makes of the messages, in as few packets as the limits on a packet allow, in order."""
    if len(messages) <= limits.PACKET_MESSAGES_MAX:
        packet = encode(messages)
        if len(packet) <= limits.PACKET_BYTES_MAX or len(messages) == 1:
            return [packet]
    middle = len(messages) // 2
    return split(messages[:middle], encode) + split(messages[middle:], encode)


def payload(frames: Sequence[bytes]) -> bytes:
    """Return the frame of a multipart message that holds the packet: the last one, behind ZeroMQ's own.

    Raises:
        Malformed: nobody of ours sends so many frames.
    """
    if len(frames) > limits.PACKET_FRAMES_MAX:
        raise Malformed(f"a packet comes in at most {limits.PACKET_FRAMES_MAX} frames")
    return frames[-1]


def _parts(frame: bytes, count: int) -> list[Any]:
    if len(frame) > limits.PACKET_BYTES_MAX:
        raise Malformed(f"a packet has at most {limits.PACKET_BYTES_MAX} bytes, not {len(frame)}")
    parts = loads(frame)
    if type(parts) is not list or not parts:
        raise Malformed("a packet is a list that starts with its version")
    if parts[0] != VERSION or type(parts[0]) is not int:
        raise Malformed(f"this node speaks version {VERSION} of the protocol, the packet another")
    if len(parts) != count:
        raise Malformed(f"a packet has {count} parts, not {len(parts)}")
    return parts


def _items(items: Any) -> list[Any]:
    if type(items) is not list or len(items) > limits.PACKET_MESSAGES_MAX:
        raise Malformed(f"a packet holds a list of at most {limits.PACKET_MESSAGES_MAX} messages")
    return items


def _message(item: Any) -> Any:
    try:
        return from_list(item)
    except Malformed as error:
        return BadMessage(item, str(error))
