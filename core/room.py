"""How many bytes the state takes, told from its records alone: it must never be more than a snapshot can carry (P10).

Each record counts for at least the bytes that stand for it in a snapshot. So the count is the same on every node that
applied the same slots, or was given a snapshot of them (P1), and no snapshot's records take more.
"""

from typing import Any, Final

from . import limits
from .encoding import encode
from .records import (
    ClaimRecord,
    LapsedRecord,
    NamespaceRecord,
    PinRecord,
    RegisterRecord,
    SemaphoreRecord,
    SessionRecord,
)
from .resources import Resource
from .results import ClaimStatus, Denied, Done, Failed, NotHeld, Released, Renewed, Result

ROW_BYTES: Final = 160
"""The numbers of a record, and the frames around its fields: ten numbers of nine bytes and more."""

FRAME_BYTES: Final = 32
"""The numbers of one resource, with its frames, or the frames around a kept answer."""

SEGMENT_BYTES: Final = 3
"""The frame around a name."""

SHORT: Final = {ClaimStatus: 96, Denied: 48, Renewed: 48, Failed: 16, Released: 16, NotHeld: 16, Done: 16}
"""What the numbers of usual answers take; their texts are added. Others are encoded to see."""


class Room:
    """The bytes that the records of a state take."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        """Start with no record."""
        self.taken = 0

    @property
    def full(self) -> bool:
        """Whether nothing may be added but what makes an end, or keeps what is there."""
        return self.taken >= limits.STATE_BYTES_MAX

    def take(self, record: Any) -> None:
        """Count a record that came."""
        self.taken += weight(record)

    def give(self, record: Any) -> None:
        """Count a record that goes, which is as it was when it came."""
        self.taken -= weight(record)

    def take_answer(self, result: Result) -> None:
        """Count an answer that is kept."""
        self.taken += weight_of_answer(result)

    def give_answer(self, result: Result) -> None:
        """Count an answer that is forgotten."""
        self.taken -= weight_of_answer(result)


def weight(record: Any) -> int:
    """Return how many bytes a record takes at most; the answers that a session keeps are weighed apart."""
    match record:
        case ClaimRecord():
            return ROW_BYTES + _all(record.resources) + _text(record.namespace, record.holder) + len(record.data)
        case LapsedRecord():
            return ROW_BYTES + _all(record.resources) + _text(record.namespace, record.holder, record.why)
        case SessionRecord():
            return ROW_BYTES + _text(record.namespace, record.description)
        case SemaphoreRecord() | RegisterRecord():
            return ROW_BYTES + _text(record.namespace, *record.path) + len(record.data)
        case PinRecord():
            return ROW_BYTES + _text(record.namespace, *record.path, *record.entities)
        case NamespaceRecord():
            return ROW_BYTES + _text(record.name)
        case _:
            raise TypeError(f"{type(record).__name__} is no record of the state")


def weight_of_answer(result: Result) -> int:
    """Return how many bytes a kept answer takes at most."""
    short = SHORT.get(type(result))
    if short is None:
        return FRAME_BYTES + len(encode(result))
    match result:
        case ClaimStatus():
            short += _text(result.why)
        case Denied():
            short += _text(result.holder, result.why)
        case Failed():
            short += _text(result.code, result.detail)
    return FRAME_BYTES + short


def _all(resources: tuple[Resource, ...]) -> int:
    return sum(FRAME_BYTES + _text(*resource.path) for resource in resources)


def _text(*names: str) -> int:
    return sum(SEGMENT_BYTES + (len(name) if name.isascii() else len(name.encode())) for name in names)
