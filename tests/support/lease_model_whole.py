"""The naive lease model, whole: sessions, kept answers, and what stands beside the claims."""

import copy
from functools import lru_cache
from typing import Any

from lessor.core import limits
from lessor.core.commands import (
    ANY_VERSION,
    ATTACH_STEP,
    KEEP,
    LOOKS,
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
    EndSession,
    EraseRegister,
    GetRegister,
    HeldBy,
    KeepAlive,
    ListClaims,
    NamespaceConfig,
    OpenSession,
    Operation,
    Pin,
    Ping,
    PutRegister,
    RegisterIs,
    Release,
    Renew,
    TokenHeld,
    Transact,
    Unheld,
    Unpin,
    UpdateSemaphore,
    Validate,
)
from lessor.core.encoding import decode
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.lease_state import Outcome
from lessor.core.resources import Mode
from lessor.core.results import (
    Cancelled,
    ClaimInfo,
    ClaimPage,
    ClaimStatus,
    Declined,
    Done,
    Failed,
    KeptAlive,
    NotHeld,
    Pong,
    Register,
    Released,
    Result,
    SessionClosed,
    SessionOpened,
    Transacted,
    Valid,
    VersionDiffers,
)

from .lease_model import GONE, HELD, WAITING, ClaimsModel, Party, Seen, Wish, failed
from .naive_queues import Path, overlap

TURN: dict[type, int] = {Release: 1, Unpin: 2}
"""What ends grants comes last in a transaction."""


