"""Values of the core as CBOR and back: deterministic one way, total the other (any bytes give a value or `Malformed`).

A dataclass decorated with `@wire(code)` travels as a CBOR array of its code and its fields in order: positions are half
the cost of named keys. Fields are checked against their annotations while decoding, so that no handler ever meets a
value of a wrong type, sign or size (P11).
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Final, TypeVar

import cbor2

from . import limits
from .ballot import Ballot
from .errors import Malformed

T = TypeVar("T")
Packer = Callable[[Any], Any]
Unpacker = Callable[[Any], Any]

_by_code: dict[int, tuple[type, Unpacker]] = {}
_by_type: dict[type, Packer] = {}

INT_MAX: Final = 2**63 - 1  # what an SQLite column holds; every number of ours is a count, an id or milliseconds


# We send no tags, and some would let a small packet unfold into a huge value (shared references, big numbers).
_TAGS: Final = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)


def _refuse_tag(*_: Any) -> Any:
    raise Malformed("a tag")


_REFUSE_TAGS: Final = dict.fromkeys(_TAGS, _refuse_tag)


@dataclasses.dataclass(frozen=True, slots=True)
class MaxBytes:
    """The largest size of a `str` (in UTF-8) or `bytes` field: `Annotated[str, MaxBytes(255)]`."""

    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class MaxItems:
    """The largest number of items of a tuple field: `Annotated[tuple[int, ...], MaxItems(10)]`."""

    count: int


def wire(code: int) -> Callable[[type[T]], type[T]]:
    """Register a dataclass under its code on the wire. A code, once released, is never given to another meaning."""

    def register(cls: type[T]) -> type[T]:
        if code in _by_code:
            raise TypeError(f"code {code} is taken by {_by_code[code][0].__name__}")

        hints = typing.get_type_hints(cls, include_extras=True)
        fields = {field.name: _field(hints[field.name]) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]

        # compiled when they are first needed: a command-line tool needs few of them, and starts sooner
        def pack(value: Any) -> Any:
            _by_type[cls] = compiled = _compile_pack(code, fields)
            return compiled(value)

        def unpack(items: Any) -> Any:
            compiled = _compile_unpack(cls, fields)
            _by_code[code] = (cls, compiled)
            return compiled(items)

        _by_type[cls] = pack
        _by_code[code] = (cls, unpack)
        return cls

    return register


# Every message passes here several times on every node. A function written out for its class, as `dataclass` and
# `namedtuple` themselves do it, takes a third of the time of a loop over its fields.


def _compile_pack(code: int, fields: dict[str, "_Form"]) -> Packer:
    names: dict[str, Any] = {}
    items = [str(code)]
    for name, (pack, _, _) in fields.items():
        names[f"_pack_{name}"] = pack
        items.append(f"_value.{name}" if pack is None else f"_pack_{name}(_value.{name})")
    return _compile("pack", [f"def pack(_value): return [{', '.join(items)}]"], names)


def _compile_unpack(cls: type, fields: dict[str, "_Form"]) -> Unpacker:
    """Return what checks a list's fields in place and makes the value; a field that fails goes to its own unpacker."""
    names: dict[str, Any] = {"_new": object.__new__, "_cls": cls, "Malformed": Malformed, "INT_MAX": INT_MAX}
    count = len(fields)
    wrong = f"raise Malformed('{cls.__name__} has {count} fields, not %d' % (len(_items) - 1))"
    lines = ["def unpack(_items):", f"    if len(_items) != {count + 1}: {wrong}"]
    if fields:
        lines += [f"    _, {', '.join(fields)}{',' if count == 1 else ''} = _items"]
    for name, (_, unpack, passes) in fields.items():
        names[f"_unpack_{name}"] = unpack
        check = passes.format(name)
        lines += [
            f"    if not ({check}): {name} = _unpack_{name}({name})"
            if check
            else f"    {name} = _unpack_{name}({name})"
        ]
    lines += ["    _value = _new(_cls)"]
    for name in fields:
        names[f"_set_{name}"] = getattr(cls, name).__set__
        lines += [f"    _set_{name}(_value, {name})"]
    return _compile("unpack", [*lines, "    return _value"], names)


def _compile(name: str, lines: list[str], names: dict[str, Any]) -> Callable[[Any], Any]:
    exec("\n".join(lines), names)  # noqa: S102 - the text is made of the names of our own classes and fields
    compiled: Callable[[Any], Any] = names[name]
    return compiled


def to_list(value: Any) -> list[Any]:
    """Return the CBOR-ready list of a wire value."""
    items: list[Any] = _by_type[type(value)](value)
    return items


def from_list(items: Any) -> Any:
    """Return the wire value of a decoded list.

    Raises:
        Malformed: the list is not one of our messages, or a field is of a wrong type or size.
    """
    if type(items) is not list or not items:
        raise Malformed("a message is a list that starts with its code")
    code = items[0]
    known = _by_code.get(code) if type(code) is int else None
    if known is None:
        raise Malformed("unknown kind of message")
    cls, unpack = known
    try:
        return unpack(items)
    except Malformed as error:
        raise Malformed(f"{cls.__name__}: {error}") from None


