"""Trying, waiting, timing out, abandoning, renewing and releasing, in virtual time (P1 to P11: see the design)."""

import random
from collections.abc import Sequence

import pytest

from lessor.client.errors import AcquireTimeout, BadRequest, Unavailable
from lessor.client.protocol import NOT_HELD, WITHDRAW_GRACE_MS, LeaseState
from lessor.core.commands import Describe, Release
from lessor.core.requests import Answer, Busy, Redirect
from lessor.core.results import ClaimPage, ClaimStatus, Denied, NotHeld, Released, Renewed

from ..support.fake_service import FakeClient, Hop, Outcome, World


def held_by(client: FakeClient, name: str = "x", ttl_ms: int = 30_000) -> Outcome:
    """Have a client acquire what is free."""
    outcome = client.acquire(name, ttl_ms)
    client.world.finish(outcome)
    assert client.holds(outcome.lease)
    return outcome


def error_of(outcome: Outcome) -> tuple[type, bool]:
    """The kind of an error, and whether it says that the outcome is not known."""
    assert isinstance(outcome.value, AcquireTimeout | Unavailable), outcome
    return type(outcome.value), outcome.value.indefinite


def nothing_up(hop: Hop) -> Sequence[float]:
    return () if hop.up else (1.0,)


def nothing_down(hop: Hop) -> Sequence[float]:
    return (1.0,) if hop.up else ()


# --- trying and waiting ----------------------------------------------------------------------------------------------


def test_a_free_name_is_held_at_once_with_the_token_that_the_service_gave() -> None:
    world = World()
    outcome = held_by(world.client())
    claim = world.claims(outcome.tag)[0]
    lease = outcome.lease
    assert (lease.token, lease.claim, lease.expires_at_ms) == (claim.token, claim.claim, claim.ends_at_ms)
    assert (lease.path, lease.holder, lease.data, lease.ttl_ms) == (("x",), "client 1", outcome.tag, 30_000)


def test_a_try_for_what_is_held_is_denied_and_stands_in_no_line() -> None:  # P9
    world = World()
    held_by(world.client())
    tried = world.client().acquire(timeout_ms=0)
    world.finish(tried)
    assert isinstance(tried.value, Denied)
    assert tried.value.holder == "client 1"
    assert not world.claims(tried.tag)


def test_waiters_are_served_in_the_order_in_which_they_came_and_told_without_asking() -> None:  # P7
    world = World()
    first = held_by(world.client())
    waiting = []
    for _ in range(4):
        waiting.append(world.client().acquire())
        world.run(20)
    world.clients[0].release(first.lease)
    for place, outcome in enumerate(waiting, start=1):
        world.finish(outcome, within_ms=10)
        assert sum(other.done for other in waiting) == place
        world.clients[place].release(outcome.lease)
    world.run(10)
    assert not world.claims()


def test_a_place_in_the_queue_is_counted_for_the_caller() -> None:
    world = World()
    held_by(world.client())
    waiting = [world.client().acquire() for _ in range(3)]
    world.run(10_000)
    assert [outcome.acquire.waiters_ahead for outcome in waiting if outcome.acquire] == [0, 1, 2]


def test_a_push_that_was_lost_is_found_by_the_next_ping() -> None:
    world = World()
    first, second = world.client(), world.client(session_timeout_ms=9_000)
    lease = held_by(first).lease
    waiting = second.acquire()
    world.run(50)
    world.fate = lambda hop: (1.0,) if hop.up or hop.client == 1 else ()
    world.finish(first.release(lease))
    world.run(50)
    world.heal()
    assert not waiting.done
    world.finish(waiting, within_ms=3_100)
    assert second.holds(waiting.lease)


def test_a_push_that_overtakes_the_answer_to_its_claim_is_found_by_the_next_ping() -> None:
    world = World()
    first, second = world.client(), world.client(session_timeout_ms=900)
    lease = held_by(first).lease
    held_by(second, "warm")

    def slow_answer(hop: Hop) -> Sequence[float]:
        answers = [message.result for message in hop.messages if isinstance(message, Answer)]
        return (40.0,) if any(isinstance(result, ClaimStatus) for result in answers) else (1.0,)

    world.fate = slow_answer
    waiting = second.acquire()
    world.run(5)
    first.release(lease)
    world.run(25)
    assert not waiting.done
    world.finish(waiting, within_ms=400)


