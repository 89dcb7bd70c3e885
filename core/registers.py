"""Fenced registers: a little state for each path, which only the holder of a grant that covers it can write (P5).

The version of a register is the revision of the event of its last write, as etcd's mod_revision is. So no register of a
name ever has a version again that one had before, though nothing is left behind by one that was erased (P10).
"""

from . import limits
from .book import Book, Key, failed
from .claims import Claims
from .commands import ANY_VERSION, EraseRegister, PutRegister
from .namespaces import Namespaces
from .records import RegisterRecord
from .resources import Mode, shown
from .results import NOT_COVERED, TOO_MANY, Done, NotHeld, Register, Result, VersionDiffers
from .shelf import Shelf


class Registers:
    """What holders keep, for themselves and for those who come after them."""

    def __init__(self, book: Book, claims: Claims, namespaces: Namespaces) -> None:
        """Start with none."""
        self.shelf: Shelf[RegisterRecord] = Shelf(book.room)
        self._book = book
        self._claims = claims
        self._namespaces = namespaces

    def get(self, namespace: str, path: tuple[str, ...]) -> Register:
        """Return what a register holds."""
        record = self.shelf.of((namespace, path))
        return Register(record.version, record.token, record.data) if record is not None else Register(0, 0, b"")

    def version(self, namespace: str, path: tuple[str, ...]) -> int:
        """Return the version of a register, 0 if there is none."""
        record = self.shelf.of((namespace, path))
        return record.version if record is not None else 0

    def refusal(self, operation: PutRegister | EraseRegister, added: int = 0) -> Result | None:
        """Return why this cannot be carried out now, or after so many registers were added."""
        namespace, path = operation.namespace, operation.path
        claim = self._claims.granted(operation.token)
        if claim is None:
            return NotHeld()
        if claim.namespace != namespace or not any(
            resource.mode == Mode.WRITE and path[: len(resource.path)] == resource.path for resource in claim.resources
        ):
            return failed(NOT_COVERED, f"the grant of token {operation.token} does not cover {shown(path)}")
        version = self.version(namespace, path)
        if operation.version not in (ANY_VERSION, version):
            return VersionDiffers(version)
        if not version and isinstance(operation, PutRegister) and len(self.shelf) + added >= limits.REGISTERS_MAX:
            return failed(TOO_MANY, f"there are {limits.REGISTERS_MAX} registers: no more are allowed")
        return None

    def put(self, operation: PutRegister) -> Result:
        """Write a register; its version is larger than any that a register of its path had before."""
        refusal = self.refusal(operation)
        if refusal is not None:
            return refusal
        key: Key = (operation.namespace, operation.path)
        record = self.shelf.of(key)
        if record is None:
            record = RegisterRecord(self._book.next_item(), *key, 0, 0, b"")
        self._emit("written", operation)
        record.version = self._book.header.revision
        record.token, record.data = operation.token, operation.data
        self.shelf.put(key, record)
        return Register(record.version, record.token, b"")

    def erase(self, operation: EraseRegister) -> Result:
        """Remove a register."""
        refusal = self.refusal(operation)
        if refusal is not None:
            return refusal
        key: Key = (operation.namespace, operation.path)
        if self.shelf.of(key) is None:
            return Done(changed=False)
        self.shelf.drop(key)
        self._emit("erased", operation)
        return Done(changed=True)

    def _emit(self, kind: str, operation: PutRegister | EraseRegister) -> None:
        claim = self._claims.granted(operation.token)
        holder = claim.holder if claim is not None else ""
        self._book.emit(kind, namespace=operation.namespace, path=operation.path, token=operation.token, holder=holder)
