"""Runs random histories of the lease state beside the naive model and beside restored nodes; shrinks them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lessor.core.commands import (
    Break,
    Cancel,
    CloseSession,
    DeleteSemaphore,
    Describe,
    DropNamespace,
    EndSession,
    ListClaims,
    Operation,
    ReadEvents,
    Release,
    Transact,
    Unpin,
)
from lessor.core.entries import Batch, Entry
from lessor.core.lease_state import LeaseState, Outcome
from lessor.core.resources import Resource
from lessor.core.results import ClaimPage, ClaimStatus, Declined, EventPage, Failed, Renewed, SessionOpened, Transacted

from .lease_model import failed
from .lease_model_whole import LeaseModel, read
from .leases import check_consistent, check_nothing_overdue
from .naive_queues import overlap, share

Run = Callable[[list[Entry], type[LeaseState]], None]


def operations_of(entry: Entry) -> list[Operation]:
    return [read(data).operation for data in entry.commands] if isinstance(entry, Batch) else []


# --- beside the model ------------------------------------------------------------------------------------------------


def run_beside_the_model(
    entries: list[Entry], kind: type[LeaseState] = LeaseState, counts: Counter[str] | None = None
) -> None:
    """Run a history; raise AssertionError, or whatever the state raises, where it goes wrong."""
    state, model, watcher = kind(), LeaseModel(), Watcher()
    for slot, entry in enumerate(entries, start=1):
        if slot % 7 == 0:
            state = kind.restore(state.snapshot())
        outcome = state.apply(slot, entry)
        plain = without_details(outcome)
        seen = model.apply(entry, plain)
        for (tag, answer), (_, expected), operation in zip(
            plain.answers, seen.answers, operations_of(entry), strict=False
        ):
            assert answer == expected, f"the answer to command {tag}, {operation}"
        assert len(plain.answers) == len(seen.answers)
        assert plain.events == seen.events, "events"
        assert plain.notices == seen.notices, "notices"
        assert (state.clock_ms, state.revision) == (model.clock_ms, model.revision)
        watcher.watch(entry, outcome, state.clock_ms)
        check_nothing_overdue(state)
        if counts is not None:
            note(entry, outcome, counts)
    check_same(state, model)


def without_details(outcome: Outcome) -> Outcome:
    """An outcome without what is said to people of why something failed."""

    def plain(result: Any) -> Any:
        match result:
            case Failed(code):
                return failed(code)
            case Declined(part, index):
                return Declined(part, index, "")
            case Transacted(results):
                return Transacted(tuple(plain(one) for one in results))
            case _:
                return result

    return replace(outcome, answers=[(tag, plain(result)) for tag, result in outcome.answers])


def check_same(state: LeaseState, model: LeaseModel) -> None:
    """Assert that the records say what the model says, of whatever no answer may have told."""
    page = state.looks.answer(ListClaims("", 0, 500))
    assert isinstance(page, ClaimPage)
    assert page.claims == tuple(map(model.info, model.wishes))
    for party, record in zip(model.parties, state.sessions_open.records(), strict=True):
        kept = {reply.number: without_details(Outcome([(0, reply.result)])).answers[0][1] for reply in record.replies}
        assert (party.number, party.key, party.timeout_ms) == (record.session, record.key, record.timeout_ms)
        assert (party.expires_at_ms, party.acked_below) == (record.expires_at_ms, record.acked_below)
        assert (party.refused_below, party.attach) == (record.refused_below, record.attach)
        assert party.answers == kept
    mine = [(one.number, one.token, one.ended_at_ms, one.closed_until_ms, one.why) for one in model.lapses]
    lapses = state.lapses.records()
    assert mine == [(one.claim, one.token, one.ended_at_ms, one.closed_until_ms, one.why) for one in lapses]
    pins = {(one.namespace, one.path): list(one.entities) for one in state.pins.shelf.records()}
    assert pins == model.pins
    registers = state.registers.shelf.records()
    assert {(one.namespace, one.path): (one.version, one.token, one.data) for one in registers} == model.registers
    semaphores = state.semaphores.shelf.records()
    assert {(one.namespace, one.path): (one.limit, one.data) for one in semaphores} == model.semaphores
    assert {one.name: one.config for one in state.namespaces.shelf.records()} == model.configs


class Watcher:
    """Knows nothing but what clients and the feed are told, and asserts that it is kept: order, tokens, deadlines."""

    def __init__(self) -> None:
        self.last_token = 0
        self.promised_ms: dict[int, int] = {}  # by token
        self.by_session: dict[int, bool] = {}  # by token: whether it lives as long as its session
        self.session_until_ms: dict[int, int] = {}
        self.line: dict[int, tuple[str, tuple[tuple[str, ...], ...]]] = {}  # who waits, in the order of arrival

    def watch(self, entry: Entry, outcome: Outcome, clock_ms: int) -> None:
        operations = operations_of(entry)
        asked = [one for one in operations if isinstance(one, Release | Cancel | CloseSession | EndSession | Transact)]
        told = [one for one in operations if isinstance(one, Break | DropNamespace | DeleteSemaphore)]
        unpinned = any(isinstance(one, Unpin | Transact) for one in operations)
        expired = {event.session for event in outcome.events if event.kind == "session_expired"}
        for event in outcome.events:
            paths = (event.path, *event.others)
            match event.kind:
                case "granted":
                    assert event.token > self.last_token, "tokens grow (P5)"
                    self.last_token = event.token
                    self.promised_ms[event.token] = event.expires_at_ms
                    self.line.pop(event.claim, None)
                    for number, (namespace, others) in self.line.items():
                        before = number < event.claim and namespace == event.namespace
                        over = any(overlap(one, other) for one in paths for other in others)
                        assert not (before and over), "nobody overtakes (P7)"
                case "queued":
                    self.line[event.claim] = (event.namespace, paths)
                case "cancelled" | "timed_out":
                    self.line.pop(event.claim, None)
                case "amended" if event.claim in self.line:
                    self.line[event.claim] = (event.namespace, paths)
                case "renewed":
                    assert event.expires_at_ms > self.promised_ms[event.token], "renew never shortens (P4)"
                    self.promised_ms[event.token] = event.expires_at_ms
                case "adopted":
                    self.promised_ms[event.token] = event.expires_at_ms
                case "released":
                    assert asked, "nobody asked for this end (P4)"
                case "broken":
                    assert told, "no operator asked for this end (P4)"
                case "expired":
                    early = clock_ms < self.promised_ms[event.token]
                    assert not early or event.session in expired or unpinned, "ended before its time (P4)"
                case "session_opened" | "session_attached":
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


def check_exclusion(state: LeaseState) -> None:
    """Assert that no two claims hold what they cannot hold side by side (P3), and no semaphore is over its limit."""
    held = [claim for claim in state.claims.records() if claim.token]
    units: Counter[tuple[str, tuple[str, ...]]] = Counter()
    limit: dict[tuple[str, tuple[str, ...]], int] = {}
    for place, claim in enumerate(held):
        for has in claim.resources:
            units[claim.namespace, has.path] += has.units
            if has.limit:
                limit[claim.namespace, has.path] = has.limit
            for other in held[:place]:
                for theirs in other.resources if other.namespace == claim.namespace else ():
                    apart = not overlap(has.path, theirs.path) or share(has, theirs)
                    assert apart, f"claims {claim.claim} and {other.claim} hold what only one can hold (P3)"
    for semaphore in state.semaphores.shelf.records():
        limit[semaphore.namespace, semaphore.path] = semaphore.limit
    for key, most in limit.items():
        alone = any(has == Resource(key[1]) for claim in held for has in claim.resources)
        assert alone or units[key] <= most, f"{units[key]} units of {key} are held, of {most}"


# --- beside nodes that were restored ---------------------------------------------------------------------------------


def run_beside_others(
    entries: list[Entry], kind: type[LeaseState] = LeaseState, counts: Counter[str] | None = None
) -> None:
    """Apply a history on four nodes: whole; silent; restored once, halfway; and restored before every entry."""
    whole, silent, once, often = kind(), kind(), kind(), kind()
    for slot, entry in enumerate(entries, start=1):
        if slot == len(entries) // 2:
            once = kind.restore(whole.snapshot())
        often = kind.restore(often.snapshot())
        outcome = whole.apply(slot, entry)
        silent.apply(slot, entry, answering=False)
        told = comparable(entry, outcome)
        assert comparable(entry, once.apply(slot, entry)) == told, "a node that was restored tells the same (P1)"
        assert comparable(entry, often.apply(slot, entry)) == told, "a node that is restored all the time, too (P1)"
        state = whole.snapshot()
        assert once.snapshot() == state, "a node that was restored has the same state (P1)"
        assert often.snapshot() == state, "a node that is restored all the time, too (P1)"
        assert kind.restore(state).snapshot() == state, "a restored state has the same bytes (P1)"
        check_consistent(whole)
        check_nothing_overdue(whole)
        check_exclusion(whole)
        if counts is not None:
            note(entry, outcome, counts)
    assert silent.snapshot() == whole.snapshot(), "a node that answers nobody reaches the same state (P1)"


def comparable(entry: Entry, outcome: Outcome) -> Outcome:
    """What was told, but for what is no part of the state: events of old, and in which order a tree is walked."""
    answers = list(outcome.answers)
    for place, (operation, (tag, result)) in enumerate(zip(operations_of(entry), answers, strict=False)):
        if isinstance(operation, ReadEvents):
            assert isinstance(result, EventPage)
            answers[place] = (tag, EventPage((), 0, 0))
        elif isinstance(operation, Describe):
            assert isinstance(result, ClaimPage)
            claims = tuple(sorted(result.claims, key=lambda info: info.claim))
            answers[place] = (tag, replace(result, claims=claims))
    return replace(outcome, answers=answers)


# --- what was met ----------------------------------------------------------------------------------------------------


def note(entry: Entry, outcome: Outcome, counts: Counter[str]) -> None:
    """Count what was met: a swarm that never reached an interesting state has shown nothing."""
    counts.update(event.kind for event in outcome.events)
    counts["notice"] += len(outcome.notices)
    for _, result in outcome.answers:
        counts[f"Failed {result.code}" if isinstance(result, Failed) else type(result).__name__] += 1
        if isinstance(result, ClaimStatus) and result.waiters_ahead > 1:
            counts["a place far back"] += 1
    counts.update(f"asked {type(operation).__name__}" for operation in operations_of(entry))
    if operations_of(entry) and not outcome.answers:
        counts["straggler"] += 1


# --- shrinking -------------------------------------------------------------------------------------------------------


def failure(entries: list[Entry], run: Run, kind: type[LeaseState] = LeaseState) -> BaseException | None:
    try:
        run(entries, kind)
    except Exception as error:  # noqa: BLE001 - an assertion of ours or a crash of the state: both are failures
        return error
    return None


def shrunk(entries: list[Entry], run: Run) -> list[Entry]:
    """The history without all that is not needed to make it fail: entries first, then commands."""
    while True:
        for smaller in smaller_histories(entries):
            if failure(smaller, run):
                entries = smaller
                break
        else:
            return entries


def smaller_histories(entries: list[Entry]) -> list[list[Entry]]:
    """The histories with one entry less, and then those with one command less."""
    smaller = [entries[:at] + entries[at + 1 :] for at in reversed(range(len(entries)))]
    for at, entry in enumerate(entries):
        if isinstance(entry, Batch):
            for left_out in range(len(entry.commands)):
                fewer = entry.commands[:left_out] + entry.commands[left_out + 1 :]
                smaller.append([*entries[:at], replace(entry, commands=fewer), *entries[at + 1 :]])
    return smaller


def shown(entry: Entry) -> str:
    """An entry with its commands as what they are."""
    if not isinstance(entry, Batch):
        return str(entry)
    commands = "".join(f"\n      {read(data)}" for data in entry.commands)
    return f"Batch of {entry.term}, {entry.elapsed_ms} ms{commands}"
