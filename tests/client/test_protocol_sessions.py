"""Sessions that expire, clients that close and clients that fail, in virtual time (P3, P6, P8, P9)."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lessor.client.calling import CLOSE_TIMEOUT_MS, END_TIMEOUT_MS
from lessor.client.errors import AcquireTimeout, ClientClosed, ServiceBusy, Unavailable
from lessor.client.protocol import LeaseRecord, LeaseState
from lessor.core import limits
from lessor.core.commands import CreateSemaphore, Describe, OpenSession, Release
from lessor.core.requests import Answer, Busy
from lessor.core.results import ClaimStatus, Failed, Released

from ..support.fake_service import FakeClient, Fate, Hop, Outcome, World

SESSION_MS = 1_000


def acquired(client: FakeClient, name: str = "x", ttl_ms: int = 30_000, **options: Any) -> Outcome:
    outcome = client.acquire(name, ttl_ms, **options)
    client.world.finish(outcome)
    assert client.holds(outcome.lease)
    return outcome


def cut_off(world: World, client: FakeClient, *, up: bool = True, down: bool = True) -> Fate:
    """The fate in which one client's packets are lost, in these directions."""
    return lambda hop: () if hop.client == client.number and (up if hop.up else down) else (1.0,)


def outlive_the_session(world: World, client: FakeClient) -> None:
    """Cut a client off until its session is over; then let it through again."""
    world.fate = cut_off(world, client)
    world.until(lambda: client.protocol.session.number not in _sessions(world))  # type: ignore[union-attr]
    world.run(50)
    world.heal()


