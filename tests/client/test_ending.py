"""How a client ends when nobody closes it: collected, at the end of the interpreter, in the child of a fork."""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

import lessor
from lessor.actors.embedded import Embedded
from lessor.transport.ports import free_base_port

from ..support.waiting import until


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def observer(node: Embedded, request: pytest.FixtureRequest) -> Iterator[lessor.Client]:
    with lessor.connect(node.endpoints, request.node.name[:200]) as client:
        yield client


def run(program: str, *arguments: str) -> str:
    """Run a program in a process of its own, which must end well, quietly and soon."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.strip()


# --- collected -------------------------------------------------------------------------------------------------------


def test_a_client_that_nobody_refers_to_gives_back_what_it_holds(node: Embedded, observer: lessor.Client) -> None:
    client = lessor.connect(node.endpoints, observer.namespace)
    lease = client.acquire("x", ttl=60)
    engine = client._caller._engine
    assert engine is not None
    del client
    gc.collect()
    assert lease.held, "a lease keeps its client"
    del lease
    gc.collect()
    until(lambda: observer.describe("x") == [], "it is released", timeout=10)
    until(lambda: not engine._thread.is_alive(), "and the thread has ended")


def test_a_lease_with_a_callback_keeps_no_client_from_being_collected(node: Embedded, observer: lessor.Client) -> None:
    lease = lessor.connect(node.endpoints, observer.namespace).acquire("x", ttl=60, on_lost=print)
    lease.on_change(print)
    assert not lease.lost.is_set()
    del lease
    gc.collect()
    until(lambda: observer.describe("x") == [], "it is released", timeout=10)


def test_an_asyncio_client_that_outlives_its_loop_gives_back_what_it_holds_when_it_is_collected(
    node: Embedded, observer: lessor.Client
) -> None:
    async def leave_open() -> lessor.aio.Lease:
        return await lessor.aio.connect(node.endpoints, observer.namespace).acquire("x", ttl=60)

    lease = asyncio.run(leave_open())
    assert len(observer.describe("x")) == 1
    del lease
    gc.collect()
    assert observer.describe("x") == []


def test_an_asyncio_client_that_is_collected_while_its_loop_runs_is_closed_by_the_loop(
    node: Embedded, observer: lessor.Client
) -> None:
    async def main() -> None:
        lease = await lessor.aio.connect(node.endpoints, observer.namespace).acquire("x", ttl=60)
        assert lease.held
        del lease
        gc.collect()
        async with asyncio.timeout(10):
            while observer.describe("x"):  # noqa: ASYNC110 - it asks another thread
                await asyncio.sleep(0)

    asyncio.run(main())


# --- the end of the interpreter --------------------------------------------------------------------------------------

LEFT_OPEN = """
import sys, threading, lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
lease = client.acquire("x", ttl=60)
threading.Thread(target=lambda: client.acquire("x"), daemon=True).start()
while not any(view.waiting for view in client.describe("x")):
    pass
"""

LEFT_OPEN_BY_A_LOOP = """
import asyncio, sys, lessor
async def main():
    global client, lease
    client = lessor.aio.connect(sys.argv[1], sys.argv[2])
    lease = await client.acquire("x", ttl=60)
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [LEFT_OPEN, LEFT_OPEN_BY_A_LOOP], ids=["blocking", "asyncio"])
def test_a_program_that_ends_without_closing_has_released_what_it_held(
    node: Embedded, observer: lessor.Client, program: str
) -> None:
    run(program, node.endpoints, observer.namespace)
    assert observer.leases() == []


GONE = """
import atexit, time
calls = client._caller.protocol._calls
calls.endpoints, calls.target = [sys.argv[3]], sys.argv[3]
began = time.monotonic()
atexit._run_exitfuncs()
print(time.monotonic() - began)
"""


