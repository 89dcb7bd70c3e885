"""Namespaces: those that were created have a config of their own; any other is there while it is used (YDB's nodes)."""

from . import limits
from .book import Book, failed
from .commands import KEEP, AlterNamespace, CreateNamespace, NamespaceConfig
from .records import NamespaceRecord
from .results import BAD_CONFIG, NAMESPACE_EXISTS, NO_SUCH_NAMESPACE, TOO_MANY, Done, Result
from .shelf import Shelf

_PLAIN = NamespaceConfig()


class Namespaces:
    """The namespaces that were created, and how many claims there are in each."""

    def __init__(self, book: Book) -> None:
        """Start with none."""
        self.shelf: Shelf[NamespaceRecord] = Shelf(book.room)
        self.claims: dict[str, int] = {}
        self._book = book

    def created(self, name: str) -> bool:
        """Return whether a namespace was created, rather than merely used."""
        return self.shelf.of(name) is not None

    def config(self, name: str) -> NamespaceConfig:
        """Return the config of a namespace."""
        record = self.shelf.of(name)
        return record.config if record is not None else _PLAIN

    def count_claim(self, name: str, change: int) -> None:
        """Count a claim that came or went."""
        left = self.claims.get(name, 0) + change
        if left:
            self.claims[name] = left
        else:
            self.claims.pop(name, None)

    def create(self, operation: CreateNamespace) -> Result:
        """Make a namespace that was not created before."""
        if self.created(operation.name):
            return failed(NAMESPACE_EXISTS, f"namespace {operation.name!r} exists")
        if len(self.shelf) >= limits.NAMESPACES_MAX:
            return failed(TOO_MANY, f"there are {limits.NAMESPACES_MAX} namespaces: no more are allowed")
        record = NamespaceRecord(self._book.next_item(), operation.name, _changed(_PLAIN, operation.config))
        self.shelf.put(operation.name, record)
        self._book.emit("namespace_created", namespace=operation.name)
        return Done(changed=True)

    def alter(self, operation: AlterNamespace) -> Result:
        """Change the config of a namespace; what is held keeps what it was promised."""
        record = self.shelf.of(operation.name)
        if record is None:
            return failed(NO_SUCH_NAMESPACE, f"namespace {operation.name!r} was not created")
        config = _changed(record.config, operation.config)
        if 0 < config.ttl_max_ms < config.default_ttl_ms:
            return failed(BAD_CONFIG, "the default ttl would be longer than the maximum ttl")
        if config == record.config:
            return Done(changed=False)
        record.config = config
        self.shelf.put(operation.name, record)
        self._book.emit("namespace_altered", namespace=operation.name)
        return Done(changed=True)

    def drop(self, name: str) -> None:
        """Forget a namespace."""
        self.shelf.drop(name)
        self._book.emit("namespace_dropped", namespace=name)


def _changed(config: NamespaceConfig, change: NamespaceConfig) -> NamespaceConfig:
    def new(before: int, after: int) -> int:
        return before if after == KEEP else after

    return NamespaceConfig(
        default_ttl_ms=new(config.default_ttl_ms, change.default_ttl_ms),
        ttl_max_ms=new(config.ttl_max_ms, change.ttl_max_ms),
        session_grace_ms=new(config.session_grace_ms, change.session_grace_ms),
        lock_delay_ms=new(config.lock_delay_ms, change.lock_delay_ms),
        claims_max=new(config.claims_max, change.claims_max),
    )
