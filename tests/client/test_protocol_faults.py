"""Whole conversations, each played again with every fault on every one of its packets (P3, P6, P8, P9).

The world itself checks after each event that who believes that it holds does, and that what was certain stays so.
"""

from collections.abc import Callable

import pytest

from lessor.client.errors import AcquireTimeout, LessorError, Unavailable
from lessor.client.protocol import LeaseRecord, LeaseState
from lessor.core.commands import FOREVER, Ping
from lessor.core.results import Denied, Released, Renewed

from ..support.fake_service import FakeClient, Outcome, World
from .faults import each_fault

SETTLE_MS = 4_000
"""Long enough for whatever is late, for a ping and for retries."""


def released(client: FakeClient, *outcomes: Outcome) -> None:
    """Release what was acquired; each release is answered that the lease was held until then (P6)."""
    asked = [client.release(outcome.lease) for outcome in outcomes]
    client.world.finish(*asked)
    assert all(outcome.value == Released() for outcome in asked), client.world.story()


def once(world: World, *outcomes: Outcome) -> None:
    """Assert that each acquire has come to the service's state once, however often it was sent (P6)."""
    for outcome in outcomes:
        assert len(world.service.executed.get(outcome.tag, [])) == 1, world.story()


def settled(world: World, claims: int = 0) -> None:
    """Assert that nothing is left behind, and that so many claims are."""
    world.run(SETTLE_MS)
    assert not world.leftovers(), world.story()
    assert len(world.claims()) == claims, world.story()
    calls = [call.operation for client in world.clients for call in client.protocol._calls.under_way()]
    assert all(isinstance(operation, Ping) for operation in calls), "all is answered"


def a_try_and_a_denial(world: World) -> None:
    first, second = world.client(), world.client()
    taken = first.acquire(timeout_ms=0)
    world.finish(taken)
    tried = second.acquire(timeout_ms=0)
    world.finish(tried)
    assert isinstance(tried.value, Denied)
    released(first, taken)
    once(world, taken)
    settled(world)


def two_who_wait_for_the_first(world: World) -> None:
    first, second, third = world.client(), world.client(), world.client()
    taken = first.acquire()
    world.finish(taken)
    waiting = [second.acquire(), third.acquire(ttl_ms=0)]
    world.run(60)
    released(first, taken)
    world.until(lambda: any(outcome.done for outcome in waiting))
    served, later = waiting if waiting[0].done else waiting[::-1]  # a delay may turn them round
    world.run(2)
    assert not later.done
    released(second if served is waiting[0] else third, served)
    world.finish(later)
    released(third if served is waiting[0] else second, later)
    once(world, taken, *waiting)
    settled(world)


def a_wait_that_times_out(world: World) -> None:
    first, second = world.client(), world.client()
    taken = first.acquire()
    world.finish(taken)
    waiting = second.acquire(timeout_ms=400)
    world.finish(waiting)
    assert isinstance(waiting.value, AcquireTimeout | Unavailable)
    settled(world, claims=1)
    released(first, taken)
    settled(world)


def a_wait_that_times_out_as_its_turn_comes(world: World) -> None:
    first, second = world.client(), world.client()
    taken = first.acquire()
    world.finish(taken)
    waiting = second.acquire(timeout_ms=400)
    world.run(400 - 1)
    released(first, taken)
    world.finish(waiting)
    if isinstance(waiting.value, LeaseRecord):
        released(second, waiting)
    settled(world)


def a_timeout_shorter_than_the_way(world: World) -> None:
    client = world.client()
    waiting = client.acquire(timeout_ms=4)
    world.finish(waiting)
    if isinstance(waiting.value, LeaseRecord):
        released(client, waiting)
    settled(world)


def a_lease_that_is_kept(world: World) -> None:
    client = world.client(session_timeout_ms=6_000)
    taken = client.acquire(ttl_ms=5_000)
    world.finish(taken)
    renewed = client.renew(taken.lease, 9_000)
    world.finish(renewed)
    assert isinstance(renewed.value, Renewed)
    world.run(10_000)
    assert client.holds(taken.lease), world.story()
    released(client, taken)
    once(world, taken)
    settled(world)


def a_lease_that_lives_with_its_session(world: World) -> None:
    client = world.client(session_timeout_ms=6_000)
    taken = client.acquire(ttl_ms=0)
    world.finish(taken)
    world.run(9_000)
    assert client.holds(taken.lease), world.story()
    released(client, taken)
    settled(world)


