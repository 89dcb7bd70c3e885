"""The lease model once more, as naively as can be: lists that are searched from end to end, no index, no heap.

Here are claims, and the time of everything; `lease_model_whole.py` adds sessions and what stands beside the claims.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT
from lessor.core.commands import FOREVER, KEEP, Amend, Claim, NamespaceConfig
from lessor.core.events import Event
from lessor.core.requests import Notice
from lessor.core.resources import Mode, Resource, reduced
from lessor.core.results import (
    FAILURES,
    ClaimPhase,
    ClaimStatus,
    DeadlockDetected,
    Denied,
    Failed,
    NotHeld,
    Renewed,
    Result,
)

from .naive_queues import Path, overlap, share

HELD, WAITING, GONE = ClaimPhase.HELD, ClaimPhase.WAITING, ClaimPhase.GONE
LEASE, OPENS, WAIT, SESSION = range(4)  # the order of what is due at the same moment


@dataclass
class Party:
    """A session."""

    number: int
    key: bytes
    timeout_ms: int
    namespace: str
    expires_at_ms: int
    attach: int = 0
    acked_below: int = 0
    refused_below: int = 0
    answers: dict[int, Result] = field(default_factory=dict)


@dataclass
class Wish:
    """A claim; with a token it is held. One that has lapsed may still keep its names closed."""

    number: int
    asked: Claim
    resources: tuple[Resource, ...]
    session: int
    chain: int
    detached: bool
    ttl_ms: int
    since_ms: int
    ends_at_ms: int = 0  # 0: has no end of its own
    token: int = 0
    hold_until_ms: int = 0
    watermark: int = 0
    closed_until_ms: int = 0
    ended_at_ms: int = 0
    why: str = ""

    @property
    def namespace(self) -> str:
        return self.asked.namespace

    @property
    def observes(self) -> bool:
        return self.resources[0].mode == Mode.OBSERVE


@dataclass
class Seen:
    """What one entry brought about."""

    answers: list[tuple[int, Result]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


def failed(code: str) -> Failed:
    """A failure without its detail: that is for people."""
    return Failed(code, FAILURES[code])


class ClaimsModel:
    """What claims should do."""

    def __init__(self) -> None:
        self.slot = self.clock_ms = self.base_ms = self.revision = 0
        self.term = NO_BALLOT
        self.parties: list[Party] = []
        self.wishes: list[Wish] = []
        self.lapses: list[Wish] = []
        self.configs: dict[str, NamespaceConfig] = {}
        self.semaphores: dict[tuple[str, Path], tuple[int, bytes]] = {}
        self.pins: dict[tuple[str, Path], list[str]] = {}
        self.last_session = self.last_claim = self.last_token = 0
        self.seen = Seen()
        self.actual: Result | None = None  # what the state answered, where more than one answer is right

    # --- what is asked of the lists ----------------------------------------------------------------------------------

    def config(self, namespace: str) -> NamespaceConfig:
        return self.configs.get(namespace, NamespaceConfig())

    def party(self, number: int) -> Party | None:
        return next((party for party in self.parties if party.number == number), None)

    def granted(self, token: int) -> Wish | None:
        return next((wish for wish in self.wishes if token and wish.token == token), None)

    def pinned(self, wish: Wish) -> bool:
        return any((wish.namespace, each.path) in self.pins for each in wish.resources)

    def held(self, namespace: str) -> list[Wish]:
        """Who has something there, or keeps it closed, in the order of the tokens."""
        closed = [lapse for lapse in self.lapses if lapse.closed_until_ms]
        having = [wish for wish in (*self.wishes, *closed) if wish.token and wish.namespace == namespace]
        return sorted(having, key=lambda wish: wish.token)

    def waits(self, namespace: str) -> list[Wish]:
        return [wish for wish in self.wishes if not wish.token and not wish.observes and wish.namespace == namespace]

    def blockers(self, wish: Wish) -> list[Wish]:
        """Who keeps a claim from being granted."""
        return [
            other
            for other in (*self.held(wish.namespace), *self.waits(wish.namespace))
            if other is not wish and any(self.blocks(other, wish, resource) for resource in wish.resources)
        ]

    def blocks(self, other: Wish, wish: Wish, resource: Resource) -> bool:
        for has in other.resources:
            if not overlap(has.path, resource.path):
                continue
            if wish.observes:
                if other.token and (other.token <= wish.watermark or len(has.path) > len(resource.path)):
                    return True
            elif not other.token:
                if other.number < wish.number:
                    return True
            elif not share(has, resource) or (has.path == resource.path and not self.fits(wish.namespace, resource)):
                return True
        return False

    def fits(self, namespace: str, resource: Resource) -> bool:
        having = [has for wish in self.held(namespace) for has in wish.resources if has.path == resource.path]
        if Mode.WRITE in (resource.mode, *(has.mode for has in having)):
            return not having
        created, _ = self.semaphores.get((namespace, resource.path), (0, b""))
        limit = created or resource.limit or next((has.limit for has in having if has.limit), 2**63)
        return sum(has.units for has in having) + resource.units <= limit

    def capacity(self, namespace: str, path: Path) -> int:
        """The limit that claims bring with them, 0 if none does."""
        there = (*self.held(namespace), *self.waits(namespace))
        return next((r.limit for wish in there for r in wish.resources if r.path == path and r.limit), 0)

    def shown_end(self, wish: Wish) -> int:
        if not wish.token:
            return 0
        party = self.party(wish.session)
        if wish.ttl_ms or party is None:
            return wish.ends_at_ms
        return min(party.expires_at_ms, wish.ends_at_ms or party.expires_at_ms)

    def status(self, wish: Wish) -> ClaimStatus:
        if wish.token:
            until_ms = wish.hold_until_ms
            return ClaimStatus(wish.number, HELD, wish.token, self.shown_end(wish), 0, wish.ttl_ms, until_ms)
        ahead = 0
        if not wish.observes:
            for other in self.waits(wish.namespace):
                pairs = [(a, b) for a in wish.resources for b in other.resources]
                ahead += other.number < wish.number and any(overlap(a.path, b.path) for a, b in pairs)
        return ClaimStatus(wish.number, WAITING, 0, 0, ahead, wish.ttl_ms)

    # --- asking ------------------------------------------------------------------------------------------------------

    def claim(self, asked: Claim, party: Party, *, strict: bool) -> Result:
        refusal = self.refusal(asked, strict=strict)
        if refusal:
            return failed(refusal)
        resources = reduced(asked.resources)
        wish = Wish(
            self.last_claim + 1,
            asked,
            resources,
            party.number,
            asked.chain,
            asked.detached,
            asked.ttl_ms or self.config(asked.namespace).default_ttl_ms,
            self.clock_ms,
            watermark=self.last_token if resources[0].mode == Mode.OBSERVE else 0,
        )
        blockers = self.blockers(wish)
        if wish.observes and not blockers:
            return ClaimStatus(0, GONE, 0, 0, 0, why="it is free")
        if blockers and not asked.wait_ms:
            return ClaimStatus(0, GONE, 0, 0, 0, why="it is held") if wish.observes else self.denied(wish, blockers)
        if blockers and asked.chain and self.closes_a_circle(wish):
            assert isinstance(self.actual, DeadlockDetected), "the claim closes a circle"
            self.check_circle(wish, self.actual)
            return self.actual
        self.last_claim += 1
        self.wishes.append(wish)
        if not blockers:
            self.grant(wish)
        else:
            wish.ends_at_ms = 0 if asked.wait_ms == FOREVER else self.clock_ms + asked.wait_ms
            if not wish.observes:
                self.tell("queued", wish)
        return self.status(wish)

    def refusal(self, asked: Claim, *, strict: bool) -> str:
        namespace, config = asked.namespace, self.config(asked.namespace)
        if strict and namespace not in self.configs:
            return "no_such_namespace"
        if config.ttl_max_ms and asked.ttl_ms > config.ttl_max_ms:
            return "ttl_too_long"
        closed = [lapse for lapse in self.lapses if lapse.closed_until_ms]
        if config.claims_max and sum(w.namespace == namespace for w in [*self.wishes, *closed]) >= config.claims_max:
            return "too_many"
        for resource in asked.resources:
            if resource.mode != Mode.COUNT:
                continue
            created, _ = self.semaphores.get((namespace, resource.path), (0, b""))
            brought = self.capacity(namespace, resource.path)
            if not resource.limit and not created:
                return "no_such_semaphore"
            if resource.limit and (created or brought not in (0, resource.limit)):
                return "limit_differs"
            if resource.count > (created or resource.limit):
                return "count_too_large"
        return ""

    def denied(self, wish: Wish, blockers: list[Wish]) -> Result:
        """Whoever of those in the way is named, or nobody if only what lies below or a closed name is in the way."""
        named = [Denied(b.asked.holder, b.token, self.shown_end(b)) for b in blockers if b in self.wishes]
        if isinstance(self.actual, Denied) and not self.actual.token and self.actual.why:
            below = any(
                len(has.path) > len(resource.path) and overlap(has.path, resource.path)
                for other in blockers
                for has in other.resources
                for resource in wish.resources
            )
            assert below or any(other.closed_until_ms for other in blockers), "somebody could have been named"
            return self.actual
        return self.actual if isinstance(self.actual, Denied) and self.actual in named else named[0]

    # --- circles -----------------------------------------------------------------------------------------------------

    def flow(self, wish: Wish) -> tuple[int, int] | None:
        return (wish.session, wish.chain) if wish.session and wish.chain else None

    def closes_a_circle(self, wish: Wish) -> bool:
        own, reached = self.flow(wish), {id(wish)}
        if not any(self.flow(other) == own and other.token for other in self.wishes):
            return False
        stand_still = [wish]
        while stand_still:
            for blocker in self.blockers(stand_still.pop()):
                flow = self.flow(blocker) if blocker in self.wishes else None
                if flow == own:
                    return True
                for other in self.wishes:
                    if flow and self.flow(other) == flow and not other.token and id(other) not in reached:
                        reached.add(id(other))
                        stand_still.append(other)
        return False

    def check_circle(self, wish: Wish, found: DeadlockDetected) -> None:
        assert found.circle, "the circle is named"
        for link in found.circle:
            if link.token:
                there = self.granted(link.token)
                assert there is not None, "a link of the circle is held"
                assert (there.asked.holder, there.namespace) == (link.holder, link.namespace)
                assert link.path == there.resources[0].path
        if found.circle[-1].token:
            last = self.granted(found.circle[-1].token)
            assert last is not None, "the last link is held"
            assert self.flow(last) == self.flow(wish), "the last link is the one who asks"

    # --- changing ----------------------------------------------------------------------------------------------------

    def renew(self, token: int, ttl_ms: int) -> Result:
        wish = self.granted(token)
        if wish is None:
            return NotHeld()
        if not wish.ttl_ms:
            return failed("no_ttl")
        most_ms = self.config(wish.namespace).ttl_max_ms
        if most_ms and ttl_ms > most_ms:
            return failed("ttl_too_long")
        ends_at_ms = min(self.clock_ms + (ttl_ms or wish.ttl_ms), wish.hold_until_ms or FOREVER)
        if ends_at_ms > wish.ends_at_ms:
            wish.ends_at_ms = ends_at_ms
            self.tell("renewed", wish, expires_at_ms=ends_at_ms)
        return Renewed(wish.ends_at_ms)

    def adopt(self, token: int, party: Party) -> Result:
        wish = self.granted(token)
        if wish is None:
            return NotHeld()
        if wish.session != party.number:
            gone = ClaimStatus(wish.number, GONE, token, 0, 0, why=f"it was taken over by session {party.number}")
            self.push(wish, gone)
            wish.session, wish.chain = party.number, 0
            if not wish.ttl_ms:
                wish.detached, wish.ends_at_ms = False, wish.hold_until_ms
            self.tell("adopted", wish, expires_at_ms=self.shown_end(wish))
        return self.status(wish)

    def amend(self, change: Amend, party: Party) -> Result:
        wish = next((wish for wish in self.wishes if wish.number == change.claim), None)
        if wish is None or (wish.session != party.number and not wish.detached):
            return NotHeld()
        smaller = list(wish.resources)
        counted = [place for place, each in enumerate(smaller) if each.mode == Mode.COUNT]
        if change.count != KEEP:
            if len(counted) != 1 or change.count > smaller[counted[0]].count:
                return failed("cannot_grow")
            smaller[counted[0]] = replace(smaller[counted[0]], count=change.count)
        if change.to_read:
            smaller = [Resource(each.path, Mode.READ) if each.mode == Mode.WRITE else each for each in smaller]
        wish.resources = tuple(smaller)
        if change.new_data:
            wish.asked = replace(wish.asked, data=change.data)
        if not wish.token and change.wait_ms not in (KEEP, 0):
            wish.ends_at_ms = 0 if change.wait_ms == FOREVER else self.clock_ms + change.wait_ms
        self.tell("amended", wish, expires_at_ms=self.shown_end(wish))
        self.serve(wish.namespace)
        if change.wait_ms == 0 and not wish.token:
            self.end(wish, "timed_out")
            return ClaimStatus(wish.number, GONE, 0, 0, 0)
        return self.status(wish)

    # --- granting and ending -----------------------------------------------------------------------------------------

    def grant(self, wish: Wish) -> None:
        self.last_token += 1
        wish.token, wish.since_ms = self.last_token, self.clock_ms
        wish.hold_until_ms = self.clock_ms + wish.asked.max_hold_ms if wish.asked.max_hold_ms else 0
        ends = [self.clock_ms + wish.ttl_ms] if wish.ttl_ms else []
        wish.ends_at_ms = min([*ends, *([wish.hold_until_ms] if wish.hold_until_ms else [])], default=0)
        paths = [each.path for each in wish.resources]
        self.lapses = [
            lapse
            for lapse in self.lapses
            if lapse.closed_until_ms
            or lapse.namespace != wish.namespace
            or not any(each.path in paths for each in lapse.resources)
        ]
        self.tell("granted", wish, expires_at_ms=self.shown_end(wish))

    def end(self, wish: Wish, kind: str, *, notify: bool = False, why: str = "") -> None:
        self.wishes.remove(wish)
        if notify:
            self.push(wish, ClaimStatus(wish.number, GONE, wish.token, 0, 0, why=why or kind))
        self.tell(kind, wish, why=why)
        if wish.token and kind in ("expired", "broken"):
            delay_ms = self.config(wish.namespace).lock_delay_ms
            wish.closed_until_ms = self.clock_ms + delay_ms if delay_ms else 0
            wish.ended_at_ms, wish.why = self.clock_ms, why or kind
            self.lapses.append(wish)
            self.forget_the_oldest()
        if not wish.observes and not wish.closed_until_ms:
            self.open(wish)

    def forget_the_oldest(self) -> None:
        """Remember so many of the lapses that keep no name closed."""
        opened = [lapse for lapse in self.lapses if not lapse.closed_until_ms]
        for lapse in opened[: max(0, len(opened) - limits.LAPSED_MAX)]:
            self.lapses.remove(lapse)

    def open(self, wish: Wish) -> None:
        """Let others have what nobody holds any more."""
        self.serve(wish.namespace)
        if not wish.token:
            return
        for observer in [one for one in self.wishes if one.observes and one.namespace == wish.namespace]:
            if not self.blockers(observer):
                self.end(observer, "cancelled", notify=True, why="it is free")

    def serve(self, namespace: str) -> None:
        """Grant whatever has nothing before it."""
        while free := [wish for wish in self.waits(namespace) if not self.blockers(wish)]:
            self.grant(free[0])
            self.push(free[0], self.status(free[0]))

    # --- time --------------------------------------------------------------------------------------------------------

    def end_what_is_due(self) -> None:
        """At one moment leases end first, then names open, then patience ends, then sessions."""
        while True:
            due: list[tuple[int, int, int, Wish | Party]] = [
                (wish.ends_at_ms, LEASE if wish.token else WAIT, wish.number, wish)
                for wish in self.wishes
                if wish.ends_at_ms and not (wish.token and self.pinned(wish))
            ]
            opening = [(place, lapse) for place, lapse in enumerate(self.lapses) if lapse.closed_until_ms]
            due += [(lapse.closed_until_ms, OPENS, place, lapse) for place, lapse in opening]
            due += [(party.expires_at_ms, SESSION, party.number, party) for party in self.parties]
            due = sorted(one for one in due if one[0] <= self.clock_ms)
            if not due:
                return
            _, kind, _, what = due[0]
            if isinstance(what, Party):
                self.end_session(what, "session_expired")
            elif kind == OPENS:
                what.closed_until_ms = 0
                self.forget_the_oldest()
                self.open(what)
            elif kind == WAIT:
                self.end(what, "timed_out", notify=True)
            else:
                bound = what.ends_at_ms == what.hold_until_ms
                self.end(what, "expired", notify=True, why="it was held for as long as it may be" if bound else "")

    def end_session(self, party: Party, kind: str) -> int:
        """What waits goes first, the last first; then what is held, unless it is detached, pinned, or promised."""
        expired, released = kind == "session_expired", 0
        mine = [wish for wish in self.wishes if wish.session == party.number]
        for wish in [wish for wish in reversed(mine) if not wish.token]:
            self.end(wish, "cancelled")
        for wish in [wish for wish in mine if wish.token]:
            if wish.detached or (expired and (wish.ttl_ms or self.pinned(wish))):
                if not wish.ttl_ms:
                    wish.ends_at_ms = min(wish.ends_at_ms or self.clock_ms, self.clock_ms)
                wish.detached, wish.session = True, 0
            else:
                released += 1
                why = "its session expired" if expired else ""
                self.end(wish, "expired" if expired else "released", why=why)
        self.parties.remove(party)
        self.tell(kind, session=party.number, namespace=party.namespace)
        return released

    # --- telling -----------------------------------------------------------------------------------------------------

    def push(self, wish: Wish, status: ClaimStatus) -> None:
        if self.party(wish.session):
            self.seen.notices.append(Notice(wish.session, self.clock_ms, status))

    def tell(
        self,
        kind: str,
        wish: Wish | None = None,
        *,
        session: int = 0,
        namespace: str = "",
        path: Path = (),
        token: int = 0,
        holder: str = "",
        expires_at_ms: int = 0,
        why: str = "",
    ) -> None:
        self.revision += 1
        first = (self.revision, self.slot, self.clock_ms, kind)
        if wish is None:
            about: tuple[Any, ...] = (namespace, path, 0, token, session, holder)
            others: tuple[Path, ...] = ()
        else:
            paths = [each.path for each in wish.resources]
            about = (wish.namespace, paths[0], wish.number, wish.token, wish.session, wish.asked.holder)
            others = tuple(paths[1:])
        values: list[Any] = [*first, *about, expires_at_ms, others, why]
        self.seen.events.append(Event(*values))