@pytest.mark.parametrize("program", [LEFT_OPEN, LEFT_OPEN_BY_A_LOOP], ids=["blocking", "asyncio"])
def test_an_interpreter_whose_service_is_gone_ends_within_moments(program: str) -> None:
    with lessor.embedded() as node:
        told = run(program + GONE, node.endpoints, "gone", f"tcp://127.0.0.1:{free_base_port()}")
    assert 0.9 < float(told) < 5


# --- forks -----------------------------------------------------------------------------------------------------------

FORKED = """
import os, sys, lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
lease = client.acquire("x", ttl=60)
told = []
lease.on_change(lambda lease, state: told.append(state))
lost = lease.lost
child = os.fork()
if not child:
    assert not lease.held
    assert (lease.state, lease.loss, lease.lost.is_set()) == (lessor.LeaseState.LOST, lessor.Loss.FORK, True)
    assert told == [], "what was asked for in the parent is not done in the child"
    try:
        lease.check()
    except lessor.LeaseLost as error:
        assert "forked" in str(error)
    else:
        raise AssertionError
    assert lease.release() is False
    assert client.holder.endswith(f":{os.getpid()}")
    assert client.try_acquire("x") is None, "the parent holds it on"
    with client.lock("y", ttl=60) as other:
        assert other.held
        assert [view.holder for view in client.describe("y")] == [client.holder]
    kept = client.acquire("z", ttl=60)
    sys.exit(0)  # its end releases what the child holds, and only that
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert lease.held and lease.loss is None
lease.renew()
assert [view.name for view in client.leases()] == ["x"]
assert lease.release() is True
"""


def test_in_the_child_of_a_fork_leases_are_lost_and_the_client_begins_anew(
    node: Embedded, observer: lessor.Client
) -> None:
    run(FORKED, node.endpoints, observer.namespace)
    assert observer.leases() == []


FORKED_IN_A_LOOP = """
import asyncio, os, sys, lessor
async def main():
    async with lessor.aio.connect(sys.argv[1], sys.argv[2]) as client:
        lease = await client.acquire("x", ttl=60)
        child = os.fork()
        if not child:
            ok = lease.loss is lessor.Loss.FORK and not lease.held and lease.lost.is_set()
            os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        await lease.renew()
        assert await lease.release()
asyncio.run(main())
"""


def test_in_the_child_of_a_fork_in_a_loop_leases_are_lost_and_the_parent_goes_on(
    node: Embedded, observer: lessor.Client
) -> None:
    run(FORKED_IN_A_LOOP, node.endpoints, observer.namespace)
    assert observer.leases() == []


COLLECTED_IN_THE_CHILD = """
import asyncio, gc, os, sys, lessor
async def main():
    return await lessor.aio.connect(sys.argv[1], sys.argv[2]).acquire("x", ttl=60)
lease = asyncio.run(main())
child = os.fork()
if not child:
    del lease
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
with lessor.connect(sys.argv[1], sys.argv[2]) as observer:
    assert [view.token for view in observer.describe("x")] == [lease.token]
"""


def test_what_the_child_of_a_fork_collects_ends_nothing_of_the_parent(node: Embedded, observer: lessor.Client) -> None:
    run(COLLECTED_IN_THE_CHILD, node.endpoints, observer.namespace)
    assert observer.leases() == []


BUSY_FORK = """
import os, sys, threading, lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
stop = threading.Event()
def work(number):
    while not stop.is_set():
        with client.lock(f"name {number}"):
            pass
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for _ in range(20):
    child = os.fork()
    if not child:
        with client.lock("of a child", ttl=60):
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    [view] = client.describe("of a child")
    assert client.release(view.token)
stop.set()
for thread in threads:
    thread.join()
client.close()
"""


def test_a_fork_in_the_midst_of_other_threads_requests_leaves_a_client_that_works(
    node: Embedded, observer: lessor.Client
) -> None:
    run(BUSY_FORK, node.endpoints, observer.namespace)
    assert observer.leases() == []
