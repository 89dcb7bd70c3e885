"""Deadlines, terms in the log, and what the lease state tells; P1 to P11 are the promises of the design."""

import pytest

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.commands import FOREVER, Cancel, CloseSession, Operation, Ping, Release, Renew
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Lead, NoOp
from lessor.core.errors import Corrupt, InvariantBroken
from lessor.core.events import KINDS
from lessor.core.lease_state import LeaseState
from lessor.core.results import ClaimPhase, ClaimStatus

from ..support import leases as leases_support
from ..support.leases import Leases, a_story, check_consistent, check_nothing_overdue, claim

HELD, GONE = ClaimPhase.HELD, ClaimPhase.GONE


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_what_is_due_ends_in_the_order_of_deadlines_and_before_the_batchs_own_commands() -> None:
    leases = Leases()
    anna, ben = leases.session(timeout_ms=2500), leases.session(timeout_ms=60_000)
    leases.claim(ben, "slow", ttl_ms=3000)
    leases.claim(ben, "fast", ttl_ms=1000)
    leases.claim(anna, "tied")
    leases.claim(ben, "slow", wait_ms=2000)
    leases.kinds()
    leases.elapsed_ms = 3000
    assert leases.claim(ben, "slow").phase == HELD
    ends = [(event.kind, event.path or event.session) for event in leases.events]
    assert ends == [
        ("expired", ("fast",)),
        ("timed_out", ("slow",)),
        ("expired", ("tied",)),
        ("session_expired", anna),
        ("expired", ("slow",)),
        ("granted", ("slow",)),
    ]


def test_at_the_same_millisecond_a_lease_ends_before_the_patience_of_its_waiter() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    waiting = leases.claim(ben, "x", wait_ms=1000).claim
    leases.after(1000)
    assert leases.ping(ben, waiting).claims[0].phase == HELD
    assert [status.phase for status in leases.told(ben)] == [HELD]


def test_a_lease_granted_late_by_a_late_batch_counts_from_that_batch() -> None:  # P4
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    leases.claim(ben, "x", ttl_ms=1000, wait_ms=FOREVER)
    leases.after(5000)
    assert leases.told(ben) == [ClaimStatus(2, HELD, 2, 6000, 0, ttl_ms=1000)]


def test_a_chain_of_deadlines_passed_at_once_leaves_nothing_overdue() -> None:
    leases = Leases()
    sessions = [leases.session(timeout_ms=500 + 10 * number) for number in range(20)]
    for session in sessions:
        leases.claim(session, "x", wait_ms=200 + 20 * session)
        leases.claim(session, f"x{session % 3}", ttl_ms=100 * session, wait_ms=FOREVER)
    for _ in range(12):
        leases.after(150)
        check_consistent(leases.state)
        check_nothing_overdue(leases.state)
    leases.after(100_000)
    assert leases.state.sessions == 0
    assert leases.state.waiting == 0


def test_the_next_deadline_is_of_what_is_still_there() -> None:
    leases = Leases()
    assert leases.state.next_deadline_ms() == 0
    anna, ben = leases.session(timeout_ms=9000), leases.session(timeout_ms=8000)
    leases.claim(anna, "x", ttl_ms=1000)
    leases.claim(anna, "x", wait_ms=500)
    leases.claim(anna, "y", wait_ms=300)  # granted at once: its patience is of no interest
    assert leases.state.next_deadline_ms() == 500
    leases.cancel(anna, 2)
    assert leases.state.next_deadline_ms() == 1000
    leases.release(anna, 1)
    assert leases.state.next_deadline_ms() == 8000
    leases.close(ben)
    assert leases.state.next_deadline_ms() == 9000
    leases.close(anna)
    assert leases.state.next_deadline_ms() == 0


@pytest.mark.deep
def test_a_hundred_thousand_names_of_churn_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(LeaseState, "_read", lambda _, command: command)  # the codec, tested elsewhere, would take long
    monkeypatch.setattr(leases_support, "encode", lambda command: command)
    leases = Leases()
    anna = leases.session(timeout_ms=60_000)
    quiet = len(leases.state.snapshot())
    longest = 0
    for first in range(1, 100_000, 500):  # most of them expire, some are released; all were ready to wait
        leases.elapsed_ms += 100
        tokens, acked = range(first, first + 500), leases.last_number + 1
        names = [claim(f"x{token}", ttl_ms=100 if token % 5 else 3_600_000, wait_ms=50_000) for token in tokens]
        leases.batch(*(leases.command(anna, name, acked_below=acked) for name in names))
        leases.batch(*(leases.command(anna, Release(token)) for token in tokens if token % 5 == 0))
        longest = max(longest, len(leases.state._deadlines))
        leases.log.clear()
        leases.events.clear()
        leases.notices.clear()
    leases.elapsed_ms += 100
    leases.ask(anna, Ping(()), acked_below=leases.last_number + 1)
    assert leases.state.header.last_token == 100_000
    assert longest < 4000
    assert len(leases.state.claims.queues) == len(leases.state.claims.all) == leases.state.held == 0
    assert len(leases.state.lapses) == limits.LAPSED_MAX, "what has expired of late can be read for a while"
    leases.after(limits.LAPSED_KEPT_MS)
    assert len(leases.state.snapshot()) < quiet + 50