def _sessions(world: World) -> list[int]:
    return [record.session for record in world.service.state.sessions_open.records()]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The service has no room for one more answer to any session, until this is undone."""
    with monkeypatch.context() as patched:
        yield patched


def test_a_release_that_is_refused_for_want_of_room_goes_on_in_the_background(refused: pytest.MonkeyPatch) -> None:
    world = World()
    client = world.client()
    taken = acquired(client, ttl_ms=0)
    refused.setattr(limits, "REPLIES_PER_SESSION_MAX", 0)
    asked = client.release(taken.lease)
    world.finish(asked)
    assert isinstance(asked.value, ServiceBusy)
    assert asked.value.indefinite, "it is not given up"
    world.run(500)
    assert world.claims()
    refused.undo()
    world.until(lambda: not world.claims())


def test_a_lease_called_lost_is_given_back_though_it_is_refused_for_want_of_room(refused: pytest.MonkeyPatch) -> None:
    world = World()
    client = world.client()
    taken = acquired(client, ttl_ms=0, max_hold_ms=1_000)  # the service would hold it on with the session
    refused.setattr(limits, "REPLIES_PER_SESSION_MAX", 0)
    world.until(lambda: taken.lease.state is LeaseState.LOST)
    world.run(100)
    assert world.claims()
    refused.undo()
    world.until(lambda: not world.claims(), within_ms=500)


# --- expiry ----------------------------------------------------------------------------------------------------------


def test_a_client_opens_one_session_for_all_its_callers() -> None:
    world = World()
    client = world.client()
    outcomes = [client.acquire(name) for name in "abc"]
    world.finish(*outcomes)
    assert world.service.kinds.count("session_opened") == 1


def test_a_session_is_kept_alive_by_pings_at_a_third_of_its_timeout() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    acquired(client)
    world.run(20_000)
    assert len(_sessions(world)) == 1
    assert 55 <= sum(hop.up for hop in world.hops) <= 75


def test_when_its_session_expires_the_client_opens_another_with_a_new_key() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    acquired(client)
    outlive_the_session(world, client)
    world.run(2_000)
    assert client.protocol.session is not None
    assert client.protocol.session.number == 2
    operations = [message.operation for hop in world.hops if hop.up for message in hop.messages]
    assert len({operation.key for operation in operations if isinstance(operation, OpenSession)}) == 2


def test_a_lease_without_a_ttl_is_lost_with_its_session_and_no_later() -> None:  # P8
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    lease = acquired(client, ttl_ms=0).lease
    outlive_the_session(world, client)
    assert lease.state is LeaseState.LOST
    world.run(2_000)
    assert not world.claims()


def test_a_lease_with_a_ttl_outlives_its_session_and_is_renewed_and_released_by_its_token() -> None:  # P4
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    lease = acquired(client, ttl_ms=3_000).lease
    outlive_the_session(world, client)
    world.run(20_000)
    assert client.holds(lease)
    world.finish(released := client.release(lease))
    assert released.value == Released()
    assert not world.claims()


def test_a_waiting_acquire_stands_in_line_again_when_its_session_has_expired() -> None:
    world = World()
    first, second = world.client(), world.client(session_timeout_ms=SESSION_MS)
    lease = acquired(first).lease
    waiting = second.acquire()
    world.run(50)
    outlive_the_session(world, second)
    world.until(lambda: world.claims(waiting.tag), within_ms=SESSION_MS)
    world.finish(first.release(lease))
    world.finish(waiting, within_ms=10)
    assert second.holds(waiting.lease)


@pytest.mark.parametrize("timeout_ms", [400, 4_000])
def test_an_acquire_whose_session_expired_does_not_time_out_before_its_time(timeout_ms: int) -> None:
    world = World()
    client = world.client(session_timeout_ms=500)
    acquired(world.client())
    waiting = client.acquire(ttl_ms=0, timeout_ms=timeout_ms)
    world.run(10)
    world.service.state._end_session(world.service.state.sessions_open[2], "session_expired")
    world.finish(waiting)
    assert waiting.at >= timeout_ms
    assert isinstance(waiting.value, AcquireTimeout)
    assert waiting.value.indefinite, "it may have been granted, and a pin have kept the grant alive (P9)"


def test_a_release_whose_session_expired_is_carried_out_under_the_next() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    lease = acquired(client).lease
    world.fate = cut_off(world, client)
    released = client.release(lease)
    world.run(2 * SESSION_MS)
    world.heal()
    world.finish(released)
    assert released.value == Released()
    assert not world.claims()


@pytest.mark.parametrize("ttl_ms", [0, 30_000])
def test_no_grant_of_a_session_that_expired_is_believed_in_when_the_news_of_it_come_late(ttl_ms: int) -> None:  # P3
    world = World()
    client, other = world.client(session_timeout_ms=SESSION_MS), world.client()
    acquired(client, "warm")

    def fate(hop: Hop) -> Sequence[float]:
        if hop.client != client.number or hop.at > 2_500:
            return (1.0,)
        results = [message.result for message in hop.messages if isinstance(message, Answer)]
        if any(isinstance(result, ClaimStatus) for result in results):
            return (4_000.0,)  # by way of a connection that has come to a stop
        return (1.0,) if hop.at < 10 else ()

    world.fate = fate
    outcome = client.acquire(ttl_ms=ttl_ms)
    world.run(2_600)
    tried = other.acquire(timeout_ms=0)
    world.run(10_000)
    assert tried.done
    if ttl_ms:
        assert isinstance(outcome.value, LeaseRecord) or not outcome.done
    else:
        assert isinstance(tried.value, LeaseRecord)
        assert not outcome.done, "another holds it"


def test_a_late_word_that_the_old_session_expired_does_not_end_the_new_one() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    acquired(client, ttl_ms=0)
    world.fate = cut_off(world, client)
    calls = [client.call(Release(90 + number), within_ms=30_000) for number in range(3)]
    world.run(2 * SESSION_MS)
    words: list[Hop] = []

    def fate(hop: Hop) -> Sequence[float]:
        results = [message.result for message in hop.messages if isinstance(message, Answer)]
        if any(isinstance(result, Failed) for result in results):
            words.append(hop)
            return (1.0, 30.0, 200.0, 500.0)
        return (1.0,)

    world.fate = fate
    world.finish(*calls)
    lease = acquired(client, "y", ttl_ms=0).lease
    world.run(5_000)
    assert words
    assert client.holds(lease)
    assert world.service.kinds.count("session_opened") == 2


def test_of_two_requests_under_a_dead_session_the_later_answer_does_not_end_the_new_one() -> None:
    world = World()
    client = world.client(session_timeout_ms=60_000)
    acquired(client, "warm")
    world.service.state._end_session(world.service.state.sessions_open[1], "session_expired")
    delays = iter([(300.0,), (1.0,)])
    world.fate = lambda hop: (1.0,) if hop.up else next(delays, (1.0,))
    calls = [client.call(Release(91))]
    world.run(1)
    calls.append(client.call(Release(92)))
    world.run(50)
    lease = acquired(client, ttl_ms=0).lease
    world.run(1_000)
    assert all(call.done for call in calls)
    assert client.holds(lease)
    assert _sessions(world) == [2]


def test_a_session_that_an_operator_ended_takes_its_leases_without_a_ttl_along() -> None:  # P8
    world = World()
    client = world.client(session_timeout_ms=60_000)
    kept, lost = acquired(client, "kept").lease, acquired(client, "lost", ttl_ms=0).lease
    world.broken.add(lost.token)
    world.service.state._end_session(world.service.state.sessions_open[1], "session_expired")
    world.finish(client.renew(kept))
    assert (lost.state, lost.reason) == (LeaseState.LOST, "the session ended")
    assert client.holds(kept)


def test_a_lease_without_a_ttl_that_was_lost_while_nobody_led_is_given_back() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    lease = acquired(client, ttl_ms=0).lease
    world.depose()  # the lease clock stands still: to the service the session lives, and the lease with it
    world.run(3 * SESSION_MS)
    assert lease.state is LeaseState.LOST
    world.elect(2)
    world.run(500)
    assert _sessions(world) == [1]
    assert not world.claims()


def test_a_release_without_an_answer_goes_on_in_the_background() -> None:
    world = World()
    client = world.client()
    lease = acquired(client, ttl_ms=0).lease
    world.fate = cut_off(world, client)
    released = client.release(lease, within_ms=400)
    world.finish(released)
    assert isinstance(released.value, Unavailable)
    assert released.value.indefinite
    world.run(2_000)
    world.heal()
    world.run(1_500)
    assert _sessions(world) == [1]
    assert not world.claims()


def test_a_request_is_not_sent_without_a_session_while_the_next_one_is_opened() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    acquired(client, ttl_ms=0)
    outlive_the_session(world, client)
    since = len(world.hops)
    world.fate = lambda hop: (40.0,)
    calls = [client.call(Release(90 + number), within_ms=30_000) for number in range(3)]
    for node in (1, 2, 3, 1):
        world.run(15)
        client.lose_connection(node)
    world.finish(*calls)
    requests = [message for hop in world.hops[since:] if hop.up for message in hop.messages]
    assert all(request.session for request in requests if not isinstance(request.operation, OpenSession))


# --- what an expired session leaves behind (P9) ----------------------------------------------------------------------


def test_a_grant_whose_news_were_lost_with_its_session_makes_the_timeout_indefinite() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    acquired(client, "warm")
    world.fate = cut_off(world, client, up=False)
    outcome = client.acquire(ttl_ms=60_000, timeout_ms=9_000)
    world.run(2)
    world.fate = cut_off(world, client)
    world.run(3 * SESSION_MS)
    world.heal()
    world.finish(outcome)
    assert isinstance(outcome.value, AcquireTimeout | Unavailable)
    assert outcome.value.indefinite, "the grant lives until its ttl runs out"
    world.run(60_000)
    assert not world.claims(outcome.tag)


@pytest.mark.parametrize("ttl_ms", [0, 60_000])
def test_a_request_under_a_dead_session_is_indefinite_since_a_pin_or_a_ttl_may_keep_its_grant(ttl_ms: int) -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    acquired(client, "warm", ttl_ms=0)
    world.fate = cut_off(world, client, up=False)
    outcome = client.acquire(ttl_ms=ttl_ms, timeout_ms=9_000)
    world.run(2)
    world.fate = cut_off(world, client)
    world.run(3 * SESSION_MS)
    world.heal()
    world.service.reply = lambda node, request: (
        Busy(request.number) if isinstance(request.operation, OpenSession) else None
    )
    world.finish(outcome)
    assert isinstance(outcome.value, Unavailable)
    assert outcome.value.indefinite
    assert bool(world.claims(outcome.tag)) == bool(ttl_ms)


@pytest.mark.parametrize("ttl_ms", [0, 60_000])
def test_a_try_that_is_denied_by_its_own_lost_grant_is_not_called_denied(ttl_ms: int) -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    acquired(client, "warm")
    world.fate = cut_off(world, client, up=False)
    outcome = client.acquire(ttl_ms=ttl_ms, timeout_ms=0)
    world.run(2)
    world.fate = cut_off(world, client)
    world.run(3 * SESSION_MS)
    world.heal()
    world.finish(outcome)
    if ttl_ms:
        assert isinstance(outcome.value, Unavailable)
        assert outcome.value.indefinite
    else:
        assert client.holds(outcome.lease), "a grant without a ttl has ended with its session"


def test_a_push_that_was_lost_with_the_session_makes_the_timeout_indefinite() -> None:
    world = World()
    first, second = world.client(), world.client(session_timeout_ms=SESSION_MS)
    lease = acquired(first).lease
    waiting = second.acquire(ttl_ms=60_000, timeout_ms=9_000)
    world.run(50)
    world.fate = cut_off(world, second)
    first.release(lease)
    world.run(3 * SESSION_MS)
    world.heal()
    world.finish(waiting)
    assert isinstance(waiting.value, AcquireTimeout)
    assert waiting.value.indefinite


# --- closing ---------------------------------------------------------------------------------------------------------


def test_closing_releases_all_and_withdraws_all_that_waits() -> None:
    world = World()
    first, second = world.client(), world.client()
    held = [acquired(first, "a"), acquired(first, "b", ttl_ms=0)]
    taken = acquired(second, "c")
    waiting = first.acquire("c")
    world.run(20)
    world.finish(first.close(), within_ms=5)
    assert [claim.data for claim in world.claims()] == [taken.tag]
    assert _sessions(world) == [2]
    assert [outcome.lease.state for outcome in held] == [LeaseState.RELEASED] * 2
    assert isinstance(waiting.value, ClientClosed)


def test_a_close_that_nobody_answers_is_over_at_its_deadline() -> None:
    """It is that of docs/leases.md: users wait for two seconds at most, and at the interpreter's end for one."""
    assert (CLOSE_TIMEOUT_MS, END_TIMEOUT_MS) == (2_000, 1_000)
    world = World()
    client = world.client()
    acquired(client, "a", ttl_ms=60_000)
    world.silent = set(world.up)
    closed = client.close(within_ms=2_000)
    world.run(1_990)
    assert not closed.done
    world.finish(closed, within_ms=20)