def test_a_read_tells_who_holds_and_needs_no_session() -> None:
    world = World()
    held_by(world.client())
    reader = world.client()
    asked = reader.call(Describe("default", ("x",)))
    world.finish(asked)
    assert isinstance(asked.value, ClaimPage)
    assert [claim.holder for claim in asked.value.claims] == ["client 1"]
    assert reader.protocol.session is None


def test_a_push_that_was_lost_with_its_connection_is_found_as_soon_as_there_is_another() -> None:
    world = World()
    first, second = world.client(), world.client()
    lease = held_by(first).lease
    waiting = second.acquire()
    world.run(50)
    world.fate = lambda hop: (1.0,) if hop.up or hop.client == 1 else ()
    first.release(lease)
    world.run(20)
    world.heal()
    second.lose_connection(1)
    world.finish(waiting, within_ms=250)


def test_a_claim_that_an_operator_removed_stands_in_line_again_and_times_out_at_its_time() -> None:
    world = World()
    lease = held_by(world.client()).lease
    client = world.client(session_timeout_ms=900)
    waiting, patient = client.acquire(timeout_ms=700), client.acquire()
    for _ in range(3):
        world.run(100)
        for claim in [*world.claims(waiting.tag), *world.claims(patient.tag)]:
            world.service.state.claims.end(claim, "cancelled")
    world.finish(waiting)
    assert error_of(waiting) == (AcquireTimeout, False)
    assert waiting.at >= 700
    world.clients[0].release(lease)
    world.finish(patient, within_ms=1_000)


# --- timing out (P9) -------------------------------------------------------------------------------------------------


def test_a_timeout_is_definite_once_the_service_says_that_the_claim_is_withdrawn() -> None:
    world = World()
    held_by(world.client())
    waiting = world.client().acquire(timeout_ms=700)
    world.finish(waiting)
    assert error_of(waiting) == (AcquireTimeout, False)
    assert 700 <= waiting.at - 4 <= 705
    assert not world.claims(waiting.tag)


def test_a_timeout_is_indefinite_if_the_word_of_the_withdrawal_does_not_come_in_time() -> None:
    world = World()
    lease = held_by(world.client()).lease
    waiting = world.client().acquire(timeout_ms=700)
    world.run(100)
    world.fate = lambda hop: () if hop.client == 2 else (1.0,)
    world.finish(waiting)
    assert error_of(waiting) == (AcquireTimeout, True)
    assert waiting.at == pytest.approx(704 + WITHDRAW_GRACE_MS, abs=2)
    world.clients[0].release(lease)
    world.run(100)
    world.heal()
    world.run(2_000)
    assert not world.claims(), "the client goes on withdrawing it"


def test_a_grant_that_comes_between_the_timeout_and_the_withdrawal_is_given_back() -> None:
    world = World()
    lease = held_by(world.client()).lease
    waiting = world.client().acquire(timeout_ms=700)
    world.run(699)
    world.fate = lambda hop: (30.0,) if hop.client == 2 else (1.0,)
    world.clients[0].release(lease)
    world.finish(waiting)
    assert error_of(waiting) == (AcquireTimeout, False)
    assert world.service.kinds.count("granted") == 2
    assert not world.claims()


def test_a_request_that_never_left_has_definitely_had_no_effect() -> None:
    world = World()
    for node in (1, 2, 3):
        world.kill(node)
    client = world.client()
    waiting, tried, read = client.acquire(timeout_ms=900), client.acquire(timeout_ms=0), client.call(Release(1), 500)
    world.finish(waiting, tried, read)
    assert error_of(waiting) == error_of(tried) == error_of(read) == (Unavailable, False)
    assert (waiting.at, tried.at, read.at) == (900, 10_000, 500)