def test_a_lease_that_is_renewed_for_ever_takes_the_room_of_one() -> None:  # P10
    leases = Leases()
    anna = leases.session(timeout_ms=60_000)
    leases.claim(anna, "x", ttl_ms=1000)
    for _ in range(5000):
        leases.elapsed_ms += 10
        number = leases.last_number + 1
        leases.ask(anna, Renew(1, 0), acked_below=number)
    assert len(leases.state._deadlines) <= 3
    assert leases.holding_token("x") == 1


# --- terms in the log ------------------------------------------------------------------------------------------------


def a_straggler(leases: Leases, term: Ballot, elapsed_ms: int) -> Batch:
    """A batch of another term in which somebody wants everything."""
    operations: list[Operation] = [claim("free", ttl_ms=100), Release(1), Renew(1, 90_000), Cancel(1), CloseSession()]
    return Batch(term, elapsed_ms, tuple(encode(leases.command(1, operation)) for operation in operations))


@pytest.mark.parametrize("term", [Ballot(1, 2), Ballot(2, 2), Ballot(3, 2), Ballot(3, 4), Ballot(4, 1), Ballot(9, 9)])
@pytest.mark.parametrize("elapsed_ms", [0, 1500, 10**9])
def test_a_batch_of_another_term_has_no_effect_at_all(term: Ballot, elapsed_ms: int) -> None:
    leases = Leases()
    while leases.term != Ballot(3, 3):
        leases.lead()
    leases.claim(leases.session(), "x", ttl_ms=30_000)
    leases.after(1000)
    before = leases.state.snapshot()
    outcome = leases.apply(a_straggler(leases, term, elapsed_ms))
    leases.state.header.applied_upto -= 1
    assert leases.state.snapshot() == before
    assert (outcome.answers, outcome.events, outcome.notices) == ([], [], [])


@pytest.mark.parametrize("ballot", [Ballot(0, 0), Ballot(2, 9), Ballot(3, 2), Ballot(3, 3)])
def test_a_leader_below_the_latest_or_the_latest_once_more_has_no_effect_at_all(ballot: Ballot) -> None:
    leases = Leases()
    while leases.term != Ballot(3, 3):
        leases.lead()
    leases.after(1000)
    before = leases.state.snapshot()
    leases.apply(Lead(ballot))
    leases.state.header.applied_upto -= 1
    assert leases.state.snapshot() == before
    leases.after(500)
    assert leases.state.clock_ms == 1500, "the clock still counts from where the leader took over"


def test_a_batch_before_the_first_leader_has_no_effect_at_all() -> None:
    state = LeaseState()
    empty = state.snapshot()
    state.apply(1, Batch(NO_BALLOT, 5000, ()))
    state.header.applied_upto = 0
    assert state.snapshot() == empty


def test_a_slot_without_a_value_has_no_effect_at_all() -> None:
    leases = Leases()
    leases.claim(leases.session(), "x")
    before = leases.state.snapshot()
    leases.apply(NoOp())
    leases.state.header.applied_upto -= 1
    assert leases.state.snapshot() == before


def test_the_clock_goes_on_over_three_leaders_and_no_ttl_starts_again() -> None:  # P4
    leases = Leases()
    anna = leases.session(timeout_ms=60_000)
    leases.claim(anna, "x", ttl_ms=3000)
    leases.after(1000)
    leases.lead()
    assert leases.state.clock_ms == 1000, "a change of leader costs a lease nothing"
    leases.after(900)
    leases.after(100)
    leases.lead()
    leases.lead()
    leases.elapsed_ms = 999
    assert leases.ping(anna, 1).claims == (ClaimStatus(1, HELD, 1, 3000, 0, ttl_ms=3000),)
    assert leases.state.clock_ms == 2999
    leases.after(1)
    assert leases.holder("x") is None


