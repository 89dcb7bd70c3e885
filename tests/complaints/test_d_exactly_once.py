"""Complaints that a lost answer makes of a retry a wrong release, a leaked lock or a lost one (P6, P9)."""

import asyncio
from collections.abc import Sequence

import pytest

import lessor
from lessor import AcquireTimeout, BadRequest, LeaseState, Unavailable
from lessor.actors.embedded import Embedded
from lessor.client.wants import units
from lessor.core.commands import Release, Renew
from lessor.core.results import Denied, NotHeld, Released

from ..support.fake_service import Hop, World
from .conftest import Make
from .worlds import TTL_MS, asks, cut, held, moves, settled, standing


def test_etcd_s_retried_unlock_deletes_a_newer_lock_of_the_same_session() -> None:
    """etcd's Unlock names the lock's key, which is the same for each lock of a session."""
    world = World()
    client = world.client()
    lease = held(client)
    world.fate = lambda hop: (1.0, 300.0, 2_000.0) if asks(hop, Release) else (1.0,)
    world.finish(client.release(lease))
    again = held(client)
    world.run(5_000)
    anew = client.call(Release(lease.token))  # as one who has forgotten that he asked before
    world.finish(anew)
    assert anew.value == NotHeld()
    assert client.believes() == [again]
    assert [claim.token for claim in world.claims()] == [again.token]


@pytest.mark.parametrize("taken", [True, False], ids=["denied", "granted"])
@pytest.mark.parametrize("after_ms", range(6))
def test_kazoo_s_failed_try_leaves_its_node_for_ever(after_ms: int, *, taken: bool) -> None:
    """kazoo's non-blocking acquire cleans up by its best effort; if the connection goes then, the node stays."""
    world = World()
    other, client = world.client(), world.client()
    if taken:
        held(other)
    tried = client.acquire(ttl_ms=0, timeout_ms=0)  # what leaks stays as long as its session
    world.run(after_ms)
    cut(client)
    world.finish(tried)
    if taken:
        assert isinstance(tried.value, Denied | Unavailable)
    assert settled(world)
    assert len(world.claims()) == (1 if taken or client.believes() else 0)


def test_kazoo_s_lock_is_stuck_when_its_holder_crashes_right_after_the_release() -> None:
    """kazoo's users saw others wait for ever. A release that was answered is in the journals of a majority."""
    world = World()
    holder, other = world.client(), world.client()
    lease = held(holder)
    waiting = standing(other)
    world.finish(holder.release(lease))
    holder.die()
    world.finish(waiting, within_ms=20)
    assert other.holds(waiting.lease)


def test_kazoo_s_semaphore_deadlocks_after_a_try_that_failed(make: Make) -> None:
    """kazoo's semaphore takes a lock of its own to count, and a failed try left that lock behind."""
    one, other = make(), make()
    seats = units("seats", 1, limit=1)
    lease = one.acquire(seats)
    for _ in range(5):
        assert other.try_acquire(seats) is None
    assert lease.release()
    assert other.try_acquire(seats) is not None


def test_curator_s_release_forgets_the_lock_that_it_could_not_delete() -> None:
    """CURATOR-678: the local data go, the node stays, and each later acquire waits for it for ever."""
    world = World()
    client = world.client()
    lease = held(client)
    cut(client)
    released = client.release(lease, within_ms=400)
    world.finish(released)
    assert isinstance(released.value, Unavailable)
    assert released.value.indefinite, "it does not say that it is free"
    world.heal()
    again = client.acquire()
    world.finish(again, within_ms=3_000)
    assert client.believes() == [again.lease]


def test_zk_ruby_and_aiozk_leave_the_node_of_a_wait_that_timed_out() -> None:
    """Each later acquire, of this client too, then waits behind a place in the queue that is nobody's."""
    world = World()
    first, second, third = world.client(), world.client(), world.client()
    lease = held(first)
    given_up = second.acquire(timeout_ms=400)
    waiting = standing(third)
    world.finish(given_up)
    assert isinstance(given_up.value, AcquireTimeout)
    assert not given_up.value.indefinite
    world.finish(first.release(lease))
    world.finish(waiting, within_ms=20)


def test_zk_ruby_leaves_the_node_of_a_wait_that_was_interrupted() -> None:
    """Ctrl-C in `lock!`, while servers are killed: entries stay that never get cleaned up."""
    world = World()
    first, second = world.client(), world.client()
    held(first)
    waiting = standing(second)
    world.kill(1)
    second.abandon(waiting)
    world.run(500)
    world.elect(2)
    world.run(3_000)
    assert not world.claims(waiting.tag)


def test_dynamolock_s_heartbeat_fails_on_its_own_version_after_a_lost_answer() -> None:
    """cirello-io/dynamolock: the update succeeded, its answer was lost, the next one finds a version not its own."""
    world = World()
    client = world.client()
    lease = held(client)
    renewals = 0

    def lose_answers(hop: Hop) -> Sequence[float]:
        nonlocal renewals
        renewals += asks(hop, Renew)
        return () if not hop.up and renewals == 1 else (1.0,)

    world.fate = lose_answers
    world.run(5 * TTL_MS)
    assert renewals > 5
    assert (moves(client), client.believes()) == ([], [lease])


def test_redis_py_s_cancelled_release_leaves_the_lock_stuck_for_ever(node: Embedded, namespace: str) -> None:
    """redis-py's asyncio lock forgets its token first; cancelled then, nobody can release it any more."""

    async def main() -> None:
        async with lessor.aio.connect(node.endpoints, namespace) as client:
            for steps in range(4):
                lease = await client.acquire("x", ttl=None, timeout=60)
                release = asyncio.create_task(lease.release())
                for _ in range(steps):
                    await asyncio.sleep(0)
                release.cancel()
                await asyncio.gather(release, return_exceptions=True)
                if steps == 0:  # it had not begun
                    assert lease.held
                    assert await lease.release()
                assert not lease.held

    asyncio.run(main())


def test_redis_py_s_release_clears_its_token_before_the_call_and_cannot_be_repeated() -> None:
    """redis-py's blocking lock still does. Here the client itself goes on releasing until it is told."""
    world = World()
    client, other = world.client(), world.client()
    lease = held(client, ttl_ms=600_000)
    waiting = standing(other)
    world.kill(1)
    released = client.release(lease, within_ms=500)
    world.finish(released)
    assert isinstance(released.value, Unavailable)
    world.elect(2)
    world.finish(waiting, within_ms=3_000)
    assert lease.state is LeaseState.RELEASED
    repeated = client.release(lease)
    world.finish(repeated)
    assert (repeated.value == Released(), other.holds(waiting.lease)) == (False, True)


def test_redis_py_deletes_the_lock_and_says_that_it_was_reacquired(client: lessor.Client) -> None:
    """redis-py: `Lock(timeout=0)`, then `reacquire()`: PEXPIRE 0 deletes it, and the answer is True."""
    with pytest.raises(BadRequest, match="ttl"):
        client.acquire("x", ttl=0)
    lease = client.acquire("x", ttl=600)
    with pytest.raises(BadRequest, match="ttl"):
        lease.renew(0)
    lease.renew(0.2)
    assert lease.remaining() > 500, "it never shortens"
    [seen] = client.describe("x")
    assert (seen.token, lease.held) == (lease.token, True)
