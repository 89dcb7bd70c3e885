"""Random values of every wire class, made from the annotations of its fields, and raw CBOR as no encoder writes it."""

import dataclasses
import importlib
import pkgutil
import types
import typing
from random import Random
from typing import Annotated, Any

import lessor.core
from lessor.core import encoding, limits
from lessor.core.ballot import Ballot
from lessor.core.encoding import INT_MAX, MaxBytes, MaxItems

for module in pkgutil.iter_modules(lessor.core.__path__):
    importlib.import_module(f"lessor.core.{module.name}")

CLASSES: dict[int, type] = {
    code: cls for code, (cls, _) in sorted(encoding._by_code.items()) if cls.__module__.startswith("lessor.core.")
}
"""Every wire class of core by its code."""

EDGES = (0, 1, 2, 23, 24, 255, 256, 65_535, 65_536, 2**31, 2**32 - 1, 2**32, 2**53 + 1, INT_MAX - 1, INT_MAX)
LETTERS = "ab/ é€😀"


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What a field may hold: its kind, what its items are made of, and its bound (bytes or items)."""

    kind: Any  # int, bool, str, bytes, Ballot, tuple, or the classes of which it is one
    bound: int = 0
    item: Any = None


def shape(hint: Any) -> Shape:
    """Read an annotation, without the help of the encoder that is under test."""
    bound = None
    if typing.get_origin(hint) is Annotated:
        hint, marker = typing.get_args(hint)
        assert isinstance(marker, MaxBytes if hint in (str, bytes) else MaxItems)
        bound = marker.count
    if hint in (int, bool, Ballot):
        return Shape(hint)
    if hint is str:
        return Shape(str, limits.NAME_BYTES_MAX if bound is None else bound)
    if hint is bytes:
        return Shape(bytes, limits.PACKET_BYTES_MAX if bound is None else bound)
    if typing.get_origin(hint) is tuple:
        item, rest = typing.get_args(hint)
        assert rest is Ellipsis
        return Shape(tuple, limits.PACKET_MESSAGES_MAX if bound is None else bound, item)
    if isinstance(hint, types.UnionType):
        return Shape(typing.get_args(hint))
    return Shape((hint,))


def shapes(cls: type) -> dict[str, Shape]:
    """The fields of a wire class and what they may hold."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: shape(hints[field.name]) for field in dataclasses.fields(cls)}


def a_value(chance: Random, of: Shape) -> Any:
    """A value that a field may hold, small for the most part."""
    if of.kind is int:
        return chance.choice(EDGES) if chance.random() < 0.5 else chance.getrandbits(chance.randrange(1, 64))
    if of.kind is bool:
        return chance.random() < 0.5
    if of.kind is Ballot:
        return Ballot(a_value(chance, Shape(int)) % (limits.BALLOT_COUNTER_MAX + 1), a_value(chance, Shape(int)))
    if of.kind is str:
        text = "".join(chance.choice(LETTERS) for _ in range(chance.choice((0, 1, 5, 23, 24, 300))))
        return text.encode()[: of.bound].decode(errors="ignore")
    if of.kind is bytes:
        return chance.randbytes(min(chance.choice((0, 1, 23, 24, 255, 256, 3000)), of.bound))
    if of.kind is tuple:
        inner = shape(of.item)
        return tuple(a_value(chance, inner) for _ in range(min(chance.choice((0, 0, 1, 2, 5)), of.bound)))
    return an_instance(chance, chance.choice(of.kind))


def an_instance(chance: Random, cls: type) -> Any:
    """A value of a wire class."""
    return cls(**{name: a_value(chance, of) for name, of in shapes(cls).items()})


def at_its_bound(of: Shape) -> Any:
    """The largest value that a field may hold (of what is bounded by a size), as it travels."""
    if of.kind is str:
        return "x" * of.bound
    if of.kind is bytes:
        return b"x" * of.bound
    assert of.kind is tuple
    inner = shape(of.item)
    item = a_value(Random(0), inner)
    travels = list(item) if isinstance(inner.kind, type) and inner.kind is tuple else item
    return [encoding.to_list(travels) if dataclasses.is_dataclass(travels) else travels] * of.bound


def fits(value: Any, of: Shape) -> bool:
    """Whether a field may hold a value as it travels, judged by the annotation and not by the decoder."""
    if of.kind is int:
        return type(value) is int and 0 <= value <= INT_MAX
    if of.kind is bool:
        return type(value) is bool
    if of.kind is str:
        return type(value) is str and len(value.encode()) <= of.bound
    if of.kind is bytes:
        return type(value) is bytes and len(value) <= of.bound
    if type(value) is not list:
        return False
    if of.kind is Ballot:
        numbers = len(value) == 2 and all(fits(item, Shape(int)) for item in value)
        return numbers and value[0] <= limits.BALLOT_COUNTER_MAX
    if of.kind is tuple:
        return len(value) <= of.bound and all(fits(item, shape(of.item)) for item in value)
    cls = CLASSES.get(value[0]) if value and type(value[0]) is int else None
    if cls is None or cls not in of.kind or len(value) != len(shapes(cls)) + 1:
        return False
    return all(fits(item, inner) for item, inner in zip(value[1:], shapes(cls).values(), strict=True))


# --- raw CBOR --------------------------------------------------------------------------------------------------------


def head(major: int, argument: int) -> bytes:
    """The beginning of an item: its major type and its argument (a number, a length or a tag)."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for extra, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | extra]) + argument.to_bytes(size, "big")
    raise ValueError(argument)


def number(value: int) -> bytes:
    return head(0, value)


def octets(data: bytes) -> bytes:
    return head(2, len(data)) + data


def text(words: str) -> bytes:
    return head(3, len(words.encode())) + words.encode()


def array(*items: bytes) -> bytes:
    return head(4, len(items)) + b"".join(items)


def mapping(*items: bytes) -> bytes:
    return head(5, len(items) // 2) + b"".join(items)


def tag(of: int, item: bytes) -> bytes:
    return head(6, of) + item


def bignum(value: int) -> bytes:
    return tag(2, octets(value.to_bytes((value.bit_length() + 7) // 8, "big")))


FALSE, TRUE, NULL, UNDEFINED = b"\xf4", b"\xf5", b"\xf6", b"\xf7"
NAN, INFINITY, ONE_FLOAT = b"\xf9\x7e\x00", b"\xf9\x7c\x00", b"\xf9\x3c\x00"
"""Simple values and half-precision floats."""
