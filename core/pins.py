"""Pins: paths whose leases do not expire while anybody pins them, whoever holds them, now or later (Juju)."""

from . import limits
from .book import Book, Key, failed
from .commands import Pin, Unpin
from .records import ClaimRecord, PinRecord
from .results import TOO_MANY, Done, Result
from .shelf import Shelf


class Pins:
    """What is pinned, and by whom."""

    def __init__(self, book: Book) -> None:
        """Start with nothing pinned."""
        self.shelf: Shelf[PinRecord] = Shelf(book.room)
        self._book = book

    def pinned(self, claim: ClaimRecord) -> bool:
        """Return whether any of a claim's paths is pinned."""
        return len(self.shelf) > 0 and any(
            self.shelf.of((claim.namespace, resource.path)) is not None for resource in claim.resources
        )

    def of(self, namespace: str, path: tuple[str, ...]) -> tuple[str, ...]:
        """Return who pins a path."""
        record = self.shelf.of((namespace, path))
        return record.entities if record is not None else ()

    def refusal(self, operation: Pin, added_here: int = 0, added: int = 0) -> Result | None:
        """Return why a path cannot be pinned once more, or after so many pins were added, there and in all."""
        entities = self.of(operation.namespace, operation.path)
        if operation.entity in entities:
            return None
        if len(entities) + added_here >= limits.PINS_PER_NAME_MAX:
            return failed(TOO_MANY, f"{limits.PINS_PER_NAME_MAX} entities pin this: no more are allowed")
        if not entities and len(self.shelf) + added >= limits.PINS_MAX:
            return failed(TOO_MANY, f"{limits.PINS_MAX} names are pinned: no more are allowed")
        return None

    def pin(self, operation: Pin) -> Result:
        """Pin a path for an entity, if it does not already."""
        refusal = self.refusal(operation)
        if refusal is not None:
            return refusal
        key: Key = (operation.namespace, operation.path)
        record = self.shelf.of(key)
        if record is None:
            record = PinRecord(self._book.next_item(), operation.namespace, operation.path, ())
        if operation.entity in record.entities:
            return Done(changed=False)
        record.entities = (*record.entities, operation.entity)
        self.shelf.put(key, record)
        self._book.emit("pinned", namespace=operation.namespace, path=operation.path, holder=operation.entity[:60])
        return Done(changed=True)

    def unpin(self, operation: Unpin) -> Done:
        """Take an entity's own pin away."""
        key: Key = (operation.namespace, operation.path)
        record = self.shelf.of(key)
        if record is None or operation.entity not in record.entities:
            return Done(changed=False)
        record.entities = tuple([entity for entity in record.entities if entity != operation.entity])
        if record.entities:
            self.shelf.put(key, record)
        else:
            self.shelf.drop(key)
        self._book.emit("unpinned", namespace=operation.namespace, path=operation.path, holder=operation.entity[:60])
        return Done(changed=True)
