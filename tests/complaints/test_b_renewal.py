"""Complaints that renewal is starved, dies in silence, or goes on for work that is dead (P4, P8)."""

import asyncio
import signal
import threading
from collections.abc import Sequence

import pytest

import lessor
from lessor import LeaseState, Loss
from lessor.actors.embedded import Embedded
from lessor.core.commands import Renew
from lessor.core.requests import Answer, Redirect, Request
from lessor.core.results import TOO_MANY, Failed

from ..support.fake_service import Hop, World
from ..support.patience import longer
from ..support.waiting import until
from .conftest import Run
from .worlds import TTL_MS, asks, cut, held, moves, stand_still, standing

HOLD_THE_GIL = """
import ctypes, sys, lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
lease = client.acquire("x", ttl=TTL, keeper="process")
while not lease._keeper._shared[0] and lease.held:
    pass
ctypes.PyDLL(None).usleep(int(2_000_000 * TTL))
print(lease.held, lease.release())
"""


def test_dask_loses_its_lease_while_the_task_holds_the_gil(run: Run) -> None:
    """Dask's semaphore is renewed by the worker's own interpreter, and overbooked when a task holds the GIL."""
    told = (run(f"TTL = {ttl}\n{HOLD_THE_GIL}") for ttl in longer(1.5))
    assert any((done.stdout.split(), done.stderr) == (["True", "True"], "") for done in told)


def test_dask_s_starved_task_goes_on_as_if_it_held_its_lease() -> None:
    """Without a keeper, whoever was starved over the deadline knows it first thing, and before anything is sent."""
    world = World()
    client, other = world.client(), world.client()
    lease = held(client)
    waiting = standing(other)
    stand_still(client, 2 * TTL_MS)
    assert (lease.state, lease.loss, client.believes()) == (LeaseState.LOST, Loss.EXPIRED, [])
    assert other.holds(waiting.lease)


def test_agno_s_worker_is_swept_as_dead_because_its_own_run_starved_the_loop(
    node: Embedded, namespace: str, client: lessor.Client
) -> None:
    """agno and Prefect renew on the event loop of the work. The keeper is a process, and starves with nobody."""

    async def outlives(ttl: float) -> bool:
        async with lessor.aio.connect(node.endpoints, namespace) as ours:
            lease = await ours.acquire("x", ttl=ttl, keeper="process")
            while not lease._keeper._shared[0] and lease.held:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0)
            first = sum(view.deadline_local_ms for view in client.describe("x"))

            def is_over_or_renewed() -> bool:
                ends = [view.deadline_local_ms for view in client.describe("x")]
                return not ends or ends[0] > first + 1_000 * ttl

            until(is_over_or_renewed, "it has outlived its ttl")  # the loop stands still meanwhile
            return lease.held and await lease.release()

    assert any(asyncio.run(outlives(ttl)) for ttl in longer(1.5))


def test_prefect_s_run_is_killed_by_one_renewal_that_failed() -> None:
    """One transient failure of a renewal ended the flow."""
    world = World()
    client = world.client()
    lease = held(client)
    lost: list[Hop] = []

    def lose_one(hop: Hop) -> Sequence[float]:
        if asks(hop, Renew) and not lost:
            lost.append(hop)
            return ()
        return (1.0,)

    world.fate = lose_one
    world.run(3 * TTL_MS)
    assert lost
    assert (moves(client), client.believes()) == ([], [lease]), "nobody needs to know"


def test_prefect_s_flow_crashes_when_its_lease_cannot_be_renewed_for_a_while() -> None:
    """An outage shorter than the ttl crashed the flow. Here it is told as jeopardy, and taken back."""
    world = World()
    client = world.client()
    lease = held(client)
    cut(client)
    world.run(TTL_MS * 3 // 4)
    world.heal()
    world.run(TTL_MS)
    assert moves(client) == [LeaseState.JEOPARDY, LeaseState.HELD]
    assert client.holds(lease)


def test_the_renewal_thread_of_python_redis_lock_and_artemis_dies_of_one_error_in_silence() -> None:
    """python-redis-lock's thread has no `try`: one ConnectionError ends it. Here, one error after the other."""
    world = World()
    client = world.client()
    lease = held(client)
    turn = 0

    def fail(_: int, request: Request) -> object:
        nonlocal turn
        if not isinstance(request.operation, Renew):
            return None
        turn += 1
        if turn % 4 == 0:
            return None
        if turn % 4 == 1:
            return Answer(request.number, world.service.clock_ms(world.now), Failed(TOO_MANY, "full"))
        if turn % 4 == 2:
            client.lose_connection(1)
        return Redirect(request.number, 0, "", indefinite=False)

    world.service.reply = fail
    for _ in range(20):
        world.run(TTL_MS)
        client.protocol.receive(world.service.endpoints[1], b"no packet", client.now_ms)
        client.turn()
    assert turn > 40
    assert client.believes() == [lease]


def test_kubernetes_goes_on_renewing_after_the_work_has_raised(client: lessor.Client) -> None:
    """The Python client's callback raises, its thread ends, and the loop renews for ever."""

    def work() -> None:
        with client.lock("x", ttl=600):
            raise ValueError("the work has failed")

    def guarded() -> None:
        with pytest.raises(ValueError, match="the work has failed"):
            work()

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join(60)
    assert client.describe("x") == []


TERMINATED = """
import sys, threading, lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
lease = client.acquire("x", ttl=0.3, auto_renew=False, on_lost="terminate")
threading.Event().wait(60)
"""


def test_kubernetes_s_pod_goes_on_serving_after_it_has_lost_the_lead(run: Run) -> None:
    """The election's `run` returns, and the thread of the work keeps the process alive."""
    assert run(TERMINATED).returncode == -signal.SIGTERM


def test_kubernetes_renews_for_a_leader_whose_work_hangs() -> None:
    """What has not raised may hang. `progress_timeout`: no renewal without `lease.progress()`."""
    world = World()
    client, other = world.client(), world.client()
    lease = held(client, progress_ms=5_000)
    waiting = standing(other)
    for _ in range(10):
        world.run(3_000)
        client.protocol.now_ms = client.now_ms
        client.protocol.progress(lease)
        client.turn()
    assert client.holds(lease)
    world.finish(waiting)
    assert lease.loss is Loss.NO_PROGRESS


def test_python_redis_lock_and_hazelcast_bound_no_holder_that_never_ends() -> None:
    """python-redis-lock was asked for a most of renewals, Hazelcast for a lease time: refused. `max_hold`."""
    world = World()
    client, other = world.client(), world.client()
    lease = held(client, max_hold_ms=2 * TTL_MS)
    waiting = standing(other)
    world.finish(waiting)
    assert lease.loss is Loss.MAX_HOLD
    assert 2 * TTL_MS <= waiting.at <= 2 * TTL_MS + 100