class LeaseModel(ClaimsModel):
    """What the lease state should do."""

    def __init__(self) -> None:
        super().__init__()
        self.registers: dict[tuple[str, Path], tuple[int, int, bytes]] = {}  # version, token, data
        self.strict = False

    def apply(self, entry: Entry, outcome: Outcome) -> Seen:
        """Apply an entry; the outcome is asked only where more than one answer is right."""
        self.slot += 1
        self.seen = Seen()
        if isinstance(entry, Lead) and entry.ballot > self.term:
            self.term, self.base_ms = entry.ballot, self.clock_ms
            self.give_grace()
        elif isinstance(entry, Batch) and entry.term == self.term:
            self.clock_ms = self.base_ms + entry.elapsed_ms
            self.end_what_is_due()
            self.sweep()
            for data, (_, self.actual) in zip(entry.commands, outcome.answers, strict=True):
                command = read(data)
                self.seen.answers.append((command.tag, self.answer(command)))
        return self.seen

    def give_grace(self) -> None:
        for party in self.parties:
            grace_ms = self.config(party.namespace).session_grace_ms
            if grace_ms:
                until_ms = self.clock_ms + party.timeout_ms + grace_ms
                party.expires_at_ms = max(party.expires_at_ms, until_ms)

    def sweep(self) -> None:
        """Forget what lapsed, keeps no name closed and has been readable for long enough."""
        late_ms = self.clock_ms - limits.LAPSED_KEPT_MS
        self.lapses = [one for one in self.lapses if one.closed_until_ms or one.ended_at_ms > late_ms]

    # --- sessions ----------------------------------------------------------------------------------------------------

    def open_session(self, asked: OpenSession) -> Result:
        party = next((party for party in self.parties if party.key == asked.key), None)
        if party is None:
            self.last_session += 1
            until_ms = self.clock_ms + asked.timeout_ms
            party = Party(self.last_session, asked.key, asked.timeout_ms, asked.namespace, until_ms)
            self.parties.append(party)
            self.tell("session_opened", session=party.number, namespace=party.namespace, expires_at_ms=until_ms)
        self.keep_alive(party)
        return SessionOpened(party.number, party.expires_at_ms, party.attach)

    def attach(self, asked: AttachSession) -> Result:
        party = self.party(asked.session)
        if party is None:
            return failed("session_expired")
        rotates = asked.new_key != b""
        again = rotates and asked.new_key == party.key and asked.attach == party.attach
        if not again:
            if party.key != asked.key:
                return failed("out_of_sequence" if rotates and asked.attach <= party.attach else "wrong_key")
            if asked.attach < party.attach or (rotates and asked.attach == party.attach):
                return failed("out_of_sequence")
            if any(other.key == asked.new_key for other in self.parties):
                return failed("wrong_key")
        if asked.attach > party.attach:
            party.attach, party.answers = asked.attach, {}
            party.key = asked.new_key or party.key
            party.acked_below = party.refused_below = asked.attach * ATTACH_STEP
        party.timeout_ms = asked.timeout_ms
        self.keep_alive(party)
        until_ms = party.expires_at_ms
        self.tell("session_attached", session=party.number, namespace=party.namespace, expires_at_ms=until_ms)
        # a session of these tales has few claims: they are all on the first page
        claims = tuple(self.info(wish) for wish in self.wishes if wish.session == party.number)
        return SessionOpened(party.number, party.expires_at_ms, party.attach, claims)

    def keep_alive(self, party: Party, acked_below: int = 0) -> int:
        party.expires_at_ms = max(party.expires_at_ms, self.clock_ms + party.timeout_ms)
        party.acked_below = max(party.acked_below, acked_below)
        party.answers = {number: kept for number, kept in party.answers.items() if number >= party.acked_below}
        return party.expires_at_ms

    def many_alive(self, pings: tuple[int, ...]) -> Result:
        until_ms = []
        for session, number, acked_below, proof in zip(*[iter(pings)] * 4, strict=True):
            party = self.party(session)
            refused = self.refused(party, number, proof)
            if party is None or refused:
                until_ms.append(1 if refused == "session_stolen" else 0)
            else:
                until_ms.append(self.keep_alive(party, acked_below))
        return KeptAlive(tuple(until_ms))

    def refused(self, party: Party | None, number: int, proof: int) -> str:
        """Why a request is not carried out: it is of somebody who had the session before, or who never had it."""
        if party is None:
            return "session_expired"
        if number < party.attach * ATTACH_STEP:
            return "session_stolen"
        early = number >= (party.attach + 1) * ATTACH_STEP
        return "session_expired" if early or proof != int.from_bytes(party.key) >> 65 else ""

    def one_of(self, number: int, party: Party) -> ClaimStatus:
        for wish in self.wishes:
            if wish.number == number and wish.session == party.number:
                return self.status(wish)
        why = next((lapse.why for lapse in self.lapses if lapse.number == number), "")
        return ClaimStatus(number, GONE, 0, 0, 0, why=why)

    # --- commands ----------------------------------------------------------------------------------------------------

    def answer(self, command: Command) -> Result:
        operation = command.operation
        if isinstance(operation, LOOKS):
            return self.look(operation)
        match operation:
            case OpenSession():
                if command.strict and operation.namespace not in (*self.configs, "default"):
                    return failed("no_such_namespace")
                return self.open_session(operation)
            case AttachSession():
                return self.attach(operation)
            case KeepAlive(pings):
                return self.many_alive(pings)
            case EndSession(number):
                party = self.party(number)
                return SessionClosed(0 if party is None else self.end_session(party, "session_closed"))
            case _:
                pass
        party = self.party(command.session)
        refused = self.refused(party, command.number, command.proof)
        if party is None or refused:
            return failed(refused)
        self.keep_alive(party, command.acked_below)
        match operation:
            case Ping(claims):
                return Pong(party.expires_at_ms, tuple(self.one_of(number, party) for number in dict.fromkeys(claims)))
            case CloseSession():
                return SessionClosed(self.end_session(party, "session_closed"))
            case _:
                pass
        if command.number < party.acked_below:
            return failed("stale_number")
        if command.number not in party.answers:
            if command.number < party.refused_below or len(party.answers) >= limits.REPLIES_PER_SESSION_MAX:
                party.refused_below = max(party.refused_below, command.number + 1)
                return failed("too_many")
            self.strict = command.strict
            party.answers[command.number] = self.carry_out(operation, party)
        return party.answers[command.number]

    def carry_out(self, operation: Operation, party: Party) -> Result:
        match operation:
            case Claim():
                return self.claim(operation, party, strict=self.strict)
            case Cancel(number):
                for wish in self.wishes:
                    if wish.number == number and wish.session == party.number:
                        was = HELD if wish.token else WAITING
                        self.end(wish, "released" if wish.token else "cancelled")
                        return Cancelled(was)
                return Cancelled(GONE)
            case Amend():
                return self.amend(operation, party)
            case Renew(token, ttl_ms):
                return self.renew(token, ttl_ms)
            case Adopt(token):
                return self.adopt(token, party)
            case Release(token):
                held = self.granted(token)
                if held is not None:
                    self.end(held, "released", notify=held.session != party.number)
                return NotHeld() if held is None else Released()
            case Break(token, reason):
                held = self.granted(token)
                if held is not None:
                    self.end(held, "broken", notify=True, why=reason)
                return NotHeld() if held is None else Released()
            case Transact():
                return self.transact(operation, party)
            case CreateNamespace() | AlterNamespace() | DropNamespace():
                return self.about_a_namespace(operation, party)
            case _:
                return self.about_a_place(operation)

    # --- places ------------------------------------------------------------------------------------------------------

    def about_a_place(self, operation: Any) -> Result:
        place = (operation.namespace, operation.path)
        match operation:
            case CreateSemaphore(namespace, path, limit, data):
                if self.strict and namespace not in self.configs:
                    return failed("no_such_namespace")
                if place in self.semaphores:
                    return failed("semaphore_exists")
                if self.on(namespace, path):
                    return failed("semaphore_in_use")
                self.semaphores[place] = (limit, data)
                return self.done("semaphore_created", place)
            case UpdateSemaphore(_, _, data):
                if place not in self.semaphores:
                    return failed("no_such_semaphore")
                limit, before = self.semaphores[place]
                self.semaphores[place] = (limit, data)
                return self.done("semaphore_updated", place) if data != before else Done(changed=False)
            case DeleteSemaphore(namespace, path, force):
                if place not in self.semaphores:
                    return failed("no_such_semaphore")
                there = self.on(namespace, path)
                if there and not force:
                    return failed("semaphore_in_use")
                for wish in reversed(there):
                    if wish in self.wishes:
                        kind = "broken" if wish.token else "cancelled"
                        self.end(wish, kind, notify=True, why="the semaphore was deleted")
                del self.semaphores[place]
                return self.done("semaphore_deleted", place)
            case Pin(_, _, entity):
                if entity in self.pins.get(place, []):
                    return Done(changed=False)
                if len(self.pins.get(place, [])) >= limits.PINS_PER_NAME_MAX:
                    return failed("too_many")
                self.pins.setdefault(place, []).append(entity)
                return self.done("pinned", place, holder=entity)
            case Unpin(_, _, entity):
                return self.unpin(place, entity)
            case PutRegister() | EraseRegister():
                return self.write(operation, place)
            case _:
                raise AssertionError(operation)

    def on(self, namespace: str, path: Path) -> list[Wish]:
        """Those who hold this very path, then those who wait for it."""
        there = [*self.held(namespace), *self.waits(namespace)]
        return [wish for wish in there if any(each.path == path for each in wish.resources)]

    def done(self, kind: str, place: tuple[str, Path], token: int = 0, holder: str = "") -> Done:
        self.tell(kind, namespace=place[0], path=place[1], token=token, holder=holder)
        return Done(changed=True)

    def unpin(self, place: tuple[str, Path], entity: str) -> Result:
        if entity not in self.pins.get(place, []):
            return Done(changed=False)
        self.pins[place].remove(entity)
        done = self.done("unpinned", place, holder=entity)
        if self.pins[place]:
            return done
        del self.pins[place]
        for wish in self.on(*place):
            overdue = wish in self.wishes and wish.token and 0 < wish.ends_at_ms <= self.clock_ms
            if overdue and not self.pinned(wish):
                self.end(wish, "expired", notify=True, why="it was overdue, and its last pin is gone")
        return done

    def write(self, operation: PutRegister | EraseRegister, place: tuple[str, Path]) -> Result:
        wish = self.granted(operation.token)
        if wish is None:
            return NotHeld()
        over = [each.path for each in wish.resources if each.mode == Mode.WRITE]
        if wish.namespace != place[0] or not any(place[1][: len(path)] == path for path in over):
            return failed("not_covered")
        version, _, _ = self.registers.get(place, (0, 0, b""))
        if operation.version not in (ANY_VERSION, version):
            return VersionDiffers(version)
        if isinstance(operation, EraseRegister):
            if not version:
                return Done(changed=False)
            del self.registers[place]
            return self.done("erased", place, operation.token, wish.asked.holder)
        self.done("written", place, operation.token, wish.asked.holder)
        self.registers[place] = (self.revision, operation.token, operation.data)
        return Register(self.revision, operation.token, b"")

    # --- transactions ------------------------------------------------------------------------------------------------

    def transact(self, operation: Transact, party: Party) -> Result:
        """Try it all on a copy of the whole model."""
        for index, check in enumerate(operation.checks):
            if not self.holds(check):
                return Declined("check", index, "")
        trial = copy.deepcopy(self)
        if isinstance(trial.try_steps(operation, party.number), Declined):
            return trial.try_outcome
        return self.try_steps(operation, party.number)

    try_outcome: Result

    def try_steps(self, operation: Transact, session: int) -> Result:
        party = self.party(session)
        assert party is not None
        numbered = sorted(enumerate(operation.steps), key=lambda step: TURN.get(type(step[1]), 0))
        results = {index: self.carry_out(step, party) for index, step in numbered}
        bad = [index for index in sorted(results) if isinstance(results[index], Failed | VersionDiffers | NotHeld)]
        done: Any = tuple(results[index] for index in sorted(results))
        self.try_outcome = Declined("step", bad[0], "") if bad else Transacted(done)
        return self.try_outcome

    def holds(self, check: Any) -> bool:
        match check:
            case TokenHeld(token):
                return self.granted(token) is not None
            case HeldBy(namespace, path, holder):
                there = [wish for wish in self.on(namespace, path) if wish in self.wishes and wish.token]
                return any(wish.asked.holder == holder for wish in there)
            case Unheld(namespace, path):
                there = self.held(namespace)
                return not any(overlap(each.path, path) for wish in there for each in wish.resources)
            case RegisterIs(namespace, path, version):
                return self.registers.get((namespace, path), (0,))[0] == version
            case _:
                raise AssertionError(check)

    # --- namespaces --------------------------------------------------------------------------------------------------

    def about_a_namespace(self, operation: CreateNamespace | AlterNamespace | DropNamespace, party: Party) -> Result:
        name = operation.name
        if isinstance(operation, CreateNamespace):
            if name in self.configs:
                return failed("namespace_exists")
            self.configs[name] = changed(NamespaceConfig(), operation.config)
            self.tell("namespace_created", namespace=name)
            return Done(changed=True)
        if name not in self.configs:
            return failed("no_such_namespace")
        if isinstance(operation, AlterNamespace):
            config = changed(self.configs[name], operation.config)
            if 0 < config.ttl_max_ms < config.default_ttl_ms:
                return failed("bad_config")
            if config == self.configs[name]:
                return Done(changed=False)
            self.configs[name] = config
            self.tell("namespace_altered", namespace=name)
            return Done(changed=True)
        shelves: list[dict[tuple[str, Path], Any]] = [self.pins, self.semaphores, self.registers]
        used = any(wish.namespace == name for wish in self.wishes)
        used |= any(place[0] == name for shelf in shelves for place in shelf)
        used |= any(other.namespace == name and other is not party for other in self.parties)
        if used and not operation.force:
            return failed("namespace_in_use")
        for wish in [wish for wish in reversed(self.wishes) if wish.namespace == name]:
            kind = "broken" if wish.token else "cancelled"
            if wish in self.wishes:
                self.end(wish, kind, notify=True, why="its namespace was dropped")
        for shelf in shelves:
            for place in [place for place in shelf if place[0] == name]:
                del shelf[place]
        del self.configs[name]
        self.tell("namespace_dropped", namespace=name)
        return Done(changed=True)

    # --- looking -----------------------------------------------------------------------------------------------------

    def look(self, look: Any) -> Result:
        """What is asked, or what the state has answered where this model says nothing of it."""
        match look:
            case ListClaims(namespace, after, limit):
                wanted = [w for w in self.wishes if w.number > after and namespace in ("", w.namespace)]
                page = tuple(self.info(wish) for wish in wanted[:limit])
                upto = page[-1].claim if len(wanted) > limit else 0
                return ClaimPage(page, sum(not wish.token for wish in wanted[:limit]), upto)
            case Describe(namespace, path):
                assert isinstance(self.actual, ClaimPage)
                near = [w for w in self.wishes if w.namespace == namespace and self.is_near(w, path)]
                shown = {info.claim: info for info in self.actual.claims}
                assert shown == {wish.number: self.info(wish) for wish in near}, "everyone near is shown"
                assert len(shown) == len(self.actual.claims), "and once"
                waiting = [w for w in self.waits(namespace) if any(each.path == path for each in w.resources)]
                assert self.actual.waiting == len(waiting)
                assert self.actual.revision == self.revision
                return self.actual
            case Validate(token):
                wish = self.granted(token)
                return NotHeld() if wish is None else Valid(self.info(wish))
            case GetRegister(namespace, path):
                return Register(*self.registers.get((namespace, path), (0, 0, b"")))
            case _:
                assert self.actual is not None
                return self.actual

    def is_near(self, wish: Wish, path: Path) -> bool:
        """Whether a claim overlaps a path; one that observes concerns the path that it observes and what is above."""
        if wish.observes:
            return wish.resources[0].path == path
        return any(overlap(each.path, path) for each in wish.resources)

    def info(self, wish: Wish) -> ClaimInfo:
        return ClaimInfo(
            claim=wish.number,
            namespace=wish.namespace,
            path=wish.resources[0].path,
            phase=HELD if wish.token else WAITING,
            holder=wish.asked.holder,
            session=wish.session,
            token=wish.token,
            ttl_ms=wish.ttl_ms,
            since_ms=wish.since_ms,
            expires_at_ms=self.shown_end(wish),
            detached=wish.detached,
            data=wish.asked.data,
            resources=wish.resources,
            hold_until_ms=wish.hold_until_ms,
        )


def changed(config: NamespaceConfig, change: NamespaceConfig) -> NamespaceConfig:
    names = ("default_ttl_ms", "ttl_max_ms", "session_grace_ms", "lock_delay_ms", "claims_max")
    new = {name: getattr(change, name) for name in names}
    return NamespaceConfig(**{n: getattr(config, n) if value == KEEP else value for n, value in new.items()})


@lru_cache(maxsize=1000)
def read(data: bytes) -> Command:
    """The command of these bytes; model, teller and watcher all ask for the same ones."""
    command = decode(data)
    assert isinstance(command, Command)
    return command
