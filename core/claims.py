"""The claims of the lease state: asked for, granted in their turn, renewed, amended, ended (DESIGN §6)."""

import heapq
from collections.abc import Callable

from . import limits
from .book import Book, failed
from .checks import in_seconds
from .commands import FOREVER, KEEP, Amend, Claim
from .deadlines import LEASE_ENDS, NAME_OPENS, WAIT_ENDS, Deadlines
from .lapses import Lapses
from .namespaces import Namespaces
from .pins import Pins
from .queues import Queues
from .records import ClaimRecord, LapsedRecord
from .resources import ALL_UNITS, Mode, Resource, reduced, shown
from .results import (
    CANNOT_GROW,
    COUNT_TOO_LARGE,
    FREE,
    HELD_LONG,
    LIMIT_DIFFERS,
    NO_SUCH_NAMESPACE,
    NO_SUCH_SEMAPHORE,
    NO_TTL,
    OVERDUE,
    TAKEN_OVER,
    TOO_MANY,
    TTL_TOO_LONG,
    Cancelled,
    ClaimPhase,
    ClaimStatus,
    DeadlockDetected,
    Denied,
    Failed,
    NotHeld,
    Renewed,
    Result,
    shortened,
)
from .sessions import Session, Sessions

UNCLEAN = ("expired", "broken")
"""Ends of a grant after which its holder may still be at work: the name may stay closed, and the lease be read."""


