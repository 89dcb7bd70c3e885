"""Semaphores that are created, and stay until they are deleted (YDB); all others come and go with their claims."""

from . import limits
from .book import Book, Key, failed
from .claims import Claims
from .commands import CreateSemaphore, DeleteSemaphore, UpdateSemaphore
from .namespaces import Namespaces
from .records import SemaphoreRecord
from .resources import shown
from .results import (
    NO_SUCH_NAMESPACE,
    NO_SUCH_SEMAPHORE,
    SEMAPHORE_EXISTS,
    SEMAPHORE_IN_USE,
    TOO_MANY,
    Done,
    Failed,
    Result,
)
from .shelf import Shelf


class Semaphores:
    """The semaphores that were created."""

    def __init__(self, book: Book, claims: Claims, namespaces: Namespaces) -> None:
        """Start with none."""
        self.shelf: Shelf[SemaphoreRecord] = Shelf(book.room)
        self._book = book
        self._claims = claims
        self._namespaces = namespaces

    def create(self, operation: CreateSemaphore, *, strict: bool) -> Result:
        """Make a semaphore where there is none, and nothing that is claimed as one."""
        namespace, path = operation.namespace, operation.path
        if strict and not self._namespaces.created(namespace):
            return failed(NO_SUCH_NAMESPACE, f"there is no namespace {namespace!r}")
        if self.shelf.of((namespace, path)) is not None:
            return failed(SEMAPHORE_EXISTS, f"the semaphore {shown(path)} exists")
        if len(self.shelf) >= limits.SEMAPHORES_MAX:
            return failed(TOO_MANY, f"there are {limits.SEMAPHORES_MAX} semaphores: no more are allowed")
        queues = self._claims.queues.get(namespace)
        if queues is not None and queues.occupied(path):
            return failed(SEMAPHORE_IN_USE, f"{shown(path)} is claimed without having been created")
        record = SemaphoreRecord(self._book.next_item(), namespace, path, operation.limit, operation.data)
        self.restore(record)
        self._emit("semaphore_created", record)
        return Done(changed=True)

    def restore(self, record: SemaphoreRecord) -> None:
        """Take in a record."""
        self.shelf.put((record.namespace, record.path), record)
        self._claims.queues_of(record.namespace).limits[record.path] = record.limit

    def missing(self, namespace: str, path: tuple[str, ...]) -> Failed | None:
        """Return the failure to name a semaphore that there is not."""
        if self.shelf.of((namespace, path)) is None:
            return failed(NO_SUCH_SEMAPHORE, f"there is no semaphore {shown(path)}")
        return None

    def update(self, operation: UpdateSemaphore) -> Result:
        """Replace the data of a semaphore."""
        key: Key = (operation.namespace, operation.path)
        record = self.shelf.of(key)
        if record is None:
            return failed(NO_SUCH_SEMAPHORE, f"there is no semaphore {shown(operation.path)}")
        if record.data == operation.data:
            return Done(changed=False)
        record.data = operation.data
        self.shelf.put(key, record)
        self._emit("semaphore_updated", record)
        return Done(changed=True)

    def delete(self, operation: DeleteSemaphore) -> Result:
        """Remove a semaphore; with force also whoever holds it or waits for it, and all of them are told."""
        namespace, path = operation.namespace, operation.path
        missing = self.missing(namespace, path)
        if missing is not None:
            return missing
        queues = self._claims.queues_of(namespace)
        if queues.occupied(path):
            if not operation.force:
                return failed(SEMAPHORE_IN_USE, f"the semaphore {shown(path)} is held or waited for")
            # the last first, so that none is granted by the end of another
            for number in reversed(queues.claims_on(path)):
                claim = self._claims.all.get(number)
                if claim is not None:
                    kind = "broken" if claim.token else "cancelled"
                    self._claims.end(claim, kind, notify=True, why="the semaphore was deleted")
        self._emit("semaphore_deleted", self.drop((namespace, path)))
        return Done(changed=True)

    def drop(self, key: Key) -> SemaphoreRecord:
        """Forget a semaphore that nobody has."""
        namespace, path = key
        self._claims.queues_of(namespace).limits.pop(path)
        self._claims.drop_empty(namespace)
        return self.shelf.drop(key)

    def _emit(self, kind: str, record: SemaphoreRecord) -> None:
        self._book.emit(kind, namespace=record.namespace, path=record.path)
