"""What can be asked of the service beside leases: for each call its operation, and what its answer means.

Without any I/O, so that both faces of the client share it: each sends the operation its own way, and then reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from ..core import limits
from ..core.checks import check, check_flag, check_part
from ..core.commands import (
    ANY_VERSION,
    KEEP,
    AlterNamespace,
    Amend,
    Break,
    Check,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    DescribeNamespace,
    DropNamespace,
    EraseRegister,
    GetRegister,
    HeldBy,
    ListRecords,
    NamespaceConfig,
    Operation,
    Pin,
    PutRegister,
    ReadEvents,
    RegisterIs,
    Release,
    Renew,
    Step,
    TokenHeld,
    Transact,
    Unheld,
    Unpin,
    UpdateSemaphore,
)
from ..core.errors import BadRequest
from ..core.events import Event
from ..core.results import Done, EventPage, NamespaceInfo, PinInfo, RegisterInfo, SemaphoreInfo, SessionInfo
from .durations import Duration, milliseconds, ttl_milliseconds
from .refusals import refused
from .wants import Name, path_of

T = TypeVar("T")

LAST: Final = KEEP - 1
"""A revision that is never reached: what happened after it is nothing, and the answer says which is the latest."""


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """An operation, and how its result is read; what was refused is raised by `read`."""

    operation: Operation
    read: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Semaphore:
    """A semaphore that was created: how many units it has, and how many of them are held."""

    name: str
    path: tuple[str, ...]
    namespace: str
    limit: int
    units: int
    waiting: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace: its settings (durations in seconds, 0 for no such rule), and how much is in it.

    `created` False: it is merely used, with no settings of its own.
    """

    name: str
    created: bool
    default_ttl: float
    ttl_max: float
    session_grace: float
    lock_delay: float
    claims_max: int
    claims: int
    sessions: int


@dataclass(frozen=True, slots=True)
class Session:
    """A client's session, as operators see it; times in seconds."""

    number: int
    namespace: str
    description: str
    timeout: float
    attach: int
    held: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Register:
    """What a fenced register holds; `token` is that of the lease under which it was written. `version` 0: nothing."""

    version: int
    token: int
    data: bytes

    def __bool__(self) -> bool:
        """Return whether anything was ever written, and not erased since."""
        return self.version > 0


@dataclass(frozen=True, slots=True)
class Pinned:
    """A name that is pinned, and by whom."""

    name: str
    path: tuple[str, ...]
    namespace: str
    entities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RegisterView:
    """A register without its data, as it is listed; `token` is that of the lease under which it was written."""

    name: str
    path: tuple[str, ...]
    namespace: str
    version: int
    token: int


@dataclass(frozen=True, slots=True)
class Events:
    """Events in order. All that happened up to `revision` has been told, but what happened up to `missed` may not."""

    events: tuple[Event, ...]
    revision: int
    missed: int


# --- semaphores ------------------------------------------------------------------------------------------------------


def create_semaphore(namespace: str, name: Name, limit: int, data: bytes) -> Ask[None]:
    """Make a semaphore."""
    return Ask(CreateSemaphore(namespace, path_of(name), limit, data), _nothing)


def update_semaphore(namespace: str, name: Name, data: bytes) -> Ask[bool]:
    """Replace a semaphore's data."""
    return Ask(UpdateSemaphore(namespace, path_of(name), data), _changed)


def delete_semaphore(namespace: str, name: Name, *, force: bool) -> Ask[None]:
    """Remove a semaphore."""
    check_flag("force", force)
    return Ask(DeleteSemaphore(namespace, path_of(name), force), _nothing)


def semaphore(info: SemaphoreInfo) -> Semaphore:
    """Return a semaphore as users see it."""
    return Semaphore("/".join(info.path), info.path, info.namespace, info.limit, info.units, info.waiting, info.data)


def shrink(claim: int, count: int) -> Ask[Any]:
    """Hold fewer units."""
    operation = Amend(claim, count, to_read=False, wait_ms=KEEP, new_data=False, data=b"")
    check(operation)  # before the lease counts less as held
    return Ask(operation, refused)


def share(claim: int) -> Ask[Any]:
    """Hold only to read what is held to write."""
    return Ask(Amend(claim, KEEP, to_read=True, wait_ms=KEEP, new_data=False, data=b""), refused)