@pytest.mark.parametrize("reply", ["nobody leads", "busy"])
def test_a_request_that_was_turned_away_may_yet_take_effect_by_a_copy_of_it(reply: str) -> None:  # P9
    world = World()
    client = world.client()
    held_by(client, "warm")
    if reply == "busy":
        world.service.reply = lambda node, request: Busy(request.number)
    else:
        world.depose()
    world.fate = lambda hop: (1.0, 2_000.0) if hop.up else (1.0,)
    waiting = client.acquire(timeout_ms=900)
    world.finish(waiting)
    assert error_of(waiting) == (Unavailable, True)
    client.die()  # or it would ask again itself, to withdraw
    world.heal()
    world.run(5_000)
    assert world.claims(waiting.tag)


@pytest.mark.parametrize("fate", [nothing_up, nothing_down])
def test_a_request_without_any_answer_may_have_had_an_effect(fate: object) -> None:
    world = World()
    client = world.client()
    held_by(client, "warm")
    world.fate = fate  # type: ignore[assignment]
    waiting, tried = client.acquire("x", timeout_ms=900), client.acquire("y", timeout_ms=0)
    released = client.release(held := client.believes()[0], 600)
    world.finish(waiting, tried, released)
    assert error_of(waiting) == error_of(tried) == error_of(released) == (Unavailable, True)
    assert (waiting.at - 5, tried.at - 5, released.at - 5) == (900, 10_000, 600)
    assert held.state is LeaseState.RELEASED
    world.heal()
    world.run(40_000)
    assert not world.claims(), "what nobody waits for is withdrawn, and released if it was granted"


def test_a_request_that_was_passed_on_and_then_redirected_may_yet_take_effect() -> None:
    world = World()
    client = world.client()
    held_by(client, "warm")
    world.service.held_up = True
    waiting = client.acquire(timeout_ms=900)
    world.run(100)
    world.depose()
    world.finish(waiting)
    assert error_of(waiting) == (Unavailable, True)
    world.elect(2, adopt=True)
    world.run(10_000)
    assert not world.claims(waiting.tag)


def test_what_took_effect_and_was_answered_after_the_timeout_is_given_back() -> None:
    world = World()
    client = world.client()
    held_by(client, "warm")
    world.fate = lambda hop: (400.0,)
    waiting = client.acquire(timeout_ms=600)
    world.finish(waiting)
    assert error_of(waiting) == (Unavailable, True)
    world.run(5_000)
    assert world.service.executed[waiting.tag]
    assert not world.claims(waiting.tag)


# --- abandoning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_ms", range(9))
@pytest.mark.parametrize("timeout_ms", [0, 5_000])
def test_an_acquire_that_is_abandoned_at_any_moment_leaves_nothing_behind(after_ms: int, timeout_ms: int) -> None:
    world = World()
    client = world.client()
    outcome = client.acquire(timeout_ms=timeout_ms)
    world.run(after_ms)
    client.abandon(outcome)
    world.run(3_000)
    assert not world.claims()
    assert not client.believes()


@pytest.mark.parametrize("after_ms", range(6))
def test_a_wait_that_is_abandoned_around_its_grant_leaves_nothing_behind(after_ms: int) -> None:
    world = World()
    first, second = world.client(), world.client()
    lease = held_by(first).lease
    waiting = second.acquire()
    world.run(50)
    first.release(lease)
    world.run(after_ms)
    second.abandon(waiting)
    world.run(3_000)
    assert not world.claims()
    assert not second.believes()


def test_abandoning_twice_or_after_a_failure_changes_nothing() -> None:
    world = World()
    held_by(world.client())
    client = world.client()
    waiting = client.acquire(timeout_ms=100)
    world.finish(waiting)
    client.abandon(waiting)
    client.abandon(waiting)
    world.run(1_000)
    assert len(world.claims()) == 1


# --- one effect (P6) -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adopt", [True, False])
def test_what_a_dying_leader_had_proposed_takes_effect_once_whether_it_is_adopted_or_lost(*, adopt: bool) -> None:
    world = World()
    client = world.client()
    held_by(client, "warm")
    world.service.held_up = True
    outcome = client.acquire()
    released = client.release(client.believes()[0])
    world.run(30)
    world.kill(1)
    world.run(100)
    world.elect(3, adopt=adopt)
    world.finish(outcome, released, within_ms=1_000)
    assert len(world.service.executed[outcome.tag]) == 1
    assert released.value == Released()
    numbers = {message.number for hop in world.hops if hop.up and hop.at > 10 for message in hop.messages}
    assert numbers == {3, 4}, "a retry keeps its number"


