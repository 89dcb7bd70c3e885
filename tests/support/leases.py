"""A small driver around LeaseState that opens sessions, claims and lets time pass, and checks of its consistency."""

from collections.abc import Iterable
from typing import Any

from lessor.core import limits
from lessor.core.ballot import Ballot
from lessor.core.commands import (
    ATTACH_STEP,
    FOREVER,
    KEEP,
    Adopt,
    AlterNamespace,
    Amend,
    AttachSession,
    Break,
    Cancel,
    Claim,
    CloseSession,
    Command,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    Describe,
    DropNamespace,
    EraseRegister,
    ListClaims,
    NamespaceConfig,
    OpenSession,
    Operation,
    Pin,
    Ping,
    PutRegister,
    Release,
    Renew,
    Unpin,
    UpdateSemaphore,
    proof_of,
)
from lessor.core.consistency import check_records
from lessor.core.deadlines import LEASE_ENDS, NAME_OPENS, SESSION_ENDS, WAIT_ENDS
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.events import Event
from lessor.core.lease_state import LeaseState, Outcome
from lessor.core.requests import Notice
from lessor.core.resources import Mode, Resource
from lessor.core.results import ClaimInfo, ClaimPage, ClaimPhase, ClaimStatus, Pong, Result, SessionOpened

NAMESPACE = "default"


class Leases:
    """A lease state under one leader, whose clock moves only when it is told to; every entry takes the next slot."""

    def __init__(self, state: LeaseState | None = None) -> None:
        self.state = LeaseState() if state is None else state
        self.term = self.state.header.term
        self.elapsed_ms = self.state.clock_ms - self.state.header.base_ms
        self.log: list[Entry] = []
        self.events: list[Event] = []
        self.notices: list[Notice] = []
        self.last_number = 0
        if state is None:
            self.lead()

    # --- the log -----------------------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> Outcome:
        outcome = self.state.apply(self.state.applied_upto + 1, entry)
        self.log.append(entry)
        self.events += outcome.events
        self.notices += outcome.notices
        return outcome

    def lead(self) -> None:
        """The next leader takes over; its own time begins at 0."""
        self.term = Ballot(self.term.counter + 1, self.term.counter % 3 + 1)
        self.elapsed_ms = 0
        self.apply(Lead(self.term))

    def batch(self, *commands: Command) -> list[Result]:
        outcome = self.apply(Batch(self.term, self.elapsed_ms, tuple(encode(command) for command in commands)))
        assert [tag for tag, _ in outcome.answers] == [command.tag for command in commands]
        return [result for _, result in outcome.answers]

    def after(self, ms: int) -> None:
        """Let time pass, and a stamped batch without commands follow."""
        self.elapsed_ms += ms
        self.batch()

    def command(self, session: int, operation: Operation, number: int = 0, acked_below: int = 0) -> Command:
        """A command of whoever has the session, under the next number, or under the number given."""
        self.last_number += 1
        found = self.state.sessions_open.get(session)
        proof = proof_of(found.record.key) if found is not None else 0
        return Command(self.last_number, session, number or self.last_number, acked_below, operation, proof=proof)

    def ask(self, session: int, operation: Operation, number: int = 0, acked_below: int = 0) -> Result:
        """Have one operation chosen, alone in its batch, and return its answer."""
        return self.batch(self.command(session, operation, number, acked_below))[0]

    # --- what clients do ---------------------------------------------------------------------------------------------

    def session(self, timeout_ms: int = 10_000, key: bytes = b"") -> int:
        """Open a session, of a client that draws a new key unless it is given one."""
        key = key or (self.last_number + 1).to_bytes(16, "big")
        opened = self.ask(0, OpenSession(key, timeout_ms, ""))
        assert isinstance(opened, SessionOpened)
        return opened.session

    def claim(
        self,
        session: int,
        name: str,
        *,
        ttl_ms: int = 0,
        wait_ms: int = 0,
        detached: bool = False,
        namespace: str = NAMESPACE,
    ) -> Any:
        return self.ask(session, claim(name, ttl_ms=ttl_ms, wait_ms=wait_ms, detached=detached, namespace=namespace))

    def cancel(self, session: int, number: int) -> Result:
        return self.ask(session, Cancel(number))

    def renew(self, session: int, token: int, ttl_ms: int = 0) -> Result:
        return self.ask(session, Renew(token, ttl_ms))

    def release(self, session: int, token: int) -> Result:
        return self.ask(session, Release(token))

    def close(self, session: int) -> Result:
        return self.ask(session, CloseSession())

    def ping(self, session: int, *claims: int) -> Pong:
        pong = self.ask(session, Ping(claims))
        assert isinstance(pong, Pong)
        return pong

    def give_all_back(self) -> None:
        """Release, delete and close whatever there is."""
        state, session = self.state, self.session()
        for pin in state.pins.shelf.records():
            for entity in pin.entities:
                self.ask(session, Unpin(pin.namespace, pin.path, entity))
        for register in state.registers.shelf.records():
            state.registers.shelf.drop((register.namespace, register.path))  # whoever holds it by now could
        while held := list(state.claims.by_token):
            self.release(session, held[0])
        for semaphore in state.semaphores.shelf.records():
            self.ask(session, DeleteSemaphore(semaphore.namespace, semaphore.path, force=True))
        for record in state.sessions_open.records():
            if record.session != session:
                self.close(record.session)
        for namespace in state.namespaces.shelf.records():
            self.ask(session, DropNamespace(namespace.name, force=True))
        self.close(session)
        self.after(limits.LOCK_DELAY_MS_MAX)
        self.after(limits.LAPSED_KEPT_MS)

    def describe(self, name: str, namespace: str = NAMESPACE) -> ClaimPage:
        page = self.ask(0, Describe(namespace, (name,)))
        assert isinstance(page, ClaimPage)
        return page

    def list_claims(self, namespace: str = "", after: int = 0, limit: int = 100) -> ClaimPage:
        page = self.ask(0, ListClaims(namespace, after, limit))
        assert isinstance(page, ClaimPage)
        return page

    def holder(self, name: str) -> ClaimInfo | None:
        """The claim that holds the name, None if it is free."""
        claims = self.describe(name).claims
        return claims[0] if claims and claims[0].phase == ClaimPhase.HELD else None

    def holding_token(self, name: str) -> int:
        """The token under which the name is held, 0 if it is free."""
        found = self.holder(name)
        return found.token if found else 0

    def kinds(self) -> list[str]:
        """The kinds of the events since the last call."""
        kinds = [event.kind for event in self.events]
        self.events.clear()
        return kinds

    def told(self, session: int) -> list[ClaimStatus]:
        """What was pushed to the session since the last call."""
        told = [notice.status for notice in self.notices if notice.session == session]
        self.notices = [notice for notice in self.notices if notice.session != session]
        return told


