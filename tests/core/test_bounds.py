"""What one client or one packet could do to a node if a bound were missing (P10, P11)."""

import pytest

from lessor.core import limits
from lessor.core.acceptor import Acceptor
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.commands import FOREVER, ListClaims, Ping, Release
from lessor.core.effects import Address, Connection, Role
from lessor.core.encoding import INT_MAX, decode, encode
from lessor.core.errors import Malformed
from lessor.core.gateway import FromClient, Gateway, NodeFacts
from lessor.core.learner import SERVED_KEPT_MS, Learner
from lessor.core.lease_state import LeaseState
from lessor.core.messages import (
    Accept,
    FetchSnapshot,
    Leadership,
    Prepare,
    Progress,
    Promise,
    SnapshotChunk,
    Submit,
    Tick,
)
from lessor.core.proposer import Proposer
from lessor.core.requests import Rejected, Request
from lessor.core.results import ClaimPage, ClaimStatus, Pong

from ..support.leases import Leases


@pytest.mark.parametrize("number", [0, INT_MAX])
def test_a_request_number_that_leaves_no_room_for_the_next_is_refused_at_the_gateway(number: int) -> None:
    gateway = Gateway(NodeFacts(1, "lessor", "0", {1: "tcp://h:1"}))
    gateway.step(Leadership("leader", Ballot(1, 1), 1))
    found = gateway.step(FromClient(Connection(b"c"), Request(1, number, 0, Release(1)))).sends
    assert [type(send.message) for send in found] == [Rejected]


def test_the_largest_numbers_leave_a_state_that_can_be_kept() -> None:
    leases = Leases()
    session = leases.session()
    for number in (*range(1, limits.REPLIES_PER_SESSION_MAX + 1), INT_MAX):
        leases.batch(leases.command(session, Release(INT_MAX), number=number, acked_below=0))
    assert LeaseState.restore(leases.state.snapshot()).snapshot() == leases.state.snapshot()


def test_a_listing_looks_at_a_bounded_number_of_claims_and_comes_to_its_end_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LIST_LOOK_MAX", 4)
    leases = Leases()
    session = leases.session()
    for number in range(20):
        leases.claim(session, f"x{number}", namespace="here" if number % 7 == 0 else "elsewhere")
    after, seen, pages = 0, [], 0
    while pages == 0 or after:
        page = leases.list_claims("here", after=after, limit=10)
        assert isinstance(page, ClaimPage)
        seen += [info.path[0] for info in page.claims]
        after, pages = page.upto, pages + 1
    assert (seen, pages) == (["x0", "x7", "x14"], 5)


def test_a_ping_counts_a_bounded_number_of_places_however_often_it_names_a_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WAITERS_COUNTED_MAX", 5)
    leases = Leases()
    session = leases.session()
    claims = [leases.claim(session, "x", wait_ms=FOREVER).claim for _ in range(6)]
    found = leases.batch(leases.command(session, Ping((claims[4], claims[4], claims[3], claims[5]))))[0]
    assert isinstance(found, Pong)
    assert [(status.claim, status.waiters_ahead) for status in found.claims] == [
        (claims[4], 3),
        (claims[3], 5),
        (claims[5], 5),
    ]
    assert all(isinstance(status, ClaimStatus) for status in found.claims)


def test_a_snapshot_is_made_once_for_whoever_repeats_the_question_while_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_CHUNK_BYTES", 10)
    made: list[int] = []
    snapshot = LeaseState.snapshot

    def counted(state: LeaseState) -> bytes:
        made.append(state.applied_upto)
        return snapshot(state)

    monkeypatch.setattr(LeaseState, "snapshot", counted)
    learner = Learner(1, (1, 2, 3), LeaseState())
    for _ in range(20):
        learner.state.header.applied_upto += 1  # the state moves on
        sends = learner.step(FetchSnapshot(2, 0, 0)).sends
        assert [type(send.message) for send in sends] == [SnapshotChunk]
    assert len(made) == 1


def test_a_snapshot_that_nobody_asks_for_any_more_is_dropped_by_a_learner_that_hears_nothing_else() -> None:
    """P10: it may be a gigabyte; a learner that is not woken for it would keep it until it is told something."""
    learner = Learner(1, (1, 2, 3), LeaseState())
    learner.step(Tick(1_000))
    learner.step(FetchSnapshot(2, 0, 0))
    learner.step(Tick(1_000))
    assert learner._serving
    due_ms = learner.wake_at_ms
    assert due_ms == 1_000 + SERVED_KEPT_MS + 1
    learner.step(Tick(due_ms))
    assert not learner._serving
    assert learner.wake_at_ms != due_ms, "it is not woken again and again"


def test_a_ballot_that_would_leave_no_higher_one_is_no_message() -> None:
    assert decode(encode(Prepare(Ballot(limits.BALLOT_COUNTER_MAX, 1), 1)))
    with pytest.raises(Malformed):
        decode(encode(Prepare(Ballot(limits.BALLOT_COUNTER_MAX + 1, 1), 1)))


def test_an_accept_absurdly_far_ahead_is_dropped() -> None:
    acceptor = Acceptor(1, (1, 2, 3))
    assert acceptor.step(Accept(Ballot(1, 2), limits.SLOTS_AHEAD_MAX + 1, b"v", 0)).writes == []
    found = acceptor.step(Accept(Ballot(1, 2), limits.SLOTS_AHEAD_MAX, b"v", 0))
    assert found.writes
    assert found.sends[0].to == Address(1, Role.LEARNER)


def test_a_namespace_of_somebody_else_is_not_walked_for_a_listing_from_its_end() -> None:
    leases = Leases()
    last = leases.claim(leases.session(), "x").claim
    found = leases.batch(leases.command(0, ListClaims("", last, 10)))[0]
    assert found == ClaimPage((), 0, 0)


def test_time_does_not_count_for_leases_while_nothing_gets_chosen() -> None:
    """P4, DESIGN §5: the pings of the living wait behind the slot that is stuck; their sessions must not end for it."""
    proposer = Proposer(1, (1,), NO_BALLOT, 0)
    proposer.step(Tick(1_000))
    ballot = proposer.ballot
    for message in (Promise(ballot, 1, 1, (), 0, 0), Tick(1_000), Progress(1, 0, ballot), Tick(1_100)):
        proposer.step(message)
    proposer.step(Submit(ballot, (b"command",)))
    for now_ms in range(1_200, 6_000, 100):
        proposer.step(Tick(now_ms))
    assert proposer.elapsed_ms <= 200 + limits.LEADER_STALL_MS + 100
    stood_at = proposer.elapsed_ms
    proposer.step(Progress(2, 0, ballot))
    proposer.step(Tick(6_100))
    proposer.step(Tick(6_200))
    assert proposer.elapsed_ms - stood_at >= 100, "it goes on when something is chosen"


def test_a_snapshot_that_the_asker_is_past_is_not_served_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer that was given up half way must not pin an old state for whoever has come further meanwhile."""
    monkeypatch.setattr(limits, "SNAPSHOT_CHUNK_BYTES", 10)
    learner = Learner(1, (1, 2, 3), LeaseState())
    learner.state.header.applied_upto = 5
    learner.step(FetchSnapshot(2, 0, 0))
    learner.state.header.applied_upto = 9
    (sent,) = learner.step(FetchSnapshot(2, 0, 7)).sends
    assert isinstance(sent.message, SnapshotChunk)
    assert sent.message.slot == 9