def test_a_release_that_was_answered_into_the_void_is_answered_the_same_again() -> None:
    world = World()
    client = world.client()
    lease = held_by(client).lease
    world.fate = nothing_down
    released = client.release(lease)
    world.run(500)
    assert not world.claims()
    world.heal()
    world.finish(released)
    assert released.value == Released()


def test_a_release_that_comes_late_cannot_touch_the_next_holder() -> None:
    world = World()
    first, second = world.client(), world.client()
    lease = held_by(first).lease
    world.fate = lambda hop: (1.0, 300.0, 2_000.0)
    first.release(lease)
    world.run(10)
    world.heal()
    taken = held_by(second)
    world.run(5_000)
    assert second.holds(taken.lease)
    assert world.claims(taken.tag)


def test_an_answer_is_kept_only_until_the_client_has_seen_it() -> None:  # P10
    world = World()
    client = world.client(session_timeout_ms=1_000)
    for turn in range(30):
        outcome = held_by(client, f"name {turn}")
        world.finish(client.release(outcome.lease))
    world.run(2_000)
    record = world.service.state.sessions_open.records()[0]
    assert len(record.replies) <= 1


# --- renewing --------------------------------------------------------------------------------------------------------


def test_a_lease_is_renewed_at_a_third_of_its_ttl_with_some_jitter() -> None:
    world = World()
    client = world.client(session_timeout_ms=30 * 60 * 1000)
    lease = held_by(client, ttl_ms=9_000).lease
    ends = []
    for _ in range(100):
        world.run(300)
        ends.append(world.claims()[0].ends_at_ms)
    steps = [late - early for early, late in zip(sorted(set(ends)), sorted(set(ends))[1:], strict=False)]
    assert len(steps) >= 9
    assert all(2_700 <= step <= 3_010 for step in steps)
    assert len(set(steps)) > 1, "the jitter keeps many leases from renewing in step"
    assert client.holds(lease)


def test_a_renewal_is_tried_again_until_it_arrives() -> None:
    world = World()
    client = world.client()
    lease = held_by(client, ttl_ms=9_000).lease
    world.run(2_500)
    world.fate = lambda hop: ()
    world.run(5_000)
    world.heal()
    world.run(3_000)
    assert client.holds(lease)
    assert world.claims()[0].ends_at_ms > 11_000


def test_a_renewal_that_was_refused_for_want_of_room_is_tried_again() -> None:
    world = World()
    client = world.client()
    lease = held_by(client, ttl_ms=3_000).lease
    turned_away = []

    def busy(node: int, request: object) -> object:
        turned_away.append(request)
        return Redirect(request.number, 0, "", indefinite=False) if len(turned_away) < 12 else None  # type: ignore[attr-defined]

    world.service.reply = busy
    world.run(12_000)
    assert len(turned_away) > 12
    assert client.holds(lease)


def test_a_renewal_never_shortens_a_lease() -> None:  # P4
    world = World()
    client = world.client()
    lease = held_by(client, ttl_ms=20_000).lease
    before = client.protocol.safe_until_ms(lease)
    renewed = client.renew(lease, ttl_ms=200)
    world.finish(renewed)
    assert renewed.value == Renewed(lease.expires_at_ms)
    assert client.protocol.safe_until_ms(lease) >= before


def test_answers_to_renewals_that_arrive_in_the_wrong_order_leave_the_later_deadline() -> None:  # P4
    world = World()
    client = world.client()
    lease = held_by(client, ttl_ms=20_000).lease
    delays = iter([(50.0,), (1.0,)])
    world.fate = lambda hop: (1.0,) if hop.up else next(delays)
    renewals = [client.renew(lease), client.renew(lease, ttl_ms=60_000)]
    world.finish(*renewals)
    assert lease.expires_at_ms == world.claims()[0].ends_at_ms >= 60_000


