"""Random short histories of the lease state, each from one seed, run beside the naive model; shrunk when they fail."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from lessor.core.ballot import Ballot
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
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Entry, Lead, NoOp
from lessor.core.lease_state import LeaseState, Outcome
from lessor.core.resources import Resource
from lessor.core.results import Failed, Renewed, SessionOpened

from .lease_model import LeaseModel, read
from .leases import check_consistent, check_nothing_overdue

KEYS = [bytes([letter]) * 16 for letter in b"abcd"]
NAMES = "xyz"
TTLS_MS = (0, 0, 100, 250, 1000, 4000, 4000, 20_000)
WAITS_MS = (0, 0, FOREVER, FOREVER, 200, 1000)
TIMEOUTS_MS = (500, 1500, 6000, 60_000, 60_000)


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of a history; `restart` puts the state through its snapshot before it."""

    entry: Entry
    restart: bool = False

    def __str__(self) -> str:
        """Print commands as what they are."""
        if not isinstance(self.entry, Batch):
            shown = str(self.entry)
        else:
            commands = ", ".join(str(read(data)) for data in self.entry.commands)
            shown = f"Batch({self.entry.term}, {self.entry.elapsed_ms} ms, [{commands}])"
        return ("restart, " if self.restart else "") + shown


class Teller:
    """Makes up the steps of one history; it looks at the model, so that what it makes up often hits something."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.model = LeaseModel()
        self.term, self.elapsed_ms, self.number = Ballot(0, 1), 0, 0
        self.told: list[Command] = []

    def steps(self) -> list[Step]:
        steps = [self.lead(), self.batch([OpenSession(key, self.chance.choice(TIMEOUTS_MS), "") for key in KEYS[:3]])]
        for step in steps:
            self.model.apply(step.entry)
        for _ in range(self.chance.randrange(5, 25)):
            step = replace(self.step(), restart=self.chance.random() < 0.04)
            self.model.apply(step.entry)
            steps.append(step)
        return steps

    def step(self) -> Step:
        dice = self.chance.random()
        if dice < 0.06:
            return self.lead()
        if dice < 0.11:  # a straggler: of a term before, or one that nobody has led
            term = Ballot(max(self.term.counter + self.chance.choice((-2, -1, 0, 1)), 1), self.chance.randrange(4, 6))
            return Step(Batch(term, self.some_ms(), self.commands(self.operations())))
        if dice < 0.14:
            return Step(self.chance.choice((NoOp(), Lead(self.term), Lead(Ballot(self.term.counter - 1, 9)))))
        self.elapsed_ms += self.some_ms()
        return self.batch(self.operations())

    def lead(self) -> Step:
        self.term, self.elapsed_ms = Ballot(self.term.counter + 1, self.chance.randrange(1, 4)), 0
        return Step(Lead(self.term))

    def some_ms(self) -> int:
        due = [deadline_ms - self.model.clock_ms for deadline_ms, _, _ in self.model.due()]
        near = [ms for ms in due if ms < 5000] or [0]
        return self.chance.choice((0, 0, 0, 1, 70, 300, min(near), min(near), self.chance.choice(near), 2000))

    def batch(self, operations: list[Operation]) -> Step:
        return Step(Batch(self.term, self.elapsed_ms, self.commands(operations)))

    def commands(self, operations: list[Operation]) -> tuple[bytes, ...]:
        return tuple(encode(self.command(operation)) for operation in operations)

    def command(self, operation: Operation) -> Command:
        if self.told and self.chance.random() < 0.1:
            return self.chance.choice(self.told)  # a retry
        self.number += 1
        live = [party.number for party in self.model.parties]
        session = self.chance.choice(live) if live and self.chance.random() < 0.95 else self.chance.randrange(9)
        acked_below = max(self.number - self.chance.choice((2, 5, 10, 50)), 0)
        number = self.number if self.chance.random() < 0.97 else self.chance.randrange(1, self.number + 1)
        command = Command(self.number, session, number, acked_below, operation)
        self.told.append(command)
        return command

    def operations(self) -> list[Operation]:
        return [self.operation() for _ in range(self.chance.choice((0, 1, 1, 2, 2, 3, 6)))]

    def operation(self) -> Operation:
        pick = self.chance.choice
        held = [wish.token for wish in self.model.wishes if wish.token]
        wished = [wish.number for wish in self.model.wishes]
        if not held or self.chance.random() < 0.1:
            held, wished = [self.chance.randrange(12)], [self.chance.randrange(12)]
        if not self.model.parties:
            return OpenSession(pick(KEYS), pick(TIMEOUTS_MS), "")
        dice = self.chance.random()
        if dice < 0.45 or (not self.model.wishes and dice < 0.6):
            ttl_ms = pick(TTLS_MS)
            resources = (Resource((pick(NAMES),)),)
            detached = bool(ttl_ms) and self.chance.random() < 0.2
            return Claim(
                pick(("", "", "other")), resources, pick(("ann", "ben")), b"", ttl_ms, pick(WAITS_MS), detached
            )
        if dice < 0.6:
            return Release(pick(held))
        if dice < 0.72:
            return Renew(pick(held), pick((0, 100, 250, 4000)))
        if dice < 0.8:
            return Cancel(pick(wished))
        if dice < 0.88:
            return Ping(tuple(wished))
        if dice < 0.94:
            return OpenSession(pick(KEYS), pick(TIMEOUTS_MS), "")
        if dice < 0.96:
            return CloseSession()
        return pick((Describe("", (pick(NAMES),)), ListClaims(pick(("", "other")), pick((0, pick(wished))), 2)))


class Watcher:
    """Knows nothing but what clients are told, and asserts that it is kept: tokens, exclusion, deadlines."""

    def __init__(self) -> None:
        self.last_token = 0
        self.holds: dict[tuple[str, tuple[str, ...]], int] = {}
        self.promised_ms: dict[int, int] = {}  # by token; 0: as long as the session
        self.session_until_ms: dict[int, int] = {}

    def watch(self, entry: Entry, outcome: Outcome, clock_ms: int) -> None:
        if not outcome.events and not outcome.answers:
            return
        commands = [read(data) for data in entry.commands] if isinstance(entry, Batch) else []
        wished_gone = {command.operation.token for command in commands if isinstance(command.operation, Release)}
        cancelled = {command.operation.claim for command in commands if isinstance(command.operation, Cancel)}
        closed = {command.session for command in commands if isinstance(command.operation, CloseSession)}
        expired = {event.session for event in outcome.events if event.kind == "session_expired"}
        for event in outcome.events:
            place = (event.namespace, event.path)
            match event.kind:
                case "granted":
                    assert event.token > self.last_token, "tokens grow (P5)"
                    assert place not in self.holds, "two hold one name (P3)"
                    self.last_token = self.holds[place] = event.token
                    self.promised_ms[event.token] = event.expires_at_ms
                case "renewed":
                    assert event.expires_at_ms > self.promised_ms[event.token], "renew never shortens (P4)"
                    self.promised_ms[event.token] = event.expires_at_ms
                case "released":
                    assert self.holds.pop(place) == event.token
                    asked = event.token in wished_gone or event.claim in cancelled or event.session in closed
                    assert asked, "nobody asked for this end (P4)"
                case "expired":
                    assert self.holds.pop(place) == event.token
                    early = clock_ms < self.promised_ms[event.token]
                    assert not early or event.session in expired, "ended before its time (P4)"
                case "session_opened":
                    self.session_until_ms[event.session] = event.expires_at_ms
                case "session_expired":
                    assert clock_ms >= self.session_until_ms[event.session], "a session ended before its time (P4)"
                case _:
                    pass
        for _, result in outcome.answers:
            match result:
                case Renewed(expires_at_ms):
                    assert expires_at_ms <= max(self.promised_ms.values()), "a renewal that is not kept (P4)"
                case SessionOpened(session, expires_at_ms):
                    self.session_until_ms[session] = expires_at_ms
                case _:
                    pass


@dataclass
class Met:
    """How often what was met: a swarm that never reached an interesting state has shown nothing."""

    counts: Counter[str] = field(default_factory=Counter)

    def note(self, step: Step, outcome: Outcome) -> None:
        self.counts.update(event.kind for event in outcome.events)
        for _, result in outcome.answers:
            self.counts[f"Failed {result.code}" if isinstance(result, Failed) else type(result).__name__] += 1
        self.counts["restart"] += step.restart
        if isinstance(step.entry, Batch) and step.entry.commands and not outcome.answers:
            self.counts["straggler"] += 1


def run(steps: list[Step], kind: type[LeaseState] = LeaseState, met: Met | None = None) -> None:
    """Run a history; raise AssertionError, or whatever the state raises, where it goes wrong."""
    state, model, watcher = kind(), LeaseModel(), Watcher()
    for slot, step in enumerate(steps, start=1):
        if step.restart:
            saved = state.snapshot()
            state = kind.restore(saved)
            assert state.snapshot() == saved, "a restored state has the same bytes (P1)"
        outcome = state.apply(slot, step.entry)
        seen = model.apply(step.entry)
        assert outcome.answers == seen.answers, "answers"
        assert outcome.events == seen.events, "events"
        assert outcome.notices == seen.notices, "notices"
        assert (state.clock_ms, state.revision) == (model.clock_ms, model.revision)
        watcher.watch(step.entry, outcome, state.clock_ms)
        check_consistent(state)
        check_nothing_overdue(state)
        if met:
            met.note(step, outcome)
    check_same(state, model)
    if len(steps) % 4 == 0:
        check_that_another_node_agrees(steps, state)


def check_same(state: LeaseState, model: LeaseModel) -> None:
    """Assert that the records say what the model says, of whatever no answer may have told."""
    assert state._read_claims(ListClaims("", 0, 500)).claims == tuple(map(model.info, model.wishes))
    for party, record in zip(model.parties, state.all_sessions(), strict=True):
        kept = {reply.number: reply.result for reply in record.replies}
        assert (party.number, party.key, party.timeout_ms) == (record.session, record.key, record.timeout_ms)
        assert (party.expires_at_ms, party.acked_below) == (record.expires_at_ms, record.acked_below)
        assert party.refused_below == record.refused_below
        assert party.answers == kept


def check_that_another_node_agrees(steps: list[Step], state: LeaseState) -> None:
    silent = type(state)()
    for slot, step in enumerate(steps, start=1):
        silent.apply(slot, step.entry, answering=False)
    assert silent.snapshot() == state.snapshot(), "a node that answers nobody reaches the same state (P1)"


def failure(steps: list[Step], kind: type[LeaseState]) -> BaseException | None:
    try:
        run(steps, kind)
    except Exception as error:  # noqa: BLE001 - an assertion of ours or a crash of the state: both are failures
        return error
    return None


def shrunk(steps: list[Step], fails: Callable[[list[Step]], object]) -> list[Step]:
    """The history without all that is not needed to make it fail: steps first, then commands."""
    while True:
        for smaller in smaller_histories(steps):
            if fails(smaller):
                steps = smaller
                break
        else:
            return steps


def smaller_histories(steps: list[Step]) -> list[list[Step]]:
    """The histories with one step less, and then those with one command less."""
    smaller = [steps[:at] + steps[at + 1 :] for at in reversed(range(len(steps)))]
    for at, step in enumerate(steps):
        entry = step.entry
        if isinstance(entry, Batch):
            for left_out in range(len(entry.commands)):
                fewer = entry.commands[:left_out] + entry.commands[left_out + 1 :]
                smaller.append([*steps[:at], replace(step, entry=replace(entry, commands=fewer)), *steps[at + 1 :]])
    return smaller
