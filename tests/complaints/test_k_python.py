"""Complaints about clients in Python: forks, asyncio, and traps found in their code (P8, P9)."""

import asyncio
import inspect
import re
import tomllib

import pytest

import lessor
from lessor import AcquireTimeout, BadRequest
from lessor.actors.embedded import Embedded
from lessor.core.commands import Renew

from ..support.fake_service import World
from ..support.patience import timed_out
from ..support.tidy import ROOT
from .conftest import Make, Run
from .worlds import TTL_MS, asks, held, standing

# --- forks -----------------------------------------------------------------------------------------------------------

FORKED = """
import os, sys, lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
lease = client.acquire("x", ttl=600)
child = os.fork()
if not child:
    {child}
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert lease.held and client.validate(lease.token)
assert lease.release()
"""


def test_kazoo_and_grpc_hang_in_the_child_of_a_fork(run: Run) -> None:
    """kazoo under celery and gRPC: the child has the parent's sockets and none of its threads. Nor is its lease."""
    child = """
    assert (lease.held, lease.loss, lease.release()) == (False, lessor.Loss.FORK, False)
    with client.lock("y", ttl=600) as other:
        assert other.held
    assert client.try_acquire("x") is None
"""
    done = run(FORKED.replace("{child}", child.strip()))
    assert (done.returncode, done.stderr) == (0, "")


# --- asyncio ---------------------------------------------------------------------------------------------------------


def test_kazoo_has_no_asyncio_client(node: Embedded, namespace: str) -> None:
    """Asked for since 2014. `lessor.aio` has the same names as `lessor`."""

    async def main() -> None:
        async with lessor.aio.connect(node.endpoints, namespace) as client, client.lock("x") as lease:
            await lease.renew()
            assert await client.try_acquire("x") is None

    asyncio.run(main())


def test_aiozk_leaves_the_place_of_a_wait_that_was_cancelled_by_its_timeout(node: Embedded, namespace: str) -> None:
    """The node stayed, and all who came later waited for it. A task may be cancelled at any await."""

    async def main() -> None:
        async with lessor.aio.connect(node.endpoints, namespace) as client:
            lease = await client.acquire("x")
            waiting = asyncio.create_task(client.acquire("x"))
            async with asyncio.timeout(60):
                while len(await client.describe("x")) < 2:
                    pass
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await lease.release()
            assert await (await client.acquire("x", timeout=60)).release()

    asyncio.run(main())


# --- etcd in Python --------------------------------------------------------------------------------------------------


def test_python_etcd3_breaks_with_a_newer_release_of_what_it_depends_on() -> None:
    """python-etcd3's lock raises TypeError under a newer tenacity. Here two dependencies, each with an upper bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [re.fullmatch(r"([a-z0-9]+)>=\d+,<\d+", each) for each in project["dependencies"]]
    assert [match and match[1] for match in found] == ["pyzmq", "cbor2"]


# --- traps -----------------------------------------------------------------------------------------------------------


def test_python_etcd3_runs_the_body_without_the_lock_after_ten_seconds(make: Make) -> None:
    """`__enter__` ignores that `acquire()` returned False."""
    one, other = make(), make()
    entered = False

    def enter(timeout: float) -> None:
        nonlocal entered
        with other.lock("x", timeout=timeout):
            entered = True

    with one.lock("x"):
        timed_out(enter)
        with pytest.raises(AcquireTimeout), other.lock("x", timeout=0):
            entered = True
    assert not entered


def test_python_etcd3_leaks_a_lease_with_each_attempt() -> None:
    """Each `acquire` grants a lease first, and nobody revokes it if that fails."""
    world = World()
    one, other = world.client(), world.client()
    held(one)
    for number in range(40):
        world.finish(other.acquire(timeout_ms=20 * (number % 2)))
    world.run(1_000)
    assert len(world.claims()) == 1
    assert len(world.service.state.sessions_open.records()) == 2
    assert all(len(session.replies) <= 1 for session in world.service.state.sessions_open.records())


def test_python_etcd3_never_renews() -> None:
    """A lock of 60 s is over after 60 s, whatever its holder does."""
    world = World()
    client = world.client()
    lease = held(client)
    world.run(20 * TTL_MS)
    assert client.believes() == [lease]


def test_pottery_stops_after_three_extensions() -> None:
    """`num_extensions=3`; the fourth raises, and the lock ends under its holder."""
    world = World()
    client = world.client()
    lease = held(client)
    world.run(10 * TTL_MS)
    assert sum(asks(hop, Renew) for hop in world.hops) > 20
    assert client.believes() == [lease]


def test_kazoo_s_with_gives_none(client: lessor.Client) -> None:
    """`with lock as l`: None, and so neither a token nor a way to look whether it is held."""
    with client.lock("x") as lease, client.acquire("y") as other:
        assert isinstance(lease, lessor.Lease)
        assert (lease.held, other.held) == (True, True)


def test_kazoo_s_timeout_begins_anew_at_each_wake_up() -> None:
    """The line moves on before the time is up, and the wait begins anew each time."""
    world = World()
    clients = [world.client() for _ in range(12)]
    first = held(clients[0])
    ahead = [standing(client) for client in clients[1:-1]]
    began = world.now
    waiting = clients[-1].acquire(timeout_ms=1_000)
    holder, lease = clients[0], first
    for client, outcome in zip(clients[1:], ahead, strict=False):
        if waiting.done:
            break
        world.run(300)
        holder.release(lease)
        world.finish(outcome)
        holder, lease = client, outcome.lease
    assert isinstance(waiting.value, AcquireTimeout)
    assert 1_000 <= waiting.at - began <= 1_010


@pytest.mark.parametrize("latency_ms", [1.0, 40.0, 400.0])
def test_sherlock_counts_retries_instead_of_time(latency_ms: float) -> None:
    """A timeout of ten seconds is so many retries, however long each of them takes."""
    world = World()
    one, other = world.client(), world.client()
    held(one)
    world.fate = lambda hop: (latency_ms,)
    held(other, "warm")
    began = world.now
    waiting = other.acquire(timeout_ms=5_000)
    world.finish(waiting)
    assert isinstance(waiting.value, AcquireTimeout)
    assert 5_000 <= waiting.at - began <= 5_000 + 2 * latency_ms + 10


def test_sherlock_crashes_without_a_timeout(client: lessor.Client) -> None:
    """`timeout=None` is compared with a number."""
    assert client.acquire("x", timeout=None).held


def test_redis_py_s_locks_live_for_ever_by_default(client: lessor.Client) -> None:
    """`timeout=None`: a holder that dies leaves the lock held until somebody deletes it by hand."""
    assert 0 < client.acquire("x").remaining() <= 30
    for offered in (lessor.Client.acquire, lessor.Client.try_acquire, lessor.Client.lock, lessor.aio.Client.lock):
        assert inspect.signature(offered).parameters["ttl"].default == 30.0
    world = World()
    one, other = world.client(), world.client()
    held(one, ttl_ms=30_000)
    waiting = standing(other)
    one.die()
    world.finish(waiting, within_ms=31_000)


@pytest.mark.parametrize("options", [{"ttl": -1}, {"timeout": "soon"}, {"holder": 7}, {"on_lost": "explode"}])
def test_kubernetes_calls_sys_exit_on_bad_arguments(client: lessor.Client, options: dict[str, object]) -> None:
    """The `Config` of the Python leader election ends the process of whoever mistypes."""
    with pytest.raises(BadRequest) as caught:
        client.acquire("x", **options)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert client.describe("x") == []