def test_a_lease_that_is_not_to_be_renewed_is_lost_at_its_deadline() -> None:  # P8
    world = World()
    client = world.client()
    outcome = client.acquire(ttl_ms=3_000, auto_renew=False)
    world.finish(outcome)
    deadline = client.protocol.safe_until_ms(outcome.lease)
    world.run(10_000)
    assert client.changes == [(deadline, outcome.lease)]
    assert (outcome.lease.state, outcome.lease.reason) == (LeaseState.LOST, "it expired")


@pytest.mark.parametrize("seed", range(8))
def test_a_lease_is_lost_no_later_than_its_deadline_whatever_the_network_does(seed: int) -> None:  # P8
    rng = random.Random(seed)
    world = World()
    client = world.client(offset_ms=rng.randrange(10**9))
    outcome = held_by(client, ttl_ms=rng.choice([100, 2_000, 7_000]))
    cut_at = rng.randrange(20_000)
    deadlines = []

    def fate(hop: Hop) -> Sequence[float]:
        if world.now < cut_at:
            return (rng.choice([1.0, 3.0, 20.0]),)
        return () if rng.random() < 0.9 else (rng.choice([1.0, 5_000.0]),)

    world.fate = fate
    for _ in range(400):
        deadlines.append(client.protocol.safe_until_ms(outcome.lease))
        world.run(100)
        if outcome.lease.state is LeaseState.LOST:
            break
    told = [at for at, lease in client.changes if lease is outcome.lease and lease.state is LeaseState.LOST]
    assert told in ([], [client.protocol.safe_until_ms(outcome.lease)])
    assert deadlines == sorted(deadlines)


@pytest.mark.parametrize("pushed", [True, False])
def test_a_lease_that_somebody_else_released_is_lost_with_the_push_or_else_with_the_next_renewal(
    *, pushed: bool
) -> None:
    world = World()
    client, other = world.client(), world.client()
    lease = held_by(client).lease
    world.broken.add(lease.token)
    world.fate = lambda hop: () if hop.client == 1 and not pushed else (1.0,)
    released = other.call(Release(lease.token))
    world.finish(released)
    assert released.value == Released()
    world.heal()
    world.run(1 if pushed else 11_000)
    assert (lease.state, lease.reason) == (LeaseState.LOST, NOT_HELD)


def test_a_renewal_of_a_lost_lease_is_answered_that_it_is_not_held() -> None:
    world = World()
    client = world.client()
    outcome = client.acquire(ttl_ms=200, auto_renew=False)
    world.finish(outcome)
    world.run(1_000)
    renewed = client.renew(outcome.lease)
    world.finish(renewed)
    assert renewed.value == NotHeld()
    assert outcome.lease.state is LeaseState.LOST


def test_a_lease_without_a_ttl_cannot_be_renewed_and_lives_as_long_as_its_session_is_kept() -> None:
    world = World()
    client = world.client(session_timeout_ms=900)
    lease = held_by(client, ttl_ms=0).lease
    renewed = client.renew(lease)
    world.finish(renewed)
    assert isinstance(renewed.value, BadRequest)
    world.run(20_000)
    assert client.holds(lease)
    world.fate = lambda hop: ()
    world.run(901)
    assert lease.state is LeaseState.LOST


def test_the_release_of_a_lost_lease_is_answered_that_it_is_not_held() -> None:
    world = World()
    client = world.client()
    outcome = client.acquire(ttl_ms=200, auto_renew=False)
    world.finish(outcome)
    world.run(1_000)
    released = client.release(outcome.lease)
    world.finish(released)
    assert released.value == NotHeld()
    assert outcome.lease.state is LeaseState.LOST, "it is not called released"


def test_news_of_a_grant_that_come_after_its_end_are_not_handed_to_the_caller() -> None:  # P3
    world = World()
    first, second = world.client(), world.client()
    lease = held_by(first).lease
    waiting = second.acquire(ttl_ms=300)
    world.run(50)
    world.fate = lambda hop: (500.0,) if hop.client == 2 and not hop.up and world.now < 400 else (1.0,)
    first.release(lease)
    world.finish(waiting)
    assert second.holds(waiting.lease)
    assert len(world.service.executed[waiting.tag]) == 2, "it was given back, and stood in line again"
