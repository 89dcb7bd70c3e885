"""Known bugs, each put into the product for the time of a test: a checker that none of them trips proves nothing."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from unittest import mock

from lessor.client import clock as client_clock
from lessor.client.calls import Calls
from lessor.client.errors import Unavailable
from lessor.client.leases import Leases
from lessor.client.protocol import Protocol
from lessor.core import limits
from lessor.core.acceptor import Acceptor
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.claims import Claims
from lessor.core.commands import Release
from lessor.core.deadlines import LEASE_ENDS, WAIT_ENDS
from lessor.core.effects import Effects
from lessor.core.entries import Batch
from lessor.core.learner import Learner
from lessor.core.lease_state import LeaseState
from lessor.core.messages import Accept, Promise
from lessor.core.proposer import Proposer, Stage
from lessor.core.records import ClaimRecord
from lessor.core.results import NotHeld, Released
from lessor.core.sessions import Sessions

from .checkers.base import Checker
from .checkers.p1_agreement import Agreement
from .checkers.p2_durable import Durable
from .checkers.p3_exclusion import Exclusion
from .checkers.p4_at_least import AtLeast
from .checkers.p5_tokens_grow import TokensGrow
from .checkers.p6_exactly_once import ExactlyOnce
from .checkers.p7_fair import Fair
from .checkers.p8_loss_told import LossTold
from .checkers.p9_definite import Definite
from .checkers.p10_bounded import Bounded
from .disk import Disk
from .world import World

Patch = Callable[[], "contextlib.AbstractContextManager[Any]"]


def _nothing(_: World) -> None:
    """Leave the world as it is."""


@dataclass(frozen=True)
class Mutant:
    """A bug: what it is, who must catch it, and within how many worlds."""

    name: str
    what: str
    checker: type[Checker]
    worlds: int
    patched: Patch
    prepare: Callable[[World], None] = field(default=_nothing)
    wide: bool = False  # only worlds whose programs use the whole lease model show it
    changes: dict[str, Any] = field(default_factory=dict)  # options that its worlds share
    also: tuple[type[Checker], ...] = ()  # who keeps another part of the same promise, and may see it too

    @property
    def row(self) -> str:
        """Return how its row begins in the table of docs/proof.md."""
        return f"| `{self.name}` | {self.what} | {self.checker.promise} `{self.checker.__name__}` | {self.worlds} |"


MUTANTS: dict[str, Mutant] = {}


def _mutant(
    what: str,
    checker: type[Checker],
    worlds: int,
    prepare: Callable[[World], None] = _nothing,
    changes: dict[str, Any] | None = None,
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    def register(patch: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        name = patch.__name__.strip("_")
        MUTANTS[name] = Mutant(name, what, checker, worlds, contextmanager(patch), prepare, changes=changes or {})
        return patch

    return register


def _replacing(owner: Any, name: str, make: Callable[[Any], Any]) -> Any:
    return mock.patch.object(owner, name, make(getattr(owner, name)))


# --- what is on the disk ---------------------------------------------------------------------------------------------


def _speak_early(world: World) -> None:
    world.speaks_early = True


@_mutant("a reply before the commit", Durable, 20, _speak_early)
def _reply_before_commit() -> Iterator[None]:
    yield


@_mutant("a promise that is not persisted", Durable, 20)
def _promise_not_persisted() -> Iterator[None]:
    def promise(self: Acceptor, ballot: Ballot, effects: Effects) -> None:
        self.promised = max(self.promised, ballot)

    with mock.patch.object(Acceptor, "_promise", promise):
        yield


@_mutant("a journal row lost at restart", Agreement, 300)
def _journal_row_lost() -> Iterator[None]:
    def make(original: Any) -> Any:
        def acceptor(self: Disk, *arguments: Any) -> Any:
            if self.votes:
                del self.votes[max(self.votes)]
            return original(self, *arguments)

        return acceptor

    with _replacing(Disk, "acceptor", make):
        yield


@_mutant("a snapshot of state without its applied slot: the slot after it is never applied", Agreement, 100)
def _snapshot_without_slot() -> Iterator[None]:
    def make(original: Any) -> Any:
        def save(self: Disk, state: LeaseState, *, replaced: bool) -> None:
            state.header.applied_upto += 1
            try:
                original(self, state, replaced=replaced)
            finally:
                state.header.applied_upto -= 1

        return save

    with _replacing(Disk, "save", make):
        yield


@_mutant("votes below an installed snapshot are kept over a crash, to be served as chosen", Agreement, 2000)
def _votes_below_a_snapshot() -> Iterator[None]:
    def installed(self: Disk) -> None:
        """Forget nothing."""

    with mock.patch.object(Disk, "reconcile", installed):
        yield


# --- consensus -------------------------------------------------------------------------------------------------------


@_mutant("a new ballot without phase 1", Agreement, 100)
def _no_phase_1() -> Iterator[None]:
    def make(original: Any) -> Any:
        def count(self: Proposer, effects: Effects) -> None:
            original(self, effects)
            if self.stage is Stage.PREPARING:
                self._lead(effects)

        return count

    with _replacing(Proposer, "_count_pre_votes", make):
        yield


@_mutant("phase 1 adopts the value of the lowest ballot", Agreement, 300)
def _lowest_ballot_adopted() -> Iterator[None]:
    def make(original: Any) -> Any:
        def promise(self: Proposer, message: Promise, effects: Effects) -> None:
            # what was found first under a lower ballot is kept
            kept = {
                vote.slot: self._found[vote.slot]
                for vote in message.votes
                if vote.slot in self._found and self._found[vote.slot].ballot < vote.ballot
            }
            votes = tuple(kept.get(vote.slot, vote) for vote in message.votes)
            changed = Promise(
                message.ballot, message.node, message.from_slot, votes, message.next_page, message.truncated_upto
            )
            original(self, changed, effects)

        return promise

    with _replacing(Proposer, "_promise", make):
        yield


@_mutant("phase 1 adopts nothing but what its own acceptor has", Agreement, 200)
def _only_own_votes_adopted() -> Iterator[None]:
    def make(original: Any) -> Any:
        def promise(self: Proposer, message: Promise, effects: Effects) -> None:
            if message.node != self.node:
                message = Promise(
                    message.ballot, message.node, message.from_slot, (), message.next_page, message.truncated_upto
                )
            original(self, message, effects)

        return promise

    with _replacing(Proposer, "_promise", make):
        yield


@_mutant("a quorum that is one vote short", Agreement, 200)
def _quorum_off_by_one() -> Iterator[None]:
    def quorum(members: int) -> int:
        return max(1, members // 2)

    with mock.patch("lessor.core.proposer.quorum", quorum), mock.patch("lessor.core.learner.quorum", quorum):
        yield


@_mutant("an acceptor that accepts below its promise", Agreement, 300)
def _accept_below_promise() -> Iterator[None]:
    def make(original: Any) -> Any:
        def accept(self: Acceptor, message: Accept, effects: Effects) -> None:
            promised = self.promised
            self.promised = min(promised, message.ballot)
            original(self, message, effects)
            self.promised = max(promised, message.ballot)

        return accept

    with _replacing(Acceptor, "_accept", make):
        yield


@_mutant("a follower applies below the watermark whatever it has accepted", Agreement, 300)
def _watermark_without_ballot() -> Iterator[None]:
    def make(original: Any) -> Any:
        def known(self: Learner, slot: int) -> Any:
            vote = self._open.get(slot)
            return vote if vote is not None and slot <= self.watermark[1] else original(self, slot)

        return known

    with _replacing(Learner, "_known", make):
        yield


@_mutant("iteration over a set: each node meets the claims of a session in an order of its own", Agreement, 60)
def _order_of_a_set() -> Iterator[None]:
    made = itertools.count()

    def make(original: Any) -> Any:
        def records(self: Claims) -> list[ClaimRecord]:
            found: list[ClaimRecord] = original(self)
            # what stands for the seed of a process's hashes: one state after the other
            number = vars(self).setdefault("made", next(made))
            return found[::-1] if number % 2 else found

        return records

    with _replacing(Claims, "records", make):
        yield


# --- time ------------------------------------------------------------------------------------------------------------


@_mutant("stragglers are applied, with the highest stamp found as the new leader's base", AtLeast, 600)
def _stragglers_applied() -> Iterator[None]:
    def make(original: Any) -> Any:
        def apply(self: LeaseState, slot: int, entry: Any, *, answering: bool = True) -> Any:
            header = self.header
            if isinstance(entry, Batch) and entry.term != header.term != NO_BALLOT:
                # its stamp is taken as if it belonged to this line of time
                elapsed = max(entry.elapsed_ms, header.clock_ms - header.base_ms)
                entry = Batch(header.term, elapsed, entry.commands)
            elif isinstance(entry, Batch) and header.base_ms + entry.elapsed_ms < header.clock_ms:
                entry = Batch(entry.term, header.clock_ms - header.base_ms, entry.commands)
            return original(self, slot, entry, answering=answering)

        return apply

    with _replacing(LeaseState, "apply", make):
        yield


MANY_LEADERS = {"nodes": 5, "rotate": 8, "fault_every_ms": 100, "duration_ms": 4000}


@_mutant(
    "`Lead` does not wait until all before it is chosen: two terms may count the same time "
    "(worlds of 5 nodes with many leaders)",
    AtLeast,
    600,
    changes=MANY_LEADERS,
)
def _lead_does_not_wait() -> Iterator[None]:
    def make(original: Any) -> Any:
        def propose(self: Proposer, effects: Effects) -> None:
            original(self, effects)
            if len(self._backlog) == 1 and self._in_flight:
                waiting, self._in_flight = self._in_flight, {}
                original(self, effects)
                self._in_flight |= waiting

        return propose

    with _replacing(Proposer, "_propose", make):
        yield


@_mutant("the time of a leader counts from its phase 1 on, and a stall of it counts too, twice", AtLeast, 200)
def _clock_runs_fast() -> Iterator[None]:
    def make(original: Any) -> Any:
        def tick(self: Proposer, gap_ms: int, effects: Effects) -> None:
            if gap_ms > limits.LEADER_STALL_MS and self._counting:
                self.elapsed_ms += 2 * gap_ms
            original(self, gap_ms, effects)

        return tick

    with _replacing(Proposer, "_tick_leader", make):
        yield


@_mutant("a deadline counted from the answer instead of the sending", Exclusion, 400)
def _deadline_from_receipt() -> Iterator[None]:
    def make(original: Any) -> Any:
        def learn(self: Any, sent_ms: int, received_ms: int, clock_ms: int) -> None:
            original(self, received_ms, received_ms, clock_ms)

        return learn

    with _replacing(client_clock.Anchor, "learn", make):
        yield


@_mutant(
    "a retry takes the time of its last sending for its anchor", Exclusion, 3000, changes={"slow": 0.2, "slow_ms": 800}
)
def _anchor_at_the_retry() -> Iterator[None]:
    def make(original: Any) -> Any:
        def request(self: Calls, call: Any) -> Any:
            call.first_sent_ms = None
            return original(self, call)

        return request

    with _replacing(Calls, "_request", make):
        yield


@_mutant("expiry without a look at the deadline of the grant: a renewed lease is ended by an old entry", AtLeast, 100)
def _expiry_of_a_renewed_lease() -> Iterator[None]:
    def due(self: Claims, number: int, kind: int, deadline_ms: int) -> None:
        claim = self.all.get(number)
        if claim is not None and (claim.token == 0) == (kind == WAIT_ENDS):
            self.end(claim, "expired" if claim.token else "timed_out", notify=True)

    with mock.patch.object(Claims, "due", due):
        yield


@_mutant("expiry by name: the deadline of a former lease ends whoever has the name now", AtLeast, 100)
def _expiry_by_name() -> Iterator[None]:
    names: dict[int, Any] = {}

    def granting(original: Any) -> Any:
        def grant(self: Claims, claim: ClaimRecord, *, waited: bool) -> None:
            names[claim.claim] = claim.resources
            original(self, claim, waited=waited)

        return grant

    def ending(original: Any) -> Any:
        def due(self: Claims, number: int, kind: int, deadline_ms: int) -> None:
            if number in self.all or kind != LEASE_ENDS:
                original(self, number, kind, deadline_ms)
                return
            for claim in [each for each in self.all.values() if each.token and each.resources == names.get(number)]:
                self.end(claim, "expired", notify=True)

        return due

    def keeping(original: Any) -> Any:
        return lambda self, number, kind: kind != LEASE_ENDS and original(self, number, kind)

    with (
        _replacing(Claims, "_grant", granting),
        _replacing(Claims, "due", ending),
        _replacing(Claims, "outdated", keeping),
    ):
        yield


# --- the lease state -------------------------------------------------------------------------------------------------


@_mutant("a retry is carried out once more", ExactlyOnce, 60)
def _retry_applied_twice() -> Iterator[None]:
    def make(original: Any) -> Any:
        def kept(self: Sessions, session: Any, number: int) -> Any:
            session.replies.pop(number, None)
            return original(self, session, number)

        return kept

    with _replacing(Sessions, "kept", make):
        yield


@_mutant("a release by name: whoever holds the name now loses it", ExactlyOnce, 100)
def _release_by_name() -> Iterator[None]:
    def make(original: Any) -> Any:
        names: dict[int, Any] = {}

        def carry_out(self: LeaseState, operation: Any, session: Any) -> Any:
            if not isinstance(operation, Release):
                return original(self, operation, session)
            for claim in self.claims.all.values():
                if claim.token:
                    names[claim.token] = claim.resources
            for claim in list(self.claims.all.values()):
                if claim.token and claim.resources == names.get(operation.token):
                    self.claims.end(claim, "released", notify=True)
                    return Released()
            return NotHeld()

        return carry_out

    with _replacing(LeaseState, "_carry_out", make):
        yield


@_mutant("the last in line is granted first", Fair, 60)
def _granted_out_of_turn() -> Iterator[None]:
    def serve(self: Claims, namespace: str, resources: Any, **_: Any) -> None:
        queues = self.queues_of(namespace)
        waiting = [claim for claim in queues.claims_on(resources[0].path) if not self.all[claim].token]
        if waiting and not queues.held(resources[0].path):
            last = self.all[waiting[-1]]
            self._grant(last, waited=True)
            self._book.notify(last.session, self.status(last))

    with mock.patch.object(Claims, "serve", serve):
        yield


@_mutant("a dead waiter is left in the queue", Bounded, 100)
def _dead_waiter() -> Iterator[None]:
    def make(original: Any) -> Any:
        def end(self: Claims, session: Any, kind: str) -> int:
            for number in [number for number in session.claims if not self.all[number].token]:
                del session.claims[number]
            released: int = original(self, session, kind)
            return released

        return end

    with _replacing(Claims, "end_of_session", make):
        yield


@_mutant("a token is taken from the number of the claim", TokensGrow, 60)
def _token_not_growing() -> Iterator[None]:
    def make(original: Any) -> Any:
        def grant(self: Claims, claim: Any, *, waited: bool) -> None:
            original(self, claim, waited=waited)
            if claim.claim % 5 == 0:
                self._book.header.last_token -= 1

        return grant

    with _replacing(Claims, "_grant", make):
        yield


@_mutant("a claim is granted although the name is held", Exclusion, 60)
def _two_holders() -> Iterator[None]:
    def make(original: Any) -> Any:
        def claim(self: Claims, operation: Any, session: Any, *, strict: bool) -> Any:
            result = original(self, operation, session, strict=strict)
            record = self.all.get(getattr(result, "claim", 0))
            if record is not None and record.token == 0 and record.claim % 7 == 0:
                self._grant(record, waited=True)
                return self.status(record)
            return result

        return claim

    with _replacing(Claims, "claim", make):
        yield


@_mutant("answers are kept although the client has acknowledged them", Bounded, 100)
def _answers_never_forgotten() -> Iterator[None]:
    def make(original: Any) -> Any:
        def touch(self: Sessions, session: Any, acked_below: int) -> None:
            kept = dict(session.replies)
            original(self, session, acked_below)
            session.replies.update(kept)

        return touch

    def kept(self: Sessions, session: Any, number: int) -> Any:
        return session.replies.get(number)

    with _replacing(Sessions, "touch", make), mock.patch.object(Sessions, "kept", kept):
        yield


# --- the client ------------------------------------------------------------------------------------------------------


@_mutant("a client that does not call a lease lost", LossTold, 60)
def _loss_not_told() -> Iterator[None]:
    def lose(self: Leases, lease: Any) -> None:
        """Go on believing."""

    with mock.patch.object(Leases, "_lose", lose):
        yield


@_mutant("an acquire whose outcome is not known is called definite", Definite, 100)
def _doubt_forgotten() -> Iterator[None]:
    from lessor.client.calls import Call

    with mock.patch.object(Call, "indefinite", property(lambda call: False)):
        yield


REPEATING: Final[dict[str, Any]] = {
    "nodes": 3,
    "repeat_client": 0.6,
    "slow": 0.3,
    "slow_ms": 600,
    "rotate": 6,
    "depose": 6,
    "try_share": 0.7,
    "request_timeout_ms": 400,
    "waits_ms": (300,),
    "clients": 4,
    "think_ms": 60,
    "limits": (("GATEWAY_IN_FLIGHT_MAX", 1),),
}
"""In these worlds much is turned away, and copies of what clients send are on their way for long."""


@_mutant("what gateways turned away as often as it was sent is called definite", Definite, 100, changes=REPEATING)
def _refusals_counted() -> Iterator[None]:
    from lessor.client.calls import Call

    with mock.patch.object(Call, "indefinite", property(lambda call: call.doubtful or call.unanswered > 0)):
        yield


@_mutant("a release that goes on in the background is called definite", Definite, 300)
def _release_forgotten() -> Iterator[None]:
    def release(self: Protocol, lease: Any, on_done: Any, deadline_ms: int | None) -> None:
        def done(result: Any) -> None:
            if isinstance(result, Unavailable):
                result.indefinite = False
                self._give_back(lease.token)
            on_done(result)

        self._leases.let_go(lease, "released")
        self.call(Release(lease.token), done, deadline_ms)

    with mock.patch.object(Protocol, "release", release):
        yield


@_mutant("the margin for clocks that drift is added, not taken off", Exclusion, 3000)
def _drift_margin_added() -> Iterator[None]:
    with mock.patch.object(client_clock, "MARGIN", -client_clock.MARGIN):
        yield


def _clocks_sleep(world: World) -> None:
    world.clocks_sleep = True


@_mutant("a client reads a clock that stands still while its machine is suspended", Exclusion, 300, _clocks_sleep)
def _clock_that_sleeps() -> Iterator[None]:
    yield
