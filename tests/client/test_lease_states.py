"""HELD, JEOPARDY, LOST and RELEASED, renewal and its limits, suspends and stalls, in virtual time (P4, P8)."""

from collections.abc import Sequence
from typing import Any

import pytest

from lessor.client.leases import STALL_MS
from lessor.client.records import LeaseRecord
from lessor.client.states import LeaseState, Loss
from lessor.core.commands import Release, Renew
from lessor.core.requests import Answer, Request
from lessor.core.results import TOO_MANY, ClaimPhase, ClaimStatus, Failed

from ..support.fake_service import FakeClient, Hop, World

TTL_MS = 9_000


def held(client: FakeClient, ttl_ms: int = TTL_MS, *, auto_renew: bool = True, **terms: Any) -> LeaseRecord:
    outcome = client.acquire("x", ttl_ms, auto_renew=auto_renew, **terms)
    client.world.finish(outcome)
    return outcome.lease


def silence(hop: Hop) -> Sequence[float]:
    return ()


def operations(world: World, kind: type) -> int:
    """How many requests of a kind were sent."""
    requests = [m for hop in world.hops if hop.up for m in hop.messages if isinstance(m, Request)]
    return sum(isinstance(request.operation, kind) for request in requests)


def moves(client: FakeClient) -> list[LeaseState]:
    return [state for _, _, state in client.states]


# --- jeopardy --------------------------------------------------------------------------------------------------------