def one_who_closes_while_it_waits_and_one_who_closes_while_it_holds(world: World) -> None:
    first, second = world.client(), world.client()
    held = [first.acquire(), first.acquire("y", ttl_ms=0)]
    world.finish(*held)
    waiting = [second.acquire(), second.acquire("y")]
    world.run(50)
    world.finish(second.close(within_ms=9_000))
    assert all(isinstance(outcome.value, LessorError) for outcome in waiting)
    world.finish(first.close(within_ms=9_000))
    assert all(outcome.lease.state is LeaseState.RELEASED for outcome in held)
    settled(world)


def many_callers_of_one_client(world: World) -> None:
    client = world.client()
    outcomes = [client.acquire(f"name {number}", timeout_ms=FOREVER if number % 2 else 0) for number in range(5)]
    last = client.acquire("name 0")
    world.finish(*outcomes)
    released(client, *outcomes)
    world.finish(last)
    once(world, *outcomes, last)
    released(client, last)
    settled(world)


def a_leader_that_dies_and_is_followed(world: World) -> None:
    first, second = world.client(), world.client()
    taken = first.acquire()
    world.finish(taken)
    waiting = second.acquire()
    world.run(50)
    world.kill(1)
    world.run(60)
    world.elect(3)
    released(first, taken)
    world.finish(waiting)
    released(second, waiting)
    once(world, taken, waiting)
    settled(world)


def a_leader_that_is_replaced_and_stays(world: World) -> None:
    first, second = world.client(), world.client(session_timeout_ms=6_000)
    taken = first.acquire()
    world.finish(taken)
    waiting = second.acquire()
    world.run(50)
    world.elect(2)
    released(first, taken)
    world.finish(waiting)
    released(second, waiting)
    once(world, taken, waiting)
    settled(world)


CONVERSATIONS = (
    a_try_and_a_denial,
    two_who_wait_for_the_first,
    a_wait_that_times_out,
    a_wait_that_times_out_as_its_turn_comes,
    a_timeout_shorter_than_the_way,
    a_lease_that_is_kept,
    a_lease_that_lives_with_its_session,
    one_who_closes_while_it_waits_and_one_who_closes_while_it_holds,
    many_callers_of_one_client,
    a_leader_that_dies_and_is_followed,
    a_leader_that_is_replaced_and_stays,
)


@pytest.mark.parametrize("play", CONVERSATIONS)
def test_no_fault_on_any_one_packet_changes_the_outcome_or_leaves_anything_behind(
    play: Callable[[World], None],
) -> None:
    assert each_fault(play) > 40


@pytest.mark.parametrize(
    ("after_ms", "timeout_ms"), [*((after_ms, FOREVER) for after_ms in (0, 1, 2, 3, 4, 5, 30)), (3, 0), (4, 0), (5, 0)]
)
def test_an_abandoned_acquire_leaves_nothing_behind_whichever_packet_meets_which_fault(
    after_ms: int, timeout_ms: int
) -> None:
    def play(world: World) -> None:
        client = world.client()
        outcome = client.acquire(timeout_ms=timeout_ms)
        world.run(after_ms)
        client.abandon(outcome)
        settled(world)

    each_fault(play, nodes=2)


@pytest.mark.parametrize("after_ms", [0, 1, 2])
def test_a_wait_abandoned_as_its_turn_comes_leaves_nothing_behind_whichever_packet_meets_which_fault(
    after_ms: int,
) -> None:
    def play(world: World) -> None:
        first, second = world.client(), world.client()
        taken = first.acquire()
        world.finish(taken)
        waiting = second.acquire()
        world.run(60)
        first.release(taken.lease)
        world.run(after_ms)
        second.abandon(waiting)
        settled(world)

    each_fault(play, nodes=1)


@pytest.mark.parametrize("adopt", [True, False])
def test_a_leader_that_dies_with_a_request_changes_no_outcome_whichever_packet_meets_which_fault(
    *, adopt: bool
) -> None:
    def play(world: World) -> None:
        client = world.client()
        warm = client.acquire("warm")
        world.finish(warm)
        world.service.held_up = True
        taken, back = client.acquire(), client.release(warm.lease)
        world.run(20)
        world.kill(1)
        world.run(60)
        world.elect(2, adopt=adopt)
        world.finish(taken, back)
        assert back.value == Released()
        released(client, taken)
        once(world, warm, taken)
        settled(world)

    each_fault(play)