def dumps(value: Any) -> bytes:
    """Return plain lists, numbers, strings and bytes as CBOR. The same value gives the same bytes on every node."""
    return cbor2.dumps(value)


def loads(data: bytes) -> Any:
    """Return the plain value of CBOR bytes.

    Raises:
        Malformed: the bytes do not begin with a CBOR value within our bounds.
    """
    try:
        return cbor2.loads(
            data,
            max_depth=limits.CBOR_DEPTH_MAX,
            allow_indefinite=False,
            strict_hashable_types=True,  # the hashes of lists as keys of a map could be forged to collide
            tag_hook=_refuse_tag,
            semantic_decoders=_REFUSE_TAGS,
        )
    except Exception as error:  # noqa: BLE001 - whatever hostile bytes provoke in the decoder is one thing to us (P11)
        raise Malformed(f"not CBOR: {type(error).__name__}: {str(error)[:80]}") from None


def encode(value: Any) -> bytes:
    """Return the bytes of one wire value."""
    return dumps(to_list(value))


def decode(data: bytes) -> Any:
    """Return the wire value of bytes.

    Raises:
        Malformed: the bytes are not one of our messages.
    """
    return from_list(loads(data))


_Form = tuple[Packer | None, Unpacker, str]
"""How a field is packed (None: as it is), how it is unpacked, and a quick test that lets most values pass unchanged."""


def _field(hint: Any) -> _Form:
    limit: MaxBytes | MaxItems | None = None
    if typing.get_origin(hint) is typing.Annotated:
        hint, limit = typing.get_args(hint)[:2]
    if hint is int:
        return None, _unpack_int, "type({0}) is int and 0 <= {0} <= INT_MAX"
    if hint is bool:
        return None, _unpack_bool, "type({0}) is bool"
    if hint is str:
        count = limit.count if isinstance(limit, MaxBytes) else limits.NAME_BYTES_MAX
        return None, _unpack_str(count), f"type({{0}}) is str and len({{0}}) <= {count} and {{0}}.isascii()"
    if hint is bytes:
        count = limit.count if isinstance(limit, MaxBytes) else limits.PACKET_BYTES_MAX
        return None, _unpack_bytes(count), f"type({{0}}) is bytes and len({{0}}) <= {count}"
    if hint is Ballot:
        return list, _unpack_ballot, ""
    if typing.get_origin(hint) is tuple:
        pack, unpack, _ = _field(typing.get_args(hint)[0])
        count = limit.count if isinstance(limit, MaxItems) else limits.PACKET_MESSAGES_MAX
        return _pack_items(pack), _unpack_items(unpack, count), ""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return to_list, _unpack_one_of(typing.get_args(hint)), ""
    if dataclasses.is_dataclass(hint):
        return to_list, _unpack_one_of((hint,)), ""
    raise TypeError(f"no wire form for {hint}")


def _unpack_int(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= INT_MAX:
        raise Malformed(f"expected a whole number from 0 to {INT_MAX}")
    return value


def _unpack_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed("expected true or false")
    return value


def _unpack_str(count: int) -> Unpacker:
    def unpack(value: Any) -> str:
        if type(value) is not str:
            raise Malformed("expected text")
        if len(value) > count or (not value.isascii() and len(value.encode("utf-8", "surrogatepass")) > count):
            raise Malformed(f"text of more than {count} bytes")
        return value

    return unpack


def _unpack_bytes(count: int) -> Unpacker:
    def unpack(value: Any) -> bytes:
        if type(value) is not bytes:
            raise Malformed("expected bytes")
        if len(value) > count:
            raise Malformed(f"more than {count} bytes")
        return value

    return unpack


def _unpack_ballot(value: Any) -> Ballot:
    if type(value) is not list or len(value) != 2:
        raise Malformed("expected a ballot")
    if _unpack_int(value[0]) > limits.BALLOT_COUNTER_MAX:
        raise Malformed("a ballot higher than any election could have brought")
    return Ballot(value[0], _unpack_int(value[1]))


def _pack_items(pack: Packer | None) -> Packer:
    return list if pack is None else lambda items: list(map(pack, items))


def _unpack_items(unpack: Unpacker, count: int) -> Unpacker:
    def unpack_all(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise Malformed("expected a list")
        if len(value) > count:
            raise Malformed(f"more than {count} items")
        return tuple(map(unpack, value))

    return unpack_all


def _unpack_one_of(classes: tuple[Any, ...]) -> Unpacker:
    def unpack(value: Any) -> Any:
        message = from_list(value)
        if type(message) not in classes:
            raise Malformed(f"{type(message).__name__} has no place here")
        return message

    return unpack