def update(claim: int, data: bytes) -> Ask[Any]:
    """Replace the data of a claim."""
    return Ask(Amend(claim, KEEP, to_read=False, wait_ms=KEEP, new_data=True, data=data), refused)


# --- pins ------------------------------------------------------------------------------------------------------------


def pin(namespace: str, name: Name, entity: str) -> Ask[bool]:
    """Have the leases on a path not expire."""
    return Ask(Pin(namespace, path_of(name), entity), _changed)


def unpin(namespace: str, name: Name, entity: str) -> Ask[bool]:
    """Take an entity's pin away."""
    return Ask(Unpin(namespace, path_of(name), entity), _changed)


def pinned(info: PinInfo) -> Pinned:
    """Return a name that is pinned as users see it."""
    return Pinned("/".join(info.path), info.path, info.namespace, info.entities)


# --- namespaces ------------------------------------------------------------------------------------------------------


def create_namespace(name: str, **config: Any) -> Ask[None]:
    """Make a namespace."""
    return Ask(CreateNamespace(name, _config(0, config)), _nothing)


def alter_namespace(name: str, **config: Any) -> Ask[bool]:
    """Change the settings of a namespace that are given."""
    return Ask(AlterNamespace(name, _config(KEEP, config)), _changed)


def drop_namespace(name: str, *, force: bool) -> Ask[None]:
    """Remove a namespace."""
    check_flag("force", force)
    return Ask(DropNamespace(name, force), _nothing)


def describe_namespace(name: str) -> Ask[Namespace]:
    """Look at a namespace."""
    return Ask(DescribeNamespace(name), lambda result: namespace(refused(result)))


def namespace(info: NamespaceInfo) -> Namespace:
    """Return a namespace as users see it."""
    config = info.config
    return Namespace(
        name=info.name,
        created=info.created,
        default_ttl=config.default_ttl_ms / 1000,
        ttl_max=config.ttl_max_ms / 1000,
        session_grace=config.session_grace_ms / 1000,
        lock_delay=config.lock_delay_ms / 1000,
        claims_max=config.claims_max,
        claims=info.claims,
        sessions=info.sessions,
    )


def _config(otherwise: int, config: dict[str, Any]) -> NamespaceConfig:
    def duration(name: str) -> int:
        value = config.get(name)
        return otherwise if value is None else milliseconds(value, name)

    claims_max = config.get("claims_max")
    return NamespaceConfig(
        default_ttl_ms=duration("default_ttl"),
        ttl_max_ms=duration("ttl_max"),
        session_grace_ms=duration("session_grace"),
        lock_delay_ms=duration("lock_delay"),
        claims_max=otherwise if claims_max is None else claims_max,
    )


def session(info: SessionInfo) -> Session:
    """Return a session as users see it."""
    return Session(
        info.number, info.namespace, info.description, info.timeout_ms / 1000, info.attach, info.held, info.waiting
    )


# --- registers and transactions --------------------------------------------------------------------------------------


def read_register(namespace: str, name: Name) -> Ask[Register]:
    """Read a register."""
    return Ask(GetRegister(namespace, path_of(name)), _register)


def write_register(namespace: str, name: Name, token: int, data: bytes, version: int | None) -> Ask[Register]:
    """Write a register under a token."""
    expected = ANY_VERSION if version is None else version
    operation = PutRegister(namespace, path_of(name), token, expected, data)
    return Ask(operation, lambda result: Register(refused(result).version, token, data))


def erase_register(namespace: str, name: Name, token: int, version: int | None) -> Ask[bool]:
    """Remove a register under a token."""
    expected = ANY_VERSION if version is None else version
    return Ask(EraseRegister(namespace, path_of(name), token, expected), _changed)


def register(info: RegisterInfo) -> RegisterView:
    """Return a register that was listed as users see it."""
    return RegisterView("/".join(info.path), info.path, info.namespace, info.version, info.token)


def everywhere(namespace: str, *, all_namespaces: bool) -> str:
    """Return where a listing looks: the one namespace, or "" for all of them."""
    check_flag("all_namespaces", all_namespaces)
    return "" if all_namespaces else namespace


def carried_out(transaction: "Transaction") -> Ask[None]:
    """Return a transaction as what can be asked.

    Raises:
        BadRequest: it is none.
    """
    given: Any = transaction
    if not isinstance(given, Transaction):
        raise BadRequest(f"a transaction is made by client.transaction(), not {given!r:.80}")
    return transaction.ask()