def test_a_leader_that_was_cut_off_cannot_make_the_clock_jump_when_its_batches_are_adopted() -> None:
    leases = Leases()
    anna = leases.session(timeout_ms=60_000)
    leases.claim(anna, "x", ttl_ms=10_000)
    old = leases.term
    leases.lead()
    leases.after(2000)
    leases.apply(Batch(old, 50_000, ()))  # found behind our own entries, and adopted by the next leader
    leases.lead()
    leases.after(2000)
    assert leases.state.clock_ms == 4000
    assert leases.holding_token("x") == 1


def test_a_clock_that_would_go_back_stops_the_node() -> None:
    leases = Leases()
    leases.after(1000)
    leases.lead()
    leases.after(500)
    leases.elapsed_ms = 499
    with pytest.raises(InvariantBroken, match="1500 to 1499"):
        leases.batch()


@pytest.mark.parametrize("slot", [0, 1, 2, 4])
def test_a_slot_out_of_order_stops_the_node(slot: int) -> None:
    leases = Leases()
    leases.after(0)
    assert leases.state.applied_upto == 2
    with pytest.raises(InvariantBroken, match="cannot follow slot 2"):
        leases.state.apply(slot, NoOp())


@pytest.mark.parametrize("data", [b"", b"\xff", encode(NoOp()), encode(claim("x"))])
def test_a_command_that_cannot_be_read_stops_the_node(data: bytes) -> None:
    leases = Leases()
    with pytest.raises(Corrupt, match="slot 2"):
        leases.apply(Batch(leases.term, 0, (data,)))


# --- what is told ----------------------------------------------------------------------------------------------------


def test_every_change_is_an_event_in_its_order() -> None:
    story = a_story()
    told = [f"{event.clock_ms} {event.kind} {event.claim or event.session}" for event in story.events]
    assert told == [
        "0 session_opened 1",
        "0 session_opened 2",
        "0 session_opened 3",
        "0 granted 1",
        "0 queued 2",
        "0 queued 3",
        "0 queued 4",
        "500 timed_out 2",
        "500 renewed 1",
        "500 granted 5",
        "500 queued 6",
        "1700 cancelled 6",
        "1700 expired 5",
        "1700 session_expired 1",
        "2500 expired 1",
        "2500 granted 3",
        "2500 released 3",
        "2500 granted 4",
        "2500 granted 7",
        "2500 session_closed 3",
        "2600 expired 7",
        "2600 namespace_created 0",
        "2600 namespace_altered 0",
        "2600 semaphore_created 0",
        "2600 semaphore_updated 0",
        "2600 granted 8",
        "2600 amended 8",
        "2600 pinned 0",
        "2600 written 0",
        "2600 erased 0",
        "2600 unpinned 0",
        "2600 session_opened 4",
        "2600 session_attached 4",
        "2600 adopted 8",
        "2600 broken 8",
        "2600 semaphore_deleted 0",
        "2600 namespace_dropped 0",
    ]
    assert {event.kind for event in story.events} == set(KINDS)


def test_the_revisions_of_events_are_dense_and_their_slots_and_clocks_never_fall() -> None:
    story = a_story()
    assert [event.revision for event in story.events] == list(range(1, story.state.revision + 1))
    for before, after in zip(story.events, story.events[1:], strict=False):
        assert before.slot <= after.slot <= story.state.applied_upto
        assert before.clock_ms <= after.clock_ms


def test_an_event_of_a_grant_says_who_holds_what_under_which_token_until_when() -> None:
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    leases.renew(anna, 1, 5000)
    granted, renewed = leases.events[-2:]
    assert (granted.namespace, granted.path, granted.claim, granted.token) == ("default", ("x",), 1, 1)
    assert (granted.session, granted.holder, granted.expires_at_ms) == (anna, "holder of x", 1000)
    assert renewed.expires_at_ms == 5000


def test_a_renewal_that_changes_nothing_is_no_event() -> None:
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    leases.kinds()
    leases.renew(anna, 1)
    assert leases.kinds() == []


def test_only_what_ends_or_is_granted_by_itself_is_pushed() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    leases.claim(ben, "x", ttl_ms=1000, wait_ms=FOREVER)
    assert leases.notices == [], "what is answered need not be pushed"
    leases.after(1000)
    leases.cancel(ben, 2)
    pushed = [(notice.session, notice.clock_ms, notice.status.claim, notice.status.phase) for notice in leases.notices]
    assert pushed == [(anna, 1000, 1, GONE), (ben, 1000, 2, HELD)]


def test_a_node_that_answers_nobody_reaches_the_same_state() -> None:  # P1
    story = a_story()
    story.describe("x")
    silent = LeaseState()
    events = []
    for slot, entry in enumerate(story.log, start=1):
        outcome = silent.apply(slot, entry, answering=False)
        assert outcome.answers == []
        events += outcome.events
    assert silent.snapshot() == story.state.snapshot()
    assert events == story.events
