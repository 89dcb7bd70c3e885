"""The lease state against a naive model of it, over thousands of random short histories, each from one seed.

A failure prints the history, shrunk, and the line that repeats it: with `LESSOR_SEED=7` seed 7 runs alone. More of them
run with `LESSOR_HISTORIES=100000`.
"""

import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import Claim, Command
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.events import KINDS
from lessor.core.lease_state import LeaseState, Outcome, Session
from lessor.core.records import ClaimRecord
from lessor.core.results import (
    FAILURES,
    Cancelled,
    ClaimPage,
    ClaimStatus,
    Denied,
    NotHeld,
    Pong,
    Released,
    Renewed,
    Result,
    SessionClosed,
    SessionOpened,
)

from ..support.lease_histories import Met, Teller, failure, run, shrunk
from ..support.leases import Leases

HISTORIES = int(os.environ.get("LESSOR_HISTORIES", "800"))
ONLY = os.environ.get("LESSOR_SEED")


@pytest.fixture(autouse=True)
def few_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that short histories meet the limit."""
    monkeypatch.setattr(limits, "REPLIES_PER_SESSION_MAX", 7)


def test_the_lease_state_does_what_the_model_does_over_random_histories() -> None:
    met = Met()
    for seed in range(HISTORIES) if ONLY is None else [int(ONLY)]:
        steps = Teller(seed).steps()
        try:
            run(steps, met=met)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with the line that repeats it
            short = shrunk(steps, lambda steps: failure(steps, LeaseState))
            lines = "\n  ".join(map(str, short))
            message = f"{failure(short, LeaseState) or error!r}\nafter\n  {lines}\nrepeat with"
            pytest.fail(f"{message}: LESSOR_SEED={seed} python -m pytest {__file__}", pytrace=False)
    if ONLY is None:
        check_that_everything_was_met(met.counts)


def check_that_everything_was_met(counts: Counter[str]) -> None:
    answers = (
        SessionOpened,
        SessionClosed,
        ClaimStatus,
        Pong,
        Denied,
        Cancelled,
        Renewed,
        NotHeld,
        Released,
        ClaimPage,
    )
    failures = [f"Failed {code}" for code in FAILURES]
    expected = [*KINDS, *failures, "restart", "straggler", *(cls.__name__ for cls in answers)]
    rare = {what: counts[what] for what in expected if counts[what] < 40}
    assert not rare, f"hardly ever met: {rare}"


def test_when_all_is_released_the_state_is_as_small_as_it_was() -> None:  # P10
    empty = len(LeaseState().snapshot())
    for seed in range(150):
        state = LeaseState()
        for slot, step in enumerate(Teller(seed).steps(), start=1):
            state.apply(slot, step.entry)
        leases = Leases(state)
        leases.lead()
        while held := [record.token for record in state.all_claims() if record.token]:
            leases.release(leases.session(), held[0])
        for record in state.all_sessions():
            leases.close(record.session)
        assert (state.held, state.waiting, state.sessions, state.claims.queues, state.sessions_open._by_key) == (
            0,
            0,
            0,
            {},
            {},
        )
        assert state.next_deadline_ms() == 0
        assert not state._deadlines
        assert len(state.snapshot()) <= empty + 20, "only numbers have grown"


# --- known bugs, each of which the histories must find ---------------------------------------------------------------


class RenewShortens(LeaseState):
    """A renewal sets the deadline, earlier or not (Juju's rewrite in SQL)."""

    def _renew(self, token: int, ttl_ms: int) -> Result:
        record = self._granted(token)
        if record is not None and record.ttl_ms:
            record.ends_at_ms = 0
        return super()._renew(token, ttl_ms)


class OldDeadlinesCount(LeaseState):
    """The index of deadlines is not tied to the grant, so a renewed lease ends at its old deadline (TrexLock)."""

    def _advance_clock(self, clock_ms: int) -> None:
        for deadline_ms, _, number in self._deadlines:
            record = self._claims.get(number)
            if record is not None and record.token and deadline_ms <= clock_ms:
                record.ends_at_ms = min(deadline_ms, record.ends_at_ms)
        super()._advance_clock(clock_ms)


class StragglersCount(LeaseState):
    """A batch of another term is taken for one of this term."""

    def apply(self, slot: int, entry: Entry, *, answering: bool = True) -> Outcome:
        if isinstance(entry, Batch) and entry.term != self.header.term:
            elapsed_ms = max(entry.elapsed_ms, self.header.clock_ms - self.header.base_ms)
            entry = replace(entry, term=self.header.term, elapsed_ms=elapsed_ms)
        return super().apply(slot, entry, answering=answering)


class AnyLeaderCounts(LeaseState):
    """A `Lead` of a lower ballot is taken for a new leader."""

    def apply(self, slot: int, entry: Entry, *, answering: bool = True) -> Outcome:
        if isinstance(entry, Lead) and entry.ballot != self.header.term:
            self.header.term = entry.ballot._replace(counter=0)
        return super().apply(slot, entry, answering=answering)


class TheClockStartsAgain(LeaseState):
    """A new leader's milliseconds are counted from where the one before began."""

    def apply(self, slot: int, entry: Entry, *, answering: bool = True) -> Outcome:
        base_ms = self.header.base_ms
        outcome = super().apply(slot, entry, answering=answering)
        if isinstance(entry, Lead):
            self.header.base_ms = base_ms
        return outcome


class LastComeFirstServed(LeaseState):
    """A new waiter stands before the others."""

    def _claim(self, operation: Claim, session: Session) -> Result:
        result = super()._claim(operation, session)
        queue = self._queues.get((operation.namespace, operation.resources[0].path))
        if queue:
            for number in list(queue)[1:-1]:
                queue.move_to_end(number)
        return result


class RetriesCountTwice(LeaseState):
    """A retry is carried out again."""

    def _execute_once(self, command: Command, session: Session) -> Result:
        session.replies.pop(command.number, None)
        return super()._execute_once(command, session)


class SessionsTakeAllWithThem(LeaseState):
    """A session that expires takes the grants with a ttl with it."""

    def _end_session(self, session: Session, kind: str) -> int:
        for number in session.claims:
            if not self._claims[number].detached:
                self._claims[number].ttl_ms = 0
        return super()._end_session(session, kind)


class TheDeadStayInTheQueue(LeaseState):
    """A waiting claim outlives its session."""

    def _end_session(self, session: Session, kind: str) -> int:
        for number in [number for number in session.claims if not self._claims[number].token]:
            del session.claims[number]
        return super()._end_session(session, kind)


class TokensBeginAgain(LeaseState):
    """A restart goes on after the highest token that is still held."""

    @classmethod
    def from_records(cls, header: Any, sessions: list[Any], claims: list[Any]) -> LeaseState:
        state = super().from_records(header, sessions, claims)
        state.header.last_token = max((record.token for record in claims), default=0)
        return state


class AnswersAreForgotten(LeaseState):
    """A restart loses the answers that were kept for retries."""

    @classmethod
    def from_records(cls, header: Any, sessions: list[Any], claims: list[Any]) -> LeaseState:
        return super().from_records(header, [replace(session, replies=()) for session in sessions], claims)


class RefusalsAreForgotten(LeaseState):
    """A command that was refused for want of room is carried out when a copy of it arrives late."""

    def _execute_once(self, command: Command, session: Session) -> Result:
        session.record.refused_below = 0
        return super()._execute_once(command, session)


class ReleaseGoesByName(LeaseState):
    """A token that is no longer held stands for whoever holds the name now (here: the latest grant)."""

    def _granted(self, token: int) -> ClaimRecord | None:
        latest = max(self._claim_by_token, default=0)
        return super()._granted(token) or (super()._granted(latest) if 0 < token < latest else None)


class ExpiryComesLast(LeaseState):
    """What is due ends after the batch's own commands."""

    def apply(self, slot: int, entry: Entry, *, answering: bool = True) -> Outcome:
        if not isinstance(entry, Batch) or entry.term != self.header.term:
            return super().apply(slot, entry, answering=answering)
        due = self._deadlines
        self._deadlines = []
        outcome = super().apply(slot, entry, answering=answering)
        self._deadlines = sorted(due + self._deadlines)
        self._advance_clock(self.clock_ms)
        return outcome


class AnsweringHasAnEffect(LeaseState):
    """A node that answers does something that the others do not."""

    def _execute(self, command: Command, answering: bool) -> Result:  # noqa: FBT001 - as in what it overrides
        if answering and command.session in self._sessions:
            self._sessions[command.session].record.description = "answered"
        return super()._execute(command, answering)


@pytest.mark.parametrize(
    "mutant",
    [
        RenewShortens,
        OldDeadlinesCount,
        StragglersCount,
        AnyLeaderCounts,
        TheClockStartsAgain,
        LastComeFirstServed,
        RetriesCountTwice,
        SessionsTakeAllWithThem,
        TheDeadStayInTheQueue,
        TokensBeginAgain,
        AnswersAreForgotten,
        RefusalsAreForgotten,
        ReleaseGoesByName,
        ExpiryComesLast,
        AnsweringHasAnEffect,
    ],
)
def test_a_known_bug_is_found(mutant: type[LeaseState]) -> None:
    assert any(failure(Teller(seed).steps(), mutant) for seed in range(200)), "no history finds this bug"
