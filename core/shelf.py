"""A shelf of records of one kind, by key, which knows what has changed since it was last saved."""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from .listing import numbers_after
from .room import Room, weight


class Numbered(Protocol):
    """A record that has a number; the order of the numbers is the order in which the records came."""

    number: int


R = TypeVar("R", bound=Numbered)


class Shelf(Generic[R]):
    """Records by number, and by the thing that they are about."""

    def __init__(self, room: Room) -> None:
        """Start empty; what comes is counted in this room."""
        self._room = room
        self._weights: dict[int, int] = {}
        self.changed: dict[int, None] = {}
        """The numbers of what was put, altered or dropped since the last save."""
        self._records: dict[int, R] = {}
        self._number_of: dict[object, int] = {}
        self._numbers: list[int] = []  # in their order; some may be gone

    def __len__(self) -> int:
        """Return how many records there are."""
        return len(self._records)

    def put(self, thing: object, record: R) -> None:
        """Add the record of a thing that has none yet, the last in order, or say that the record of one has changed."""
        if record.number not in self._records:
            self._numbers.append(record.number)
        self._records[record.number] = record
        self._weigh(record.number, weight(record))
        self._number_of[thing] = record.number
        self.changed[record.number] = None

    def of(self, thing: object) -> R | None:
        """Return the record of a thing, None if there is none."""
        number = self._number_of.get(thing)
        return None if number is None else self._records[number]

    def drop(self, thing: object) -> R:
        """Remove the record of a thing, and return it."""
        number = self._number_of.pop(thing)
        self.changed[number] = None
        self._weigh(number, 0)
        record = self._records.pop(number)
        if len(self._numbers) > 2 * len(self._records) + 1000:
            self._numbers = sorted(self._records)
        return record

    def record(self, number: int) -> R | None:
        """Return the record of this number, None if it is no more."""
        return self._records.get(number)

    def records(self) -> list[R]:
        """Return every record in the order of their numbers."""
        return [self._records[number] for number in sorted(self._records)]

    def numbers_after(self, number: int) -> Iterator[int]:
        """Yield the numbers above this one, in order; some may be of records that are no more."""
        return numbers_after(self._numbers, number)

    def _weigh(self, number: int, new: int) -> None:
        """Count what a record takes now: it may have changed since it was last put."""
        self._room.taken += new - self._weights.pop(number, 0)
        if new:
            self._weights[number] = new
