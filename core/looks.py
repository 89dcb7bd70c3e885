"""What can be asked of the lease state without changing it: descriptions, listings, and the events of a while ago."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from . import limits
from .book import Book
from .claims import Claims
from .commands import (
    Describe,
    DescribeNamespace,
    GetRegister,
    ListClaims,
    ListRecords,
    Look,
    ReadEvents,
    Validate,
)
from .events import Event
from .lapses import Lapses
from .listing import cut, cut_page, numbers_after
from .namespaces import Namespaces
from .pins import Pins
from .records import ClaimRecord, PinRecord, RegisterRecord, SemaphoreRecord, SessionRecord
from .registers import Registers
from .resources import ALL_UNITS, Mode
from .results import (
    About,
    ClaimInfo,
    ClaimPage,
    ClaimPhase,
    EventPage,
    NamespaceInfo,
    NotHeld,
    PinInfo,
    RecordPage,
    RegisterInfo,
    Result,
    SemaphoreInfo,
    SessionInfo,
    SessionOpened,
    Valid,
)
from .semaphores import Semaphores
from .sessions import Sessions


class _Named(NamedTuple):
    """A namespace in a listing, whether it was created or not."""

    number: int
    namespace: str


class Looks:
    """Answers those who only look."""

    def __init__(
        self,
        book: Book,
        sessions: Sessions,
        claims: Claims,
        lapses: Lapses,
        pins: Pins,
        semaphores: Semaphores,
        registers: Registers,
        namespaces: Namespaces,
    ) -> None:
        """Look at these parts of the state."""
        self.history: deque[Event] = deque(maxlen=limits.EVENTS_KEPT)
        """What happened of late, as far as this node remembers it; no part of the state."""
        self._book = book
        self._sessions = sessions
        self._claims = claims
        self._lapses = lapses
        self._pins = pins
        self._semaphores = semaphores
        self._registers = registers
        self._namespaces = namespaces

    def answer(self, look: Look) -> Result:
        """Return what was asked for."""
        match look:
            case Describe(namespace, path):
                return self._describe(namespace, path)
            case ListClaims(namespace, after, limit):
                numbers = numbers_after(self._claims.numbers, after)
                return cut_page(numbers, self._claims.all, namespace, limit, self.info)
            case Validate(token):
                claim = self._claims.granted(token)
                return Valid(self.info(claim)) if claim is not None else NotHeld()
            case GetRegister(namespace, path):
                return self._registers.get(namespace, path)
            case DescribeNamespace(name):
                return self._namespace_info(name)
            case ListRecords():
                return self._list(look)
            case ReadEvents():
                return self._events(look)

    # --- claims ------------------------------------------------------------------------------------------------------

    def _describe(self, namespace: str, path: tuple[str, ...]) -> ClaimPage:
        queues = self._claims.queues.get(namespace)
        overlapping: Iterator[int] = iter(()) if queues is None else _once(queues.overlapping(path))
        page = cut_page(overlapping, self._claims.all, "", limits.LIST_PAGE_MAX, self.info)
        waiting = 0 if queues is None else queues.waiting_on(path)
        lapsed = self._lapses.find(namespace, path)
        semaphore = self._semaphores.shelf.of((namespace, path))
        limit, created = (0, False) if queues is None else queues.capacity(path)
        counted = semaphore is not None or (queues is not None and limit != ALL_UNITS)
        about = About(
            limit=limit if counted else 0,
            ephemeral=counted and not created,
            units=0 if queues is None else queues.units(path),
            data=semaphore.data if semaphore is not None else b"",
            version=self._registers.version(namespace, path),
            pins=self._pins.of(namespace, path),
            lapsed=(lapsed,) if lapsed is not None else (),
        )
        return ClaimPage(page.claims, waiting, page.upto, self._book.header.revision, (about,))

    def attached(self, opened: SessionOpened) -> SessionOpened:
        """Return what is told to whoever has attached a session: the first page of its claims comes with it."""
        numbers = iter(sorted(self._sessions[opened.session].claims))
        page = cut_page(numbers, self._claims.all, "", limits.LIST_PAGE_MAX, self.info)
        return replace(opened, claims=page.claims, upto=page.upto)

    def info(self, claim: ClaimRecord) -> ClaimInfo:
        """Return all that is known of a claim, for people and tools."""
        return ClaimInfo(
            claim=claim.claim,
            namespace=claim.namespace,
            path=claim.resources[0].path,
            phase=ClaimPhase.HELD if claim.token else ClaimPhase.WAITING,
            holder=claim.holder,
            session=claim.session,
            token=claim.token,
            ttl_ms=claim.ttl_ms,
            since_ms=claim.since_ms,
            expires_at_ms=self._claims.expires_at_ms(claim),
            detached=claim.detached,
            data=claim.data,
            resources=claim.resources,
            hold_until_ms=claim.hold_until_ms,
        )

    # --- records -----------------------------------------------------------------------------------------------------

    def _list(self, look: ListRecords) -> RecordPage:
        table: Any
        find: Callable[[int], Any]
        inform: Callable[[Any], Any]
        match look.kind:
            case "sessions":
                table, find, inform = self._sessions, self._session, self._session_info
            case "semaphores":
                table, find, inform = self._semaphores.shelf, self._semaphores.shelf.record, self._semaphore_info
            case "pins":
                table, find, inform = self._pins.shelf, self._pins.shelf.record, _pin_info
            case "registers":
                table, find, inform = self._registers.shelf, self._registers.shelf.record, _register_info
            case _:
                return self._list_namespaces(look)
        page, upto = cut(table.numbers_after(look.after), find, look.namespace, look.limit, inform, _bytes_of_row)
        return RecordPage(tuple(page), upto)

    def _list_namespaces(self, look: ListRecords) -> RecordPage:
        """List those that were created by their numbers; behind the last of them those that are merely used."""
        created, last = self._namespaces.shelf, self._book.header.last_item
        used = dict.fromkeys([*self._claims.queues, *self._sessions.in_namespace])
        merely = sorted(name for name in used if not self._namespaces.created(name))

        def find(number: int) -> _Named | None:
            if number > last:
                return _Named(number, merely[number - last - 1])
            record = created.record(number)
            return None if record is None else _Named(number, record.name)

        behind = range(max(look.after, last) + 1, last + 1 + len(merely))
        numbers = itertools.chain(created.numbers_after(look.after), behind)

        def inform(one: _Named) -> NamespaceInfo:
            return self._namespace_info(one.namespace, one.number)

        page, upto = cut(numbers, find, look.namespace, look.limit, inform, _bytes_of_row)
        return RecordPage(tuple(page), upto)

    def _namespace_info(self, name: str, number: int = 0) -> NamespaceInfo:
        record = self._namespaces.shelf.of(name)
        return NamespaceInfo(
            number=record.number if record is not None else number,
            name=name,
            created=record is not None,
            config=self._namespaces.config(name),
            claims=self._namespaces.claims.get(name, 0),
            sessions=self._sessions.in_namespace[name],
        )

    def _session(self, number: int) -> SessionRecord | None:
        session = self._sessions.get(number)
        return None if session is None else session.record

    def _session_info(self, record: SessionRecord) -> SessionInfo:
        session = self._sessions[record.session]
        held = sum(self._claims.all[claim].token > 0 for claim in session.claims)
        return SessionInfo(
            number=record.session,
            namespace=record.namespace,
            description=record.description,
            timeout_ms=record.timeout_ms,
            expires_at_ms=record.expires_at_ms,
            attach=record.attach,
            held=held,
            waiting=len(session.claims) - held,
        )

    def _semaphore_info(self, record: SemaphoreRecord) -> SemaphoreInfo:
        queues = self._claims.queues_of(record.namespace)
        return SemaphoreInfo(
            number=record.number,
            namespace=record.namespace,
            path=record.path,
            limit=record.limit,
            units=record.limit if _written(self._claims, record) else queues.units(record.path),
            waiting=queues.waiting_on(record.path),
            data=record.data,
        )

    # --- events ------------------------------------------------------------------------------------------------------

    def _events(self, look: ReadEvents) -> EventPage:
        latest = self._book.header.revision
        first = self.history[0].revision if self.history else latest + 1
        missed_upto = first - 1 if look.after + 1 < first else 0
        start = min(max(0, look.after + 1 - first), len(self.history))  # any number may be asked for
        found: list[Event] = []
        upto, size = max(look.after, missed_upto), 0
        for event in itertools.islice(self.history, start, start + limits.LIST_LOOK_MAX):
            if len(found) >= look.limit or size >= limits.PAGE_BYTES:
                break
            if event.concerns(look.namespace, look.path, below=look.below):
                found.append(event)
                size += sum(_bytes_of(path) for path in (event.path, *event.others)) + len(event.why.encode())
            upto = event.revision
        return EventPage(tuple(found), min(upto, latest), missed_upto)


def _written(claims: Claims, record: SemaphoreRecord) -> bool:
    """Return whether somebody has the semaphore alone."""
    for number in itertools.islice(claims.queues_of(record.namespace).claims_on(record.path), 1):
        claim = claims.all.get(number)
        if claim is not None and claim.token:
            return any(each.path == record.path and each.mode == Mode.WRITE for each in claim.resources)
    return False


def _bytes_of_row(row: Any) -> int:
    paths = _bytes_of(getattr(row, "path", ())) + _bytes_of(getattr(row, "entities", ()))
    return len(getattr(row, "data", b"")) + 200 + paths


def _bytes_of(names: tuple[str, ...]) -> int:
    return sum(len(name.encode()) for name in names)


def _once(numbers: Iterator[int]) -> Iterator[int]:
    """Yield each number once."""
    seen: dict[int, None] = {}
    for number in numbers:
        if number not in seen:
            seen[number] = None
            yield number


def _pin_info(record: PinRecord) -> PinInfo:
    return PinInfo(record.number, record.namespace, record.path, record.entities)


def _register_info(record: RegisterRecord) -> RegisterInfo:
    return RegisterInfo(record.number, record.namespace, record.path, record.version, record.token)