class Transaction:
    """Checks and steps that are carried out all together or not at all; see `Client.transaction`."""

    def __init__(self, namespace: str) -> None:
        """Start with nothing."""
        self._namespace = namespace
        self._checks: list[Check] = []
        self._steps: list[Step] = []

    def if_held(self, token: int) -> "Transaction":
        """Check that the lease of this token is held."""
        return self._check(TokenHeld(token))

    def if_holder(self, name: Name, holder: str) -> "Transaction":
        """Check that this holder holds the name (Juju's trapdoor)."""
        return self._check(HeldBy(self._namespace, path_of(name), holder))

    def if_free(self, name: Name) -> "Transaction":
        """Check that nobody holds the name, a part of it, or what it is a part of."""
        return self._check(Unheld(self._namespace, path_of(name)))

    def if_version(self, name: Name, version: int) -> "Transaction":
        """Check that the register has this version (0: that there is none)."""
        return self._check(RegisterIs(self._namespace, path_of(name), version))

    def write(self, name: Name, data: bytes, token: int, version: int | None = None) -> "Transaction":
        """Write a register under the token of a lease that covers it."""
        return self._step(write_register(self._namespace, name, token, data, version).operation)

    def erase(self, name: Name, token: int, version: int | None = None) -> "Transaction":
        """Remove a register under the token of a lease that covers it."""
        return self._step(erase_register(self._namespace, name, token, version).operation)

    def release(self, token: int) -> "Transaction":
        """Release the lease of this token, after everything else."""
        return self._step(Release(token))

    def renew(self, token: int, ttl: Duration | None = None) -> "Transaction":
        """Renew the lease of this token."""
        return self._step(Renew(token, 0 if ttl is None else ttl_milliseconds(ttl)))

    def pin(self, name: Name, entity: str) -> "Transaction":
        """Pin a name for an entity."""
        return self._step(pin(self._namespace, name, entity).operation)

    def unpin(self, name: Name, entity: str) -> "Transaction":
        """Take an entity's pin away."""
        return self._step(unpin(self._namespace, name, entity).operation)

    def update_semaphore(self, name: Name, data: bytes) -> "Transaction":
        """Replace a semaphore's data."""
        return self._step(update_semaphore(self._namespace, name, data).operation)

    def ask(self) -> Ask[None]:
        """Return it as what can be asked."""
        return Ask(Transact(tuple(self._checks), tuple(self._steps)), _nothing)

    def _check(self, check: Check) -> "Transaction":
        check_part(check, Check)
        self._checks.append(check)
        return self

    def _step(self, step: Any) -> "Transaction":
        check_part(step, Step)
        self._steps.append(step)
        return self


# --- the operator ----------------------------------------------------------------------------------------------------


def break_lease(token: int, reason: str) -> Ask[None]:
    """End a lease, and tell its holder why."""
    return Ask(Break(token, reason), _nothing)


# --- listings and events ---------------------------------------------------------------------------------------------


def page_of(kind: str, namespace: str, after: int, view: Callable[[Any], T]) -> Ask[tuple[list[T], int]]:
    """Return a page of a listing, and after which number the next one begins (0: there is none)."""

    def read(result: Any) -> tuple[list[T], int]:
        page = refused(result)
        return [view(record) for record in page.records], page.upto

    return Ask(ListRecords(kind, namespace, after, limits.LIST_PAGE_MAX), read)


def events_since(namespace: str, name: Name | None, revision: int, *, below: bool) -> Ask[Events]:
    """Return what happened to a name after a revision."""
    check_flag("below", below)
    path: Sequence[str] = () if name is None else path_of(name)
    operation = ReadEvents(namespace, tuple(path), below or name is None, revision, limits.EVENT_PAGE_MAX)

    def read(result: Any) -> Events:
        page: EventPage = refused(result)
        return Events(page.events, page.upto, page.missed_upto)

    return Ask(operation, read)


def latest_revision() -> Ask[Events]:
    """Return no event, and the revision of the last thing that has happened anywhere."""
    return events_since("", None, LAST, below=True)


# --- parts -----------------------------------------------------------------------------------------------------------


def _nothing(result: Any) -> None:
    refused(result)


def _changed(result: Any) -> bool:
    done: Done = refused(result)
    return done.changed


def _register(result: Any) -> Register:
    found = refused(result)
    return Register(found.version, found.token, found.data)
