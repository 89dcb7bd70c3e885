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


def weight(record: Any) -> int:
    """Return how many bytes a record takes at most; the answers that a session keeps are weighed apart."""
    kind = type(record)
    if kind is ClaimRecord:
        texts = _text(record.namespace) + _text(record.holder)
        return ROW_BYTES + _all(record.resources) + texts + len(record.data)
    if kind is LapsedRecord:
        texts = _text(record.namespace) + _text(record.holder) + _text(record.why)
        return ROW_BYTES + _all(record.resources) + texts
    if kind is SessionRecord:
        return ROW_BYTES + _text(record.namespace) + _text(record.description)
    if kind is SemaphoreRecord or kind is RegisterRecord:
        return ROW_BYTES + _text(record.namespace) + _texts(record.path) + len(record.data)
    if kind is PinRecord:
        return ROW_BYTES + _text(record.namespace) + _texts(record.path) + _texts(record.entities)
    assert kind is NamespaceRecord, f"{kind.__name__} is no record of the state"
    return ROW_BYTES + _text(record.name)


def weight_of_answer(result: Result) -> int:
    """Return how many bytes a kept answer takes at most."""
    short = SHORT.get(type(result))
    if short is None:
        return FRAME_BYTES + len(encode(result))
    if isinstance(result, ClaimStatus):
        return FRAME_BYTES + short + _text(result.why)
    if isinstance(result, Denied):
        return FRAME_BYTES + short + _text(result.holder) + _text(result.why)
    if isinstance(result, Failed):
        return FRAME_BYTES + short + _text(result.code) + _text(result.detail)
    return FRAME_BYTES + short


def _all(resources: tuple[Resource, ...]) -> int:
    total = 0
    for resource in resources:  # no generator: every claim comes by here twice
        total += FRAME_BYTES + _texts(resource.path)
    return total


def _texts(names: tuple[str, ...]) -> int:
    total = 0
    for name in names:
        total += _text(name)
    return total


def _text(name: str) -> int:
    return SEGMENT_BYTES + (len(name) if name.isascii() else len(name.encode()))