def test_a_detached_lease_survives_closing() -> None:
    world = World()
    client = world.client()
    outcome = acquired(client, detached=True)
    world.finish(client.close())
    assert [claim.data for claim in world.claims()] == [outcome.tag]
    assert client.holds(outcome.lease)
    world.run(31_000)
    assert not world.claims()
    assert [lease.state for _, lease in client.changes] == [LeaseState.LOST]


def test_closing_releases_a_lease_that_has_outlived_its_session() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    lease = acquired(client).lease
    outlive_the_session(world, client)
    world.run(15_000)
    assert client.holds(lease)
    world.finish(client.close())
    assert not world.claims()


@pytest.mark.parametrize("after_ms", range(8))
@pytest.mark.parametrize("detached", [False, True])
def test_closing_at_any_moment_of_an_acquire_leaves_nothing_behind(after_ms: int, *, detached: bool) -> None:
    world = World()
    client = world.client()
    outcome = client.acquire(detached=detached)
    world.run(after_ms)
    world.finish(client.close())
    world.run(1_000)
    assert not _sessions(world)
    if detached and isinstance(outcome.value, LeaseRecord):
        assert [claim.token for claim in world.claims()] == [outcome.lease.token], "it is the caller's to keep"
    else:
        assert isinstance(outcome.value, ClientClosed | LeaseRecord)
        assert not world.claims()


