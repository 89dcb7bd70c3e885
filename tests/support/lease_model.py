"""The lease model once more, as naively as can be: lists that are searched from end to end, no index, no heap."""

from dataclasses import dataclass, field
from functools import lru_cache

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT
from lessor.core.commands import (
    FOREVER,
    Cancel,
    Claim,
    CloseSession,
    Command,
    Describe,
    ListClaims,
    OpenSession,
    Operation,
    Ping,
    Release,
    Renew,
)
from lessor.core.encoding import decode
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.events import Event
from lessor.core.requests import Notice
from lessor.core.results import (
    FAILURES,
    NO_TTL,
    SESSION_EXPIRED,
    STALE_NUMBER,
    TOO_MANY,
    Cancelled,
    ClaimInfo,
    ClaimPage,
    ClaimPhase,
    ClaimStatus,
    Denied,
    Failed,
    NotHeld,
    Pong,
    Released,
    Renewed,
    Result,
    SessionClosed,
    SessionOpened,
)

HELD, WAITING, GONE = ClaimPhase.HELD, ClaimPhase.WAITING, ClaimPhase.GONE


@dataclass
class Party:
    """A session."""

    number: int
    key: bytes
    timeout_ms: int
    expires_at_ms: int
    acked_below: int = 0
    refused_below: int = 0
    answers: dict[int, Result] = field(default_factory=dict)


@dataclass
class Wish:
    """A claim: with a token it is held."""

    number: int
    asked: Claim
    session: int
    since_ms: int
    detached: bool
    token: int = 0
    ends_at_ms: int = 0  # 0: has no end of its own