def claim(name: str, *, ttl_ms: int = 0, wait_ms: int = 0, detached: bool = False, namespace: str = NAMESPACE) -> Claim:
    return Claim(namespace, (Resource((name,)),), f"holder of {name}", b"", ttl_ms, wait_ms, detached)


def a_story() -> Leases:
    """A history in which everything happens that can."""
    leases = Leases()
    anna, ben, carl = leases.session(timeout_ms=1000), leases.session(timeout_ms=60_000), leases.session()
    leases.claim(anna, "x", ttl_ms=1500)
    leases.claim(ben, "x", wait_ms=400)
    leases.claim(ben, "x", wait_ms=FOREVER)
    leases.claim(carl, "x", ttl_ms=2000, wait_ms=FOREVER, detached=True)
    leases.after(500)
    leases.renew(ben, 1)
    leases.claim(anna, "y")
    leases.claim(anna, "x", wait_ms=FOREVER)
    leases.lead()
    leases.after(1200)
    leases.after(800)
    leases.cancel(ben, 3)
    leases.claim(ben, "z", namespace="other", ttl_ms=100)
    leases.close(carl)
    leases.after(100)
    _tell_the_rest(leases, ben)
    return leases


def _tell_the_rest(leases: Leases, ben: int) -> None:
    """What happens beside claims on plain names."""
    place = ("n", ("a", "b"))
    leases.ask(ben, CreateNamespace("n", NamespaceConfig(lock_delay_ms=500)))
    leases.ask(ben, AlterNamespace("n", NamespaceConfig(lock_delay_ms=700, default_ttl_ms=KEEP)))
    leases.ask(ben, CreateSemaphore("n", ("s",), 3, b""))
    leases.ask(ben, UpdateSemaphore("n", ("s",), b"new"))
    several = (Resource(("a",)), Resource(("s",), Mode.COUNT, 2))
    held = leases.ask(ben, Claim("n", several, "ben", b"", 1000, 0, detached=False))
    assert isinstance(held, ClaimStatus)
    leases.ask(ben, Amend(held.claim, count=1))
    leases.ask(ben, Pin("n", ("a",), "e"))
    written: Any = leases.ask(ben, PutRegister(*place, held.token, 0, b"kept"))
    leases.ask(ben, EraseRegister(*place, held.token, written.version))
    leases.ask(ben, Unpin("n", ("a",), "e"))
    carl = leases.session(timeout_ms=60_000)
    leases.ask(0, AttachSession(carl, leases.last_number.to_bytes(16, "big"), 1, 60_000, "again"))
    leases.ask(carl, Adopt(held.token), number=ATTACH_STEP + 1)
    leases.ask(ben, Break(held.token, "it hangs"))
    leases.ask(ben, DeleteSemaphore("n", ("s",), force=True))
    leases.ask(ben, DropNamespace("n", force=True))
    leases.after(700)


def a_full_listing() -> Leases:
    """Five records of each kind that can be listed, in the namespaces `odd` and `even`."""
    leases = Leases()
    anna, *_ = (leases.session(timeout_ms=600_000) for _ in range(2))
    for number in range(5):
        namespace = "odd" if number % 2 else "even"
        if number < 3:
            opening = OpenSession(bytes([number + 1]) * 16, 600_000, "", namespace)
            leases.ask(0, opening)
        leases.ask(anna, CreateSemaphore(namespace, ("s", str(number)), 2, b""))
        leases.ask(anna, Pin(namespace, ("p", str(number)), "e"))
        held = leases.claim(anna, f"r{number}", namespace=namespace)
        leases.ask(anna, PutRegister(namespace, (f"r{number}",), held.token, 0, b""))
    for name in ("odd", "even", "third", "fourth"):
        leases.ask(anna, CreateNamespace(name, NamespaceConfig()))
    return leases