@pytest.mark.parametrize("after_ms", range(4))
def test_closing_as_the_turn_of_a_detached_claim_comes_leaves_nothing_behind(after_ms: int) -> None:
    world = World()
    first, second = world.client(), world.client()
    lease = acquired(first).lease
    waiting = second.acquire(detached=True)
    world.run(50)
    first.release(lease)
    world.run(after_ms)
    world.finish(second.close())
    world.run(1_000)
    assert len(world.claims()) == isinstance(waiting.value, LeaseRecord)


@pytest.mark.parametrize(("after_ms", "indefinite"), [(0.0, False), (3.5, True), (50.0, True)])
def test_closing_says_whether_what_was_asked_for_may_have_taken_effect(after_ms: float, *, indefinite: bool) -> None:
    world = World()
    acquired(world.client(), "y")
    client = world.client()
    waiting = client.acquire("y")
    world.run(after_ms)
    world.finish(client.close())
    assert isinstance(waiting.value, ClientClosed)
    assert waiting.value.indefinite is indefinite


@pytest.mark.parametrize("leader", [0, 1])
def test_closing_tells_everybody_who_waits_for_an_answer(leader: int) -> None:
    world = World(leader=leader)
    client = world.client()
    world.run(100)
    calls = [client.call(Describe("default", ("x",))), client.call(Release(1)), client.acquire()]
    world.finish(client.close(), within_ms=2_000)
    assert all(call.done for call in calls)
    if not leader:
        assert all(isinstance(call.value, ClientClosed) for call in calls)