@dataclass
class Seen:
    """What one entry brought about."""

    answers: list[tuple[int, Result]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


class LeaseModel:
    """What the lease state should do."""

    def __init__(self) -> None:
        self.slot = self.clock_ms = self.base_ms = self.revision = 0
        self.term = NO_BALLOT
        self.parties: list[Party] = []
        self.wishes: list[Wish] = []
        self.last_session = self.last_claim = self.last_token = 0
        self.seen = Seen()

    def apply(self, entry: Entry) -> Seen:
        self.slot += 1
        self.seen = Seen()
        if isinstance(entry, Lead) and entry.ballot > self.term:
            self.term, self.base_ms = entry.ballot, self.clock_ms
        elif isinstance(entry, Batch) and entry.term == self.term:
            self.clock_ms = self.base_ms + entry.elapsed_ms
            self.end_what_is_due()
            for data in entry.commands:
                command = read(data)
                self.seen.answers.append((command.tag, self.answer(command)))
        return self.seen

    # --- time --------------------------------------------------------------------------------------------------------

    def due(self) -> list[tuple[int, int, Wish | Party]]:
        """All deadlines in their order: at one moment leases end first, then patience, then sessions."""
        found: list[tuple[int, int, Wish | Party]] = []
        found += [(wish.ends_at_ms, 0 if wish.token else 1, wish) for wish in self.wishes if wish.ends_at_ms]
        found += [(party.expires_at_ms, 2, party) for party in self.parties]
        return sorted(found, key=lambda item: (item[0], item[1], item[2].number))

    def end_what_is_due(self) -> None:
        while (due := self.due()) and due[0][0] <= self.clock_ms:
            what = due[0][2]
            if isinstance(what, Party):
                self.end_session(what, "session_expired")
            else:
                self.push(what, ClaimStatus(what.number, GONE, what.token, 0, 0))
                self.end(what, "expired" if what.token else "timed_out")

    # --- sessions ----------------------------------------------------------------------------------------------------

    def party(self, number: int) -> Party | None:
        return next((party for party in self.parties if party.number == number), None)

    def open(self, key: bytes, timeout_ms: int) -> Result:
        for party in self.parties:
            if party.key == key:
                self.keep_alive(party)
                return SessionOpened(party.number, party.expires_at_ms)
        self.last_session += 1
        party = Party(self.last_session, key, timeout_ms, self.clock_ms + timeout_ms)
        self.parties.append(party)
        self.tell("session_opened", session=party.number, expires_at_ms=party.expires_at_ms)
        return SessionOpened(party.number, party.expires_at_ms)

    def keep_alive(self, party: Party) -> None:
        party.expires_at_ms = self.clock_ms + party.timeout_ms

    def end_session(self, party: Party, kind: str) -> int:
        """What waits goes first; then what is held, unless it is detached, or its ttl is still a promise."""
        mine = [wish for wish in self.wishes if wish.session == party.number]
        for wish in [wish for wish in mine if not wish.token]:
            self.end(wish, "cancelled")
        released = 0
        for wish in [wish for wish in mine if wish.token]:
            if wish.detached or (kind == "session_expired" and wish.asked.ttl_ms):
                wish.detached, wish.session = True, 0
            else:
                released += 1
                self.end(wish, "released" if kind == "session_closed" else "expired")
        self.parties.remove(party)
        self.tell(kind, session=party.number)
        return released

    # --- commands ----------------------------------------------------------------------------------------------------

    def answer(self, command: Command) -> Result:
        operation = command.operation
        match operation:
            case OpenSession():
                return self.open(operation.key, operation.timeout_ms)
            case Describe(namespace, path):
                queue = [wish for wish in self.wishes if key(wish) == (namespace, path)]
                page = tuple(self.info(wish) for wish in queue[: limits.LIST_PAGE_MAX])
                upto = page[-1].claim if len(queue) > len(page) else 0
                return ClaimPage(page, sum(not wish.token for wish in queue), upto)
            case ListClaims(namespace, after, limit):
                wanted = [wish for wish in self.wishes if wish.number > after]
                wanted = [wish for wish in wanted if namespace in ("", wish.asked.namespace)]
                page = tuple(self.info(wish) for wish in wanted[:limit])
                upto = page[-1].claim if len(wanted) > limit else 0
                return ClaimPage(page, sum(not wish.token for wish in wanted[:limit]), upto)
            case _:
                pass
        party = self.party(command.session)
        if party is None:
            return Failed(SESSION_EXPIRED, FAILURES[SESSION_EXPIRED])
        self.keep_alive(party)
        party.acked_below = max(party.acked_below, command.acked_below)
        party.answers = {number: kept for number, kept in party.answers.items() if number >= party.acked_below}
        match operation:
            case Ping(claims):
                return Pong(party.expires_at_ms, tuple(self.status(number, party.number) for number in claims))
            case CloseSession():
                return SessionClosed(self.end_session(party, "session_closed"))
            case _:
                pass
        if command.number < party.acked_below:
            return Failed(STALE_NUMBER, FAILURES[STALE_NUMBER])
        if command.number not in party.answers:
            if command.number < party.refused_below or len(party.answers) >= limits.REPLIES_PER_SESSION_MAX:
                party.refused_below = max(party.refused_below, command.number + 1)
                return Failed(TOO_MANY, FAILURES[TOO_MANY])
            party.answers[command.number] = self.carry_out(operation, party)
        return party.answers[command.number]

    def carry_out(self, operation: Operation, party: Party) -> Result:
        match operation:
            case Claim():
                return self.claim(operation, party)
            case Cancel(number):
                for wish in self.wishes:
                    if wish.number == number and wish.session == party.number:
                        self.end(wish, "released" if wish.token else "cancelled")
                        return Cancelled(HELD if wish.token else WAITING)
                return Cancelled(GONE)
            case Renew(token, ttl_ms):
                for wish in self.wishes:
                    if token and wish.token == token:
                        return self.renew(wish, ttl_ms)
                return NotHeld()
            case Release(token):
                for wish in self.wishes:
                    if token and wish.token == token:
                        if wish.session != party.number:
                            self.push(wish, ClaimStatus(wish.number, GONE, wish.token, 0, 0))
                        self.end(wish, "released")
                        return Released()
                return NotHeld()
            case _:
                raise AssertionError(operation)

    def claim(self, asked: Claim, party: Party) -> Result:
        place = (asked.namespace, asked.resources[0].path)
        for wish in self.wishes:
            if key(wish) == place and not asked.wait_ms:
                return Denied(wish.asked.holder, wish.token, self.shown_end(wish))
        self.last_claim += 1
        wish = Wish(self.last_claim, asked, party.number, self.clock_ms, asked.detached)
        self.wishes.append(wish)
        self.grant_what_is_free()
        if not wish.token:
            wish.ends_at_ms = 0 if asked.wait_ms == FOREVER else self.clock_ms + asked.wait_ms
            self.tell("queued", wish)
        return self.status(wish.number, party.number)

    def renew(self, wish: Wish, ttl_ms: int) -> Result:
        if not wish.asked.ttl_ms:
            return Failed(NO_TTL, FAILURES[NO_TTL])
        ends_at_ms = self.clock_ms + (ttl_ms or wish.asked.ttl_ms)
        if ends_at_ms > wish.ends_at_ms:
            wish.ends_at_ms = ends_at_ms
            self.tell("renewed", wish, expires_at_ms=ends_at_ms)
        return Renewed(wish.ends_at_ms)

    # --- claims ------------------------------------------------------------------------------------------------------

    def end(self, wish: Wish, kind: str) -> None:
        self.wishes.remove(wish)
        self.tell(kind, wish)
        for granted in self.grant_what_is_free():
            self.push(granted, self.status(granted.number, granted.session))

    def grant_what_is_free(self) -> list[Wish]:
        """Grant whatever has nothing on its name before it."""
        granted = []
        for place, wish in enumerate(self.wishes):
            if not wish.token and all(key(before) != key(wish) for before in self.wishes[:place]):
                self.last_token += 1
                wish.token, wish.since_ms = self.last_token, self.clock_ms
                wish.ends_at_ms = self.clock_ms + wish.asked.ttl_ms if wish.asked.ttl_ms else 0
                self.tell("granted", wish, expires_at_ms=self.shown_end(wish))
                granted.append(wish)
        return granted

    def shown_end(self, wish: Wish) -> int:
        if not wish.token or wish.ends_at_ms:
            return wish.ends_at_ms if wish.token else 0
        party = self.party(wish.session)
        assert party is not None, "what has no ttl has a session"
        return party.expires_at_ms

    def status(self, number: int, session: int) -> ClaimStatus:
        for place, wish in enumerate(self.wishes):
            if wish.number == number and wish.session == session:
                if wish.token:
                    return ClaimStatus(number, HELD, wish.token, self.shown_end(wish), 0)
                ahead = sum(key(before) == key(wish) for before in self.wishes[:place]) - 1
                return ClaimStatus(number, WAITING, 0, 0, ahead)
        return ClaimStatus(number, GONE, 0, 0, 0)

    def info(self, wish: Wish) -> ClaimInfo:
        asked, phase = wish.asked, HELD if wish.token else WAITING
        return ClaimInfo(
            wish.number,
            *key(wish),
            phase,
            asked.holder,
            wish.session,
            wish.token,
            asked.ttl_ms,
            wish.since_ms,
            self.shown_end(wish),
            wish.detached,
            asked.data,
        )

    # --- telling -----------------------------------------------------------------------------------------------------

    def push(self, wish: Wish, status: ClaimStatus) -> None:
        if self.party(wish.session):
            self.seen.notices.append(Notice(wish.session, self.clock_ms, status))

    def tell(self, kind: str, wish: Wish | None = None, *, session: int = 0, expires_at_ms: int = 0) -> None:
        self.revision += 1
        about: tuple[str, tuple[str, ...], int, int, int, str] = ("", (), 0, 0, session, "")
        if wish:
            about = (*key(wish), wish.number, wish.token, wish.session, wish.asked.holder)
        self.seen.events.append(Event(self.revision, self.slot, self.clock_ms, kind, *about, expires_at_ms))


@lru_cache(maxsize=1000)
def read(data: bytes) -> Command:
    """The command of these bytes; model, teller and watcher all ask for the same ones."""
    command = decode(data)
    assert isinstance(command, Command)
    return command


def key(wish: Wish) -> tuple[str, tuple[str, ...]]:
    """The name that is wished for."""
    return wish.asked.namespace, wish.asked.resources[0].path