def replayed(log: Iterable[Entry], *, answering: bool = True) -> LeaseState:
    """The state that another node reaches by the same log."""
    state = LeaseState()
    for slot, entry in enumerate(log, start=1):
        state.apply(slot, entry, answering=answering)
    return state


def _sorted(chains: dict[tuple[int, int], dict[int, None]]) -> dict[tuple[int, int], list[int]]:
    return {key: sorted(chain) for key, chain in chains.items()}


def check_consistent(state: LeaseState) -> None:
    """Assert what holds after every entry: the records fit together, and every index is what they alone would give."""
    assert check_records(state.header, *(table.records() for table in state.tables.values()))
    anew = LeaseState.restore(state.snapshot())
    assert anew.snapshot() == state.snapshot()
    assert _frozen_queues(state) == _frozen_queues(anew), "the queues are those of the records (P7, P10)"
    claims = state.claims.records()
    assert state.claims.by_token == {record.token: record.claim for record in claims if record.token}
    assert (state.held, state.waiting) == (anew.held, anew.waiting)
    assert state.held + state.waiting == len(claims)
    sessions = {record.session: record for record in state.sessions_open.records()}
    assert 0 not in sessions, "0 stands for no session"
    assert state.sessions == len(sessions)
    assert state.sessions_open._by_key == {record.key: number for number, record in sessions.items()}
    for number in sessions:
        owned = [record.claim for record in claims if record.session == number]
        assert sorted(state.sessions_open[number].claims) == owned, "a session knows its claims"
    assert _sorted(state.claims.chains) == _sorted(anew.claims.chains)
    assert state.namespaces.claims == anew.namespaces.claims
    assert state.sessions_open.in_namespace == anew.sessions_open.in_namespace
    for table, other in zip(state.tables.values(), anew.tables.values(), strict=True):
        if hasattr(table, "_numbers"):
            assert [number for number in table._numbers if table.record(number) is not None] == other._numbers
    for mine, other in ((state.lapses, anew.lapses),):
        assert {key: list(numbers) for key, numbers in mine._by_key.items()} == {
            key: list(numbers) for key, numbers in other._by_key.items()
        }
        assert (mine._by_claim, list(mine._lapses)) == (other._by_claim, list(other._lapses))
        assert (mine._open, mine._closed) == (other._open, other._closed)
    taken = state.book.room.taken
    assert taken == anew.book.room.taken, "the bytes of the state are told by its records (P1)"
    assert taken + 200 >= len(state.snapshot()), "no snapshot has more than is counted, beside its header (P10)"
    check_deadlines(state)


def _frozen_queues(state: LeaseState) -> Any:
    def freeze(node: Any) -> Any:
        queues = [list(queue.items()) for queue in (node.held, node.waiting, node.observers, node.below_waiting)]
        counts = (node.units, node.shared, node.below_held, node.below_shared, node.below_observers)
        children = {segment: freeze(child) for segment, child in node.children.items()}
        limits = (sorted(node.limited.items()), node.capped)
        return queues, counts, children, sorted(node.busy), limits

    return {name: (freeze(queues._root), queues.limits) for name, queues in state.claims.queues.items()}


def check_deadlines(state: LeaseState) -> None:
    """Assert that nothing that will be due is missing from the heap of deadlines."""
    heap: dict[tuple[int, int], int] = {}
    for deadline_ms, kind, number in state._deadlines._heap:
        heap[kind, number] = min(deadline_ms, heap.get((kind, number), deadline_ms))
    due = {(SESSION_ENDS, record.session): record.expires_at_ms for record in state.sessions_open.records()}
    for record in state.claims.records():
        if record.ends_at_ms > state.clock_ms:  # an overdue one is pinned
            due[LEASE_ENDS if record.token else WAIT_ENDS, record.claim] = record.ends_at_ms
    for lapsed in state.lapses.records():
        if lapsed.closed_until_ms:
            due[NAME_OPENS, lapsed.number] = lapsed.closed_until_ms
    for entry, deadline_ms in due.items():
        assert heap[entry] <= deadline_ms, f"{entry} is due at {deadline_ms} and stands in the heap by then"
    next_ms = state.next_deadline_ms()
    first_ms = min(due.values(), default=0)
    assert next_ms <= first_ms
    assert bool(next_ms) == bool(first_ms)


def check_nothing_overdue(state: LeaseState) -> None:
    """Assert that whatever was due at the state's clock or before has ended."""
    for session in state.sessions_open.records():
        assert session.expires_at_ms > state.clock_ms, f"session {session.session} is overdue"
    for record in state.claims.records():
        overdue = 0 < record.ends_at_ms <= state.clock_ms
        assert not overdue or state.pins.pinned(record), f"claim {record.claim} is overdue"