class Claims:
    """Every claim that waits or is granted."""

    def __init__(
        self, book: Book, deadlines: Deadlines, sessions: Sessions, namespaces: Namespaces, lapses: Lapses, pins: Pins
    ) -> None:
        """Start with none."""
        self.changed: dict[int, None] = {}
        self.all: dict[int, ClaimRecord] = {}
        """Every claim by its number, which grows in the order of arrival."""
        self.numbers: list[int] = []
        """The same order, to begin a page in the middle; some may have ended."""
        self.by_token: dict[int, int] = {}
        self.queues: dict[str, Queues] = {}
        self.chains: dict[tuple[int, int], dict[int, None]] = {}
        """The claims of each flow of control, by session and chain."""
        self.find_circle: Callable[[ClaimRecord], DeadlockDetected | None] = lambda _: None
        self._tokens: dict[int, int] = {}  # of those who hold, and of those who keep their names closed
        self._book = book
        self._deadlines = deadlines
        self._sessions = sessions
        self._namespaces = namespaces
        self._lapses = lapses
        self._pins = pins

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.all)

    # --- asking ------------------------------------------------------------------------------------------------------

    def claim(self, operation: Claim, session: Session, *, strict: bool) -> Result:
        """Grant the claim, queue it, or say why neither is done."""
        refusal = self._refusal(operation, strict=strict)
        if refusal is not None:
            self.drop_empty(operation.namespace)
            return refusal
        resources = reduced(operation.resources)
        queues = self.queues_of(operation.namespace)
        header = self._book.header
        number = header.last_claim + 1
        if resources[0].mode == Mode.OBSERVE:
            ready = queues.free(resources[0].path, header.last_token, self._tokens)
            if ready or operation.wait_ms == 0:
                self.drop_empty(operation.namespace)
                return ClaimStatus(0, ClaimPhase.GONE, 0, 0, 0, why=FREE if ready else "it is held")
        else:
            ready = queues.ready(number, resources)
            if not ready and operation.wait_ms == 0:
                return self._denied(queues, operation.namespace, number, resources)
        wait_ms = 0 if operation.wait_ms in (0, FOREVER) else operation.wait_ms
        claim = ClaimRecord(
            claim=number,
            namespace=operation.namespace,
            resources=resources,
            holder=operation.holder,
            data=operation.data,
            session=session.record.session,
            detached=operation.detached,
            ttl_ms=operation.ttl_ms or self._namespaces.config(operation.namespace).default_ttl_ms,
            since_ms=self._book.clock_ms,
            token=0,
            ends_at_ms=self._book.clock_ms + wait_ms if wait_ms else 0,
            max_hold_ms=operation.max_hold_ms,
            chain=operation.chain,
            watermark=header.last_token if resources[0].mode == Mode.OBSERVE else 0,
        )
        if not ready and claim.chain and (circle := self.find_circle(claim)) is not None:
            return circle
        header.last_claim = number
        if ready:
            self._take_in(claim)
            self._grant(claim, waited=False)
        else:
            self.add(claim)
            if not claim.watermark:
                self._book.emit_claim("queued", claim)
        return self.status(claim)

    def _refusal(self, operation: Claim, *, strict: bool) -> Failed | None:
        """Return why a claim is out of the question, whoever holds what."""
        namespace = operation.namespace
        if strict and not self._namespaces.created(namespace):
            return failed(NO_SUCH_NAMESPACE, f"there is no namespace {namespace!r}")
        config = self._namespaces.config(namespace)
        if config.ttl_max_ms and operation.ttl_ms > config.ttl_max_ms:
            return _too_long(operation.ttl_ms, config.ttl_max_ms)
        # a name that is kept closed counts as the claim that it was
        if len(self.all) + self._lapses.closed >= limits.CLAIMS_MAX:
            return failed(TOO_MANY, f"there are {limits.CLAIMS_MAX} claims: no more are allowed")
        there = self._namespaces.claims.get(namespace, 0) + self._lapses.closed_in(namespace)
        if config.claims_max and there >= config.claims_max:
            return failed(TOO_MANY, f"there are {config.claims_max} claims in namespace {namespace!r}: no more may be")
        for resource in operation.resources:
            if resource.mode != Mode.COUNT:
                continue
            limit, created = self.queues_of(namespace).capacity(resource.path)
            if not resource.limit and not created:
                return failed(NO_SUCH_SEMAPHORE, f"there is no semaphore {shown(resource.path)}")
            if resource.limit and (created or limit not in (resource.limit, ALL_UNITS)):
                return failed(LIMIT_DIFFERS, f"the semaphore {shown(resource.path)} has the limit {limit}")
            if resource.count > (resource.limit or limit):
                return failed(COUNT_TOO_LARGE, f"a count of {resource.count} is more than the limit {limit}")
        return None

    def _denied(self, queues: Queues, namespace: str, number: int, resources: tuple[Resource, ...]) -> Denied:
        other = queues.first_in_the_way(number, resources)
        first, closed = self.all.get(other), self._lapses.of(other)
        if first is not None:
            return Denied(first.holder, first.token, self.expires_at_ms(first))
        if closed is not None:
            paths = " and ".join(_place(closed.namespace, each.path) for each in closed.resources)
            why = f"{paths} stays closed for a while: a lease of {closed.holder!r} ended there, {closed.why}"
            return Denied("", 0, closed.closed_until_ms, shortened(why))
        busy = next(each for each in resources if not queues.ready(number, (each,)))
        below = f"something below {_place(namespace, busy.path)} is held or waited for"
        return Denied("", 0, 0, shortened(below))

    # --- changing ----------------------------------------------------------------------------------------------------

    def cancel(self, number: int, session: Session) -> Cancelled:
        """Withdraw a claim of this session."""
        claim = self.all.get(number)
        if claim is None or claim.session != session.record.session:
            return Cancelled(ClaimPhase.GONE)
        was = ClaimPhase.HELD if claim.token else ClaimPhase.WAITING
        self.end(claim, "released" if claim.token else "cancelled")
        return Cancelled(was)

    def renew(self, token: int, ttl_ms: int) -> Result:
        """Let a grant last longer, never shorter, and no longer than it may be held at all."""
        claim = self.granted(token)
        if claim is None:
            return NotHeld()
        refusal = self.renewal_refused(claim, ttl_ms)
        if refusal is not None:
            return refusal
        ends_at_ms = self._book.clock_ms + (ttl_ms or claim.ttl_ms)
        if claim.hold_until_ms:
            ends_at_ms = min(ends_at_ms, claim.hold_until_ms)
        if ends_at_ms > claim.ends_at_ms:
            if claim.ends_at_ms <= self._book.clock_ms:  # pinned and overdue: nothing in the heap stands for it
                self._deadlines.add(ends_at_ms, LEASE_ENDS, claim.claim)
            claim.ends_at_ms = ends_at_ms  # otherwise the heap's earlier entry is put back when it comes up
            self.changed[claim.claim] = None
            self._book.emit_claim("renewed", claim, expires_at_ms=ends_at_ms)
        return Renewed(claim.ends_at_ms)

    def renewal_refused(self, claim: ClaimRecord, ttl_ms: int) -> Failed | None:
        """Return why a grant cannot be renewed by so much."""
        if claim.ttl_ms == 0:
            return failed(NO_TTL)
        most_ms = self._namespaces.config(claim.namespace).ttl_max_ms
        return _too_long(ttl_ms, most_ms) if most_ms and ttl_ms > most_ms else None

    def adopt(self, token: int, session: Session) -> Result:
        """Make a grant the session's own, and tell whoever had it."""
        claim = self.granted(token)
        if claim is None:
            return NotHeld()
        owner = session.record.session
        if claim.session != owner:
            why = f"{TAKEN_OVER} by session {owner}"
            self._leave_session(claim, ClaimStatus(claim.claim, ClaimPhase.GONE, token, 0, 0, why=why))
            claim.session = owner
            session.claims[claim.claim] = None
            claim.chain = 0  # which of the new owner's flows of control has it now is not known
            if not claim.ttl_ms:  # it lives with its new session, even if it was overdue and kept by a pin
                claim.detached, claim.ends_at_ms = False, claim.hold_until_ms
                if claim.hold_until_ms > self._book.clock_ms:
                    self._deadlines.add(claim.hold_until_ms, LEASE_ENDS, claim.claim)
            self.changed[claim.claim] = None
            self._book.emit_claim("adopted", claim, expires_at_ms=self.expires_at_ms(claim))
        return self.status(claim)

    def amend(self, operation: Amend, session: Session) -> Result:
        """Make a claim smaller in its place, or change its data or its patience (YDB's repeated acquire)."""
        claim = self.all.get(operation.claim)
        if claim is None or (claim.session != session.record.session and not claim.detached):
            return NotHeld()
        smaller = self._smaller(claim, operation)
        if isinstance(smaller, Failed):
            return smaller
        queues = self.queues_of(claim.namespace)
        old, held = claim.resources, claim.token > 0
        for before, after in zip(old, smaller, strict=True):
            if before != after:
                queues.shrink(claim.claim, before, after, held=held)
        claim.resources = smaller
        if operation.new_data:
            self._book.room.taken += len(operation.data) - len(claim.data)
            claim.data = operation.data
        if not held and operation.wait_ms not in (KEEP, 0):
            claim.ends_at_ms = 0 if operation.wait_ms == FOREVER else self._book.clock_ms + operation.wait_ms
            if claim.ends_at_ms:
                self._deadlines.add(claim.ends_at_ms, WAIT_ENDS, claim.claim)
        self.changed[claim.claim] = None
        self._book.emit_claim("amended", claim, expires_at_ms=self.expires_at_ms(claim))
        if old != smaller:
            self.serve(claim.namespace, smaller)
        if operation.wait_ms == 0 and not claim.token:
            self.end(claim, "timed_out")
            return ClaimStatus(claim.claim, ClaimPhase.GONE, 0, 0, 0)
        return self.status(claim)

    def _smaller(self, claim: ClaimRecord, operation: Amend) -> tuple[Resource, ...] | Failed:
        resources = claim.resources
        if operation.count != KEEP:
            counted = [resource for resource in resources if resource.mode == Mode.COUNT]
            if len(counted) != 1 or operation.count > counted[0].count:
                most = counted[0].count if len(counted) == 1 else 0
                return failed(CANNOT_GROW, f"the claim has {most} units and can have fewer, not {operation.count}")
            new = Resource(counted[0].path, Mode.COUNT, operation.count, counted[0].limit)
            resources = tuple([new if resource is counted[0] else resource for resource in resources])
        if operation.to_read:
            resources = tuple(
                [Resource(each.path, Mode.READ) if each.mode == Mode.WRITE else each for each in resources]
            )
        return resources

    # --- granting and ending -----------------------------------------------------------------------------------------

    def add(self, claim: ClaimRecord) -> None:
        """Take in a claim that waits, or, from a record, one that is granted."""
        self._take_in(claim)
        queues = self.queues_of(claim.namespace)
        if claim.watermark:
            queues.observe(claim.claim, claim.resources[0].path)
        elif claim.token:
            queues.hold(claim.claim, claim.resources, waited=False)
            self.by_token[claim.token] = claim.claim
            self._tokens[claim.claim] = claim.token
        else:
            queues.wait(claim.claim, claim.resources)
        if claim.ends_at_ms > self._book.clock_ms:
            kind = LEASE_ENDS if claim.token else WAIT_ENDS
            self._deadlines.add(claim.ends_at_ms, kind, claim.claim)
        self.changed[claim.claim] = None

    def _take_in(self, claim: ClaimRecord) -> None:
        self.all[claim.claim] = claim
        self._book.room.take(claim)
        self.numbers.append(claim.claim)
        self._namespaces.count_claim(claim.namespace, 1)
        if claim.session:
            self._sessions[claim.session].claims[claim.claim] = None
            self._join_chain(claim)

    def _grant(self, claim: ClaimRecord, *, waited: bool) -> None:
        header, clock_ms = self._book.header, self._book.clock_ms
        self.queues_of(claim.namespace).hold(claim.claim, claim.resources, waited=waited)
        header.last_token += 1
        claim.token = header.last_token
        claim.since_ms = clock_ms
        claim.hold_until_ms = clock_ms + claim.max_hold_ms if claim.max_hold_ms else 0
        ends = [at_ms for at_ms in (claim.ttl_ms and clock_ms + claim.ttl_ms, claim.hold_until_ms) if at_ms]
        claim.ends_at_ms = min(ends, default=0)
        self.by_token[claim.token] = claim.claim
        self._tokens[claim.claim] = claim.token
        if claim.ends_at_ms:
            self._deadlines.add(claim.ends_at_ms, LEASE_ENDS, claim.claim)
        self.changed[claim.claim] = None
        self._lapses.forget(claim.namespace, claim.resources)
        self._book.emit_claim("granted", claim, expires_at_ms=self.expires_at_ms(claim))

    def end(self, claim: ClaimRecord, kind: str, *, notify: bool = False, why: str = "") -> None:
        """Take a claim out of its queues, and grant what it stood before."""
        number, namespace = claim.claim, claim.namespace
        self._leave_session(
            claim, ClaimStatus(number, ClaimPhase.GONE, claim.token, 0, 0, why=why or kind) if notify else None
        )
        del self.all[number]
        self._book.room.give(claim)
        self._namespaces.count_claim(namespace, -1)
        self.changed[number] = None
        self._book.emit_claim(kind, claim, why=why)
        queues = self.queues_of(namespace)
        if claim.watermark:
            queues.look_away(number, claim.resources[0].path)
        elif not claim.token:
            queues.leave(number, claim.resources)
            self.serve(namespace, claim.resources)
        else:
            del self.by_token[claim.token]
            self._end_grant(claim, kind, why)
        self.drop_empty(namespace)

    def _end_grant(self, claim: ClaimRecord, kind: str, why: str) -> None:
        delay_ms = self._namespaces.config(claim.namespace).lock_delay_ms if kind in UNCLEAN else 0
        if kind in UNCLEAN:
            number = self._lapses.add(claim, why or kind, delay_ms)
            if delay_ms:
                self._deadlines.add(self._book.clock_ms + delay_ms, NAME_OPENS, number)
                return
        self.open(claim.claim, claim.namespace, claim.resources)

    def open(self, number: int, namespace: str, resources: tuple[Resource, ...]) -> None:
        """Let others have what a grant held that has ended."""
        del self._tokens[number]
        self.queues_of(namespace).give_up(number, resources)
        self.serve(namespace, resources, ended=True)
        self._free_observers(namespace, resources)
        self.drop_empty(namespace)

    def hold_closed(self, lapsed: LapsedRecord) -> None:
        """Keep the names of a lease closed that has lapsed; from a record."""
        self._tokens[lapsed.claim] = lapsed.token
        self.queues_of(lapsed.namespace).hold(lapsed.claim, lapsed.resources, waited=False)

    def serve(self, namespace: str, resources: tuple[Resource, ...], *, ended: bool = False) -> None:
        """Grant what a change on these, or the end of a grant, has left free, in the order of arrival (P7)."""
        queues = self.queues_of(namespace)
        heads = sorted(queues.may_be_ready(resources, ended=ended))  # and so a heap
        while heads:
            claim = self.all[heapq.heappop(heads)]
            if claim.token or not queues.ready(claim.claim, claim.resources):
                continue
            self._grant(claim, waited=True)
            self._book.notify(claim.session, self.status(claim))  # a claim leaves its queue when its session ends
            if any(resource.mode != Mode.WRITE for resource in claim.resources):
                for head in queues.may_be_ready(claim.resources):  # those behind it may share with it
                    heapq.heappush(heads, head)

    def _free_observers(self, namespace: str, resources: tuple[Resource, ...]) -> None:
        queues = self.queues_of(namespace)
        for number in sorted(dict.fromkeys(queues.may_be_free(resources))):
            observer = self.all[number]
            if queues.free(observer.resources[0].path, observer.watermark, self._tokens):
                self.end(observer, "cancelled", notify=True, why=FREE)

    def _leave_session(self, claim: ClaimRecord, told: ClaimStatus | None) -> None:
        session = self._sessions.get(claim.session)
        if session is not None:
            del session.claims[claim.claim]
            if told is not None:
                self._book.notify(claim.session, told)
        chain = self.chains.get((claim.session, claim.chain))
        if chain is not None:
            chain.pop(claim.claim, None)
            if not chain:
                del self.chains[claim.session, claim.chain]

    def _join_chain(self, claim: ClaimRecord) -> None:
        if claim.chain:
            self.chains.setdefault((claim.session, claim.chain), {})[claim.claim] = None

    # --- time --------------------------------------------------------------------------------------------------------

    def due(self, number: int, kind: int, deadline_ms: int) -> None:
        """End what is overdue: a lease, or the patience of one that waits."""
        claim = self.all.get(number)
        if claim is None or (claim.token == 0) != (kind == WAIT_ENDS) or not claim.ends_at_ms:
            return
        if claim.ends_at_ms > deadline_ms:  # renewed since
            self._deadlines.add(claim.ends_at_ms, kind, number)
        elif kind == WAIT_ENDS:
            self.end(claim, "timed_out", notify=True)
        elif not self._pins.pinned(claim):
            self.end(claim, "expired", notify=True, why=self._why_expired(claim))

    def _why_expired(self, claim: ClaimRecord) -> str:
        return HELD_LONG if claim.ends_at_ms == claim.hold_until_ms else ""

    def unpinned(self, namespace: str, path: tuple[str, ...]) -> None:
        """End what was kept by a pin alone."""
        for number in self.queues_of(namespace).claims_on(path):
            claim = self.all.get(number)
            if claim is None or not claim.token or self._pins.pinned(claim):
                continue
            if 0 < claim.ends_at_ms <= self._book.clock_ms:
                self.end(claim, "expired", notify=True, why=OVERDUE)
        self.drop_empty(namespace)

    def end_of_session(self, session: Session, kind: str) -> int:
        """End the claims of a session that ends; return how many grants were released.

        A grant with a ttl outlives the *expiry* of its session as a detached lease: its ttl is a promise (P4). So does
        one that is pinned, until it is not.
        """
        released = 0
        claims = [self.all[claim] for claim in sorted(session.claims)]
        # first those that wait, the last first, lest one is granted by the end of another
        for claim in reversed(claims):
            if claim.token == 0:
                self.end(claim, "cancelled")
        for claim in claims:
            if claim.token == 0:
                continue
            expired = kind == "session_expired"
            if claim.detached or (expired and (claim.ttl_ms or self._pins.pinned(claim))):
                self._leave_session(claim, None)
                if not claim.ttl_ms:  # overdue from now on, and kept by its pin, however long it might have been held
                    claim.ends_at_ms = min(claim.ends_at_ms or self._book.clock_ms, self._book.clock_ms)
                claim.detached, claim.session = True, 0
                self.changed[claim.claim] = None
            else:
                released += 1
                self.end(claim, "expired" if expired else "released", why="its session expired" if expired else "")
        return released

    # --- reading -----------------------------------------------------------------------------------------------------

    def granted(self, token: int) -> ClaimRecord | None:
        """Return the claim that is held under a token."""
        number = self.by_token.get(token)
        return None if number is None else self.all[number]

    def expires_at_ms(self, claim: ClaimRecord) -> int:
        """Return when a grant ends if nothing is done for it, 0 for a claim that waits."""
        if claim.token == 0:
            return 0
        if claim.ttl_ms or not claim.session:
            return claim.ends_at_ms
        session_ms = self._sessions[claim.session].record.expires_at_ms
        return min(session_ms, claim.ends_at_ms) if claim.ends_at_ms else session_ms

    def status(self, claim: ClaimRecord, count_max: int | None = None) -> ClaimStatus:
        """Return where a claim stands. Places are counted up to `count_max` or the limit; beyond, none is known."""
        if claim.token:
            return ClaimStatus(
                claim.claim,
                ClaimPhase.HELD,
                claim.token,
                self.expires_at_ms(claim),
                0,
                claim.ttl_ms,
                claim.hold_until_ms,
            )
        ahead = 0
        if not claim.watermark:
            most = limits.WAITERS_COUNTED_MAX if count_max is None else count_max
            ahead = self.queues_of(claim.namespace).ahead(claim.claim, claim.resources, most)
            ahead = ahead if ahead < most else limits.WAITERS_COUNTED_MAX
        return ClaimStatus(claim.claim, ClaimPhase.WAITING, 0, 0, ahead, claim.ttl_ms)

    def status_for(self, number: int, session: Session, count_max: int) -> ClaimStatus:
        """Return where a claim stands that a session asks for as its own."""
        claim = self.all.get(number)
        if claim is None or claim.session != session.record.session:
            return ClaimStatus(number, ClaimPhase.GONE, 0, 0, 0, why=self._lapses.why(number))
        return self.status(claim, count_max)

    def outdated(self, number: int, kind: int) -> bool:
        """Return whether a deadline stands for nothing any more."""
        claim = self.all.get(number)
        return claim is None or (claim.token == 0) != (kind == WAIT_ENDS) or not claim.ends_at_ms

    def queues_of(self, namespace: str) -> Queues:
        """Return the queues of a namespace."""
        queues = self.queues.get(namespace)
        if queues is None:
            queues = self.queues[namespace] = Queues()
        return queues

    def drop_empty(self, namespace: str) -> None:
        """Forget the queues of a namespace in which there is nothing."""
        queues = self.queues.get(namespace)
        if queues is not None and queues.empty():
            del self.queues[namespace]

    def weed(self) -> None:
        """Forget the numbers of claims that have ended."""
        if len(self.numbers) > 2 * len(self.all) + 1000:
            self.numbers = list(self.all)

    def restored(self) -> None:
        """Put claims that were taken in from records into the order of their numbers, everywhere."""
        self.numbers = sorted(self.all)
        self.all = {number: self.all[number] for number in self.numbers}
        self.by_token = {token: self.by_token[token] for token in sorted(self.by_token)}

    def record(self, number: int) -> ClaimRecord | None:
        """Return a claim as it is kept on disk, None if it has ended."""
        return self.all.get(number)

    def records(self) -> list[ClaimRecord]:
        """Return every claim in the order of their numbers."""
        return [self.all[number] for number in sorted(self.all)]


def _too_long(ttl_ms: int, most_ms: int) -> Failed:
    return failed(TTL_TOO_LONG, f"the namespace allows a ttl up to {in_seconds(most_ms)}, not {in_seconds(ttl_ms)}")


def _place(namespace: str, path: tuple[str, ...]) -> str:
    return f"{shown(path)} in namespace {namespace!r}" if path else f"the whole namespace {namespace!r}"