def test_closing_an_unused_client_sends_nothing() -> None:
    world = World()
    closed = world.client().close()
    assert closed.done
    world.run(100)
    assert not world.hops


def test_closing_without_a_service_ends_within_its_time() -> None:
    world = World()
    client = world.client()
    acquired(client)
    world.fate = lambda hop: ()
    world.finish(closed := client.close(within_ms=2_000), within_ms=2_000)
    assert isinstance(closed.value, Unavailable)
    assert closed.value.indefinite


def test_closing_a_client_whose_session_has_expired_is_no_error() -> None:
    world = World()
    client = world.client(session_timeout_ms=SESSION_MS)
    acquired(client, ttl_ms=0)
    outlive_the_session(world, client)
    world.finish(closed := client.close())
    assert closed.value is None
    assert not _sessions(world)


def test_a_closed_client_refuses_everything_and_sends_nothing() -> None:
    world = World()
    client = world.client()
    lease = acquired(client, detached=True).lease
    world.finish(client.close())
    sent = len(world.hops)
    outcomes = [
        client.acquire(),
        client.acquire(timeout_ms=0),
        client.call(Describe("default", ("x",))),
        client.renew(lease),
        client.release(lease),
    ]
    assert all(isinstance(outcome.value, ClientClosed) for outcome in outcomes)
    assert client.close().done
    world.run(10_000)
    assert len(world.hops) == sent


# --- failing ---------------------------------------------------------------------------------------------------------


def test_a_client_that_fails_tells_everybody_and_believes_in_nothing() -> None:
    world = World()
    client, other = world.client(), world.client()
    held = [acquired(client, "a"), acquired(client, "b", ttl_ms=0), acquired(client, "c", detached=True)]
    acquired(other, "d")
    asked = [client.acquire("d"), client.acquire("e", timeout_ms=0), client.call(Release(9))]
    world.run(0.5)
    error = Unavailable("the thread failed", indefinite=True)
    client.protocol.fail_all(error)
    assert [outcome.value for outcome in asked] == [error] * 3
    assert [(outcome.lease.state, outcome.lease.reason) for outcome in held] == [
        (LeaseState.LOST, "the thread failed")
    ] * 3
    assert len(client.changes) == 3
    assert isinstance(client.acquire().value, ClientClosed)
    client.protocol.fail_all(error)


def test_a_request_of_a_session_that_is_over_may_have_taken_effect_by_an_earlier_copy() -> None:  # P6, P9
    world = World()
    client = world.client(session_timeout_ms=500)
    acquired(client)
    world.fate = lambda hop: (1.0, 600.0) if hop.up else ()
    asked = client.call(CreateSemaphore("default", ("s",), 3, b""))
    world.run(2)
    world.fate = lambda hop: () if hop.up and world.now < 598 else (1.0,)
    world.finish(asked)
    assert isinstance(asked.value, Unavailable)
    assert asked.value.indefinite
    assert world.service.kinds.count("semaphore_created") == 1