def test_a_lease_that_cannot_be_renewed_is_in_jeopardy_for_the_last_third_of_its_ttl_and_then_lost() -> None:  # P8
    world = World()
    client = world.client()
    lease = held(client)
    deadline = client.protocol.safe_until_ms(lease)
    world.fate = silence
    world.run(TTL_MS + 10)
    assert client.states == [
        (deadline - TTL_MS // 3, lease.token, LeaseState.JEOPARDY),
        (deadline, lease.token, LeaseState.LOST),
    ]
    assert (lease.loss, lease.reason) == (Loss.UNREACHABLE, "it expired before it could be renewed")


def test_a_renewal_that_gets_through_ends_the_jeopardy_and_a_lease_in_jeopardy_is_still_held() -> None:
    world = World()
    client = world.client()
    lease = held(client)
    world.fate = silence
    world.run(TTL_MS * 2 // 3 + 100)
    assert lease.state is LeaseState.JEOPARDY
    assert client.holds(lease)
    world.heal()
    world.run(2_000)
    assert moves(client) == [LeaseState.JEOPARDY, LeaseState.HELD]


def test_a_lease_without_a_ttl_is_in_jeopardy_when_its_session_is() -> None:
    world = World()
    client = world.client(session_timeout_ms=TTL_MS)
    lease = held(client, 0)
    world.run(TTL_MS * 3)
    assert moves(client) == []
    world.fate = silence
    world.run(TTL_MS + 10)
    assert moves(client) == [LeaseState.JEOPARDY, LeaseState.LOST]
    assert lease.loss is Loss.UNREACHABLE


def test_a_lease_that_nobody_renews_is_never_in_jeopardy() -> None:
    world = World()
    client = world.client()
    lease = held(client, auto_renew=False)
    world.run(TTL_MS + 10)
    assert moves(client) == [LeaseState.LOST]
    assert (lease.loss, lease.reason) == (Loss.EXPIRED, "it expired")


def test_a_lease_that_is_renewed_in_time_never_changes() -> None:
    world = World()
    client = world.client()
    lease = held(client)
    world.run(TTL_MS * 5)
    assert moves(client) == []
    assert lease.lateness_ms <= 1


def test_each_kind_of_loss_has_its_name() -> None:
    world = World()
    client, other = world.client(), world.client()
    lease = held(client)
    world.broken.add(lease.token)
    world.finish(other.call(Release(lease.token)))
    world.run(10)
    assert lease.loss is Loss.ENDED
    unowned = held(client, 0)
    world.broken.add(unowned.token)
    world.service.state._end_session(world.service.state.sessions_open[unowned.session], "session_expired")
    world.run(20_000)
    assert unowned.loss is Loss.SESSION_ENDED


def test_a_released_lease_is_told_as_released_and_has_no_loss() -> None:
    world = World()
    client = world.client()
    lease = held(client)
    world.finish(client.release(lease))
    assert moves(client) == [LeaseState.RELEASED]
    assert lease.loss is None


# --- renewal and its limits ------------------------------------------------------------------------------------------


def test_a_renewal_that_begins_late_is_measured() -> None:
    world = World()
    client = world.client()
    lease = held(client)
    due = lease.renew_at_ms
    stand_still(client, due - client.now_ms + 800)
    assert lease.lateness_ms == 800
    world.run(TTL_MS)
    assert lease.lateness_ms <= 1


def test_a_lease_is_not_held_for_longer_than_max_hold_and_is_free_at_once() -> None:  # P3
    world = World()
    client = world.client()
    lease = held(client, max_hold_ms=2 * TTL_MS)
    until = lease.hold_until_ms
    world.run(2 * TTL_MS + 50)
    assert client.states == [(until, lease.token, LeaseState.LOST)]
    assert (lease.loss, "max_hold" in lease.reason) == (Loss.MAX_HOLD, True)
    assert not world.claims(), "it was released"


def test_max_hold_ends_a_detached_lease_too_and_is_no_deadline_to_be_renewed_past() -> None:
    world = World()
    client = world.client()
    outcome = client.acquire("x", TTL_MS, detached=True, max_hold_ms=4_000)
    world.finish(outcome)
    world.run(3_999)
    assert client.protocol.safe_until_ms(outcome.lease) == outcome.lease.hold_until_ms
    world.run(50)
    assert outcome.lease.loss is Loss.MAX_HOLD
    assert not world.claims()


def test_a_lease_whose_work_makes_no_progress_is_not_renewed_for_ever() -> None:
    world = World()
    client = world.client()
    lease = held(client, progress_ms=5_000)
    for _ in range(10):
        world.run(3_000)
        client.protocol.now_ms = client.now_ms
        client.protocol.progress(lease)
        client.turn()
    assert client.holds(lease)
    world.run(5_000 + TTL_MS)
    assert moves(client) == [LeaseState.JEOPARDY, LeaseState.LOST]
    assert lease.loss is Loss.NO_PROGRESS


def test_progress_in_jeopardy_renews_at_once() -> None:
    world = World()
    client = world.client()
    lease = held(client, progress_ms=1_000)
    world.run(TTL_MS * 2 // 3 + 500)
    assert lease.state is LeaseState.JEOPARDY
    client.protocol.now_ms = client.now_ms
    client.protocol.progress(lease)
    client.turn()
    world.run(10)
    assert moves(client) == [LeaseState.JEOPARDY, LeaseState.HELD]


# --- suspends and stalls ---------------------------------------------------------------------------------------------


def stand_still(client: FakeClient, ms: float) -> None:
    """Have the client's process stop for a while; what arrives meanwhile lies unread."""
    world = client.world

    def later(hop: Hop) -> Sequence[float]:
        return (1.0,) if hop.client != client.number else (max(1.0, until - world.now),)

    until = world.now + ms
    world.fate = later
    client.dead = True
    world.run(ms)
    client.dead = False
    world.heal()
    client.turn()


@pytest.mark.parametrize("pushed", [True, False], ids=["its end is pushed", "nothing is heard"])
def test_a_process_that_stood_still_over_its_deadline_is_told_first_thing_and_why(*, pushed: bool) -> None:  # P8
    world = World()
    client = world.client()
    lease = held(client)
    stand_still(client, TTL_MS + 1_000)
    if pushed:
        world.run(5)
    assert client.states[0][0] == client.now_ms - (5 if pushed else 0)
    assert moves(client) == [LeaseState.LOST]
    assert (lease.loss, lease.reason) == (Loss.EXPIRED, "it expired while this process stood still")


def test_a_short_stall_is_no_reason() -> None:
    world = World()
    client = world.client()
    lease = held(client, auto_renew=False)
    world.run(client.protocol.safe_until_ms(lease) - client.now_ms - 1)
    stand_still(client, STALL_MS)
    assert lease.reason == "it expired"


def test_a_lease_that_ends_because_of_a_suspend_says_so() -> None:
    world = World()
    client = world.client()
    lease = held(client)
    client.offset_ms += TTL_MS + 5  # the clock that counts sleep has gone on
    client.protocol.suspended(client.now_ms)
    client.turn()
    assert (lease.state, lease.loss) == (LeaseState.LOST, Loss.SUSPENDED)
    assert "suspended" in lease.reason


def test_what_has_survived_a_suspend_is_renewed_at_once() -> None:
    world = World()
    client = world.client()
    lease = held(client)
    client.offset_ms += 2_000
    client.protocol.suspended(client.now_ms)
    client.turn()
    world.run(5)
    assert operations(world, Renew) == 1
    assert client.holds(lease)


def test_a_release_that_comes_after_the_deadline_does_not_pass_for_one_in_time() -> None:  # P8
    world = World()
    client = world.client()
    lease = held(client)
    client.offset_ms += TTL_MS + 5
    world.finish(client.release(lease))
    assert (lease.state, lease.loss) == (LeaseState.LOST, Loss.EXPIRED)


def test_the_news_of_an_expiry_is_no_news_after_the_deadline() -> None:
    world = World()
    client = world.client()
    lease = held(client, auto_renew=False)
    client.offset_ms += TTL_MS + 5
    client.protocol.now_ms = client.now_ms
    client.protocol._leases.gone(ClaimStatus(lease.claim, ClaimPhase.GONE, lease.token, 0, 0))
    assert lease.loss is Loss.EXPIRED


def test_a_renewal_that_the_service_refuses_is_asked_for_again_soon() -> None:  # P4
    world = World()
    client = world.client()
    lease = held(client)
    refused = 2

    def busy(_: int, request: Request) -> object:
        nonlocal refused
        if isinstance(request.operation, Renew) and refused:
            refused -= 1
            return Answer(request.number, world.service.clock_ms(world.now), Failed(TOO_MANY, "full"))
        return None

    world.service.reply = busy
    world.run(TTL_MS // 3 + 2 * TTL_MS // 20 + 100)
    assert refused == 0
    assert operations(world, Renew) == 3
    assert client.protocol.safe_until_ms(lease) > client.now_ms + TTL_MS - 600
