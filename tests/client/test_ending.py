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

from ..support.patience import UNHURRIED
from ..support.sockets import free_port
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
    return run_as_it_is(UNHURRIED + program, *arguments)


def run_as_it_is(program: str, *arguments: str) -> str:
    """Run a program whose end waits for the service no longer than that of any other."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.strip()


# --- collected -------------------------------------------------------------------------------------------------------


def test_a_client_that_nobody_refers_to_gives_back_what_it_holds(node: Embedded, observer: lessor.Client) -> None:
    client = lessor.connect(node.endpoints, observer.namespace, session_timeout=600)
    lease = client.acquire("x", ttl=600)
    engine = client._caller._engine
    assert engine is not None
    del client
    gc.collect()
    assert lease.held, "a lease keeps its client"
    del lease
    gc.collect()
    until(lambda: observer.describe("x") == [], "it is released")
    until(lambda: not engine._thread.is_alive(), "and the thread has ended")


def test_a_lease_with_a_callback_keeps_no_client_from_being_collected(node: Embedded, observer: lessor.Client) -> None:
    client = lessor.connect(node.endpoints, observer.namespace, session_timeout=600)
    lease = client.acquire("x", ttl=600, on_lost=print)
    del client
    lease.on_change(print)
    assert not lease.lost.is_set()
    del lease
    gc.collect()
    until(lambda: observer.describe("x") == [], "it is released")


def test_an_asyncio_client_that_outlives_its_loop_gives_back_what_it_holds_when_it_is_collected(
    node: Embedded, observer: lessor.Client
) -> None:
    async def leave_open() -> lessor.aio.Lease:
        client = lessor.aio.connect(node.endpoints, observer.namespace, session_timeout=600)
        return await client.acquire("x", ttl=600)

    lease = asyncio.run(leave_open())
    assert len(observer.describe("x")) == 1
    del lease
    gc.collect()
    until(lambda: observer.describe("x") == [], "it is released")


def test_an_asyncio_client_that_is_collected_while_its_loop_runs_gives_back_what_it_holds(
    node: Embedded, observer: lessor.Client
) -> None:
    async def main() -> None:
        client = lessor.aio.connect(node.endpoints, observer.namespace, session_timeout=600)
        lease = await client.acquire("x", ttl=600)
        del client
        assert lease.held
        del lease
        gc.collect()
        async with asyncio.timeout(60):
            while observer.describe("x"):  # noqa: ASYNC110 - it asks another thread
                await asyncio.sleep(0)

    asyncio.run(main())


def test_a_task_that_waits_for_the_end_of_a_lease_is_told_when_its_client_is_collected(
    node: Embedded, observer: lessor.Client
) -> None:
    async def main() -> None:
        client = lessor.aio.connect(node.endpoints, observer.namespace, session_timeout=600)
        lease = await client.acquire("x", ttl=600)
        del client
        waits = asyncio.create_task(lease.ended.wait())
        await asyncio.sleep(0)
        del lease
        gc.collect()
        async with asyncio.timeout(60):
            await waits

    asyncio.run(main(), debug=True)
    until(lambda: observer.describe("x") == [], "and it is released")


def test_an_asyncio_client_that_is_collected_in_the_midst_of_a_turn_has_it_finished_first(
    node: Embedded, observer: lessor.Client
) -> None:
    async def main() -> None:
        client = lessor.aio.connect(node.endpoints, observer.namespace)
        await client.acquire("x", ttl=60)
        engine = client._caller._engine
        assert engine is not None
        take_turn, ended = engine._take_turn, []

        def collected() -> None:
            engine.retire(60_000)
            ended.append(engine.ended)  # two threads may not touch the sockets
            take_turn()

        engine._take_turn = collected  # type: ignore[method-assign]
        engine._turn()
        assert ended == [False]
        assert engine.ended
        await asyncio.get_running_loop().run_in_executor(None, engine.join, 60)

    asyncio.run(main())
    assert observer.describe("x") == []


DROPPED = """
import asyncio, gc, os, sys, lessor
async def main():
    client = lessor.aio.connect(sys.argv[1], sys.argv[2])
    await client.acquire("x", ttl=60)
open_files = []
for _ in range(4):
    asyncio.run(main())
    gc.collect()
    from lessor.client import calling
    for engine in list(calling._ending):
        engine.join(60)
    open_files.append(len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)
assert open_files[1] == open_files[-1], open_files
"""


def test_clients_dropped_at_the_end_of_their_loops_one_after_the_other_leave_no_socket_and_block_nobody(
    node: Embedded, observer: lessor.Client
) -> None:
    run(DROPPED, node.endpoints, observer.namespace)
    assert observer.leases() == []


def test_a_client_can_be_closed_in_another_loop_than_its_own(node: Embedded, observer: lessor.Client) -> None:
    client = lessor.aio.connect(node.endpoints, observer.namespace)
    asyncio.run(client.acquire("x", ttl=60))
    asyncio.run(client.close())
    assert observer.describe("x") == []
    asyncio.run(client.close())


def test_a_loss_that_would_wake_a_task_of_a_closed_loop_holds_up_no_release(
    node: Embedded, observer: lessor.Client
) -> None:
    client = lessor.aio.connect(node.endpoints, observer.namespace)
    loop = asyncio.new_event_loop()

    async def wait_for_the_loss() -> asyncio.Task[bool]:
        lost = await client.acquire("x", ttl=60)
        await client.acquire("y", ttl=60)
        waits = asyncio.create_task(lost.lost.wait())
        await asyncio.sleep(0)
        lost._record.hold_until_ms = 1  # its deadline has passed, and nobody has noticed yet
        return waits

    waits = loop.run_until_complete(wait_for_the_loss())
    loop.close()
    asyncio.run(client.close())
    assert observer.leases() == []
    waits._log_destroy_pending = False  # type: ignore[attr-defined]


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


DROPPED_AT_THE_END = """
import sys, lessor
lessor.connect(sys.argv[1], sys.argv[2]).acquire("x", ttl=60)
"""

DROPPED_AT_THE_END_OF_A_LOOP = """
import asyncio, sys, lessor
async def main():
    client = lessor.aio.connect(sys.argv[1], sys.argv[2])
    await client.acquire("x", ttl=60)
asyncio.run(main())
"""

A_LOOP_CLOSED_TOO_EARLY = """
import asyncio, sys, lessor
others = [lessor.connect(sys.argv[1], sys.argv[2]) for _ in range(6)]
held = [client.acquire(f"y{number}", ttl=60) for number, client in enumerate(others)]
client = lessor.aio.connect(sys.argv[1], sys.argv[2])
async def main():
    await client.acquire("x", ttl=60)
    main.waits = asyncio.create_task(client.acquire("y0"))
    while not any(view.waiting for view in await client.describe("y0")):
        pass
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
loop.close()
main.waits._log_destroy_pending = False
"""

LEFT = {
    "blocking": LEFT_OPEN,
    "asyncio": LEFT_OPEN_BY_A_LOOP,
    "dropped": DROPPED_AT_THE_END,
    "dropped in a loop": DROPPED_AT_THE_END_OF_A_LOOP,
    "a loop closed while a task waits": A_LOOP_CLOSED_TOO_EARLY,
}


@pytest.mark.parametrize("program", LEFT.values(), ids=LEFT)
def test_a_program_that_ends_without_closing_has_released_what_it_held(
    node: Embedded, observer: lessor.Client, program: str
) -> None:
    run(program, node.endpoints, observer.namespace)
    assert observer.leases() == []


ASKED_AT_EXIT = """
import atexit, sys
def bye():
    try:
        client.describe("x")
    except lessor.ClientClosed:
        print("told")
atexit.register(bye)
import lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
lease = client.acquire("x", ttl=60)
"""


def test_what_is_asked_once_the_client_has_ended_with_the_interpreter_is_refused_and_does_not_hang(
    node: Embedded, observer: lessor.Client
) -> None:
    assert run(ASKED_AT_EXIT, node.endpoints, observer.namespace) == "told"
    assert observer.leases() == []


INTERRUPTED = """
import faulthandler, signal, sys, threading, lessor
faulthandler.dump_traceback_later(80, exit=True)
client = lessor.connect(sys.argv[1], sys.argv[2])
lease = client.acquire("x", ttl=60)
seen = []
def handler(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        seen.append({"close": client.close, "release": lease.release}[sys.argv[3]]())
    except lessor.Unavailable as error:
        assert error.indefinite, "it goes on in the background"
    try:
        client.acquire("y", timeout=1)
    except lessor.LessorError as error:
        assert not error.indefinite
    else:
        raise AssertionError("while the interrupted call has the lock nobody can be waited for")
    seen.append("handled")
signal.signal(signal.SIGTERM, handler)
protocol = client._caller.protocol
ask = protocol.ask
def interrupted(*arguments):
    signal.raise_signal(signal.SIGTERM)
    return ask(*arguments)
protocol.ask = interrupted
try:
    client.describe("x")
except lessor.ClientClosed:
    assert sys.argv[3] == "close"
assert seen[-1] == "handled"
with lessor.connect(sys.argv[1], sys.argv[2]) as observer:
    assert observer.wait_free("x", timeout=20)
"""


@pytest.mark.parametrize("what", ["close", "release"])
def test_a_signal_handler_that_interrupts_a_call_may_close_the_client_and_release(
    node: Embedded, observer: lessor.Client, what: str
) -> None:
    run(INTERRUPTED, node.endpoints, observer.namespace, what)
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
        told = run_as_it_is(program + GONE, node.endpoints, "gone", f"tcp://127.0.0.1:{free_port()}")
    assert 0.9 < float(told) < 9, "and not as long as a request"


MANY_LEFT_OPEN = """
import asyncio, sys, lessor
async def main():
    global clients
    clients = [lessor.aio.connect(sys.argv[1], sys.argv[2]) for _ in range(20)]
    for number, client in enumerate(clients):
        await client.acquire(f"x{number}", ttl=60)
asyncio.run(main())
for client in clients:
    calls = client._caller.protocol._calls
    calls.endpoints, calls.target = [sys.argv[3]], sys.argv[3]
"""


def test_many_asyncio_clients_whose_service_is_gone_end_at_the_same_time() -> None:
    with lessor.embedded() as node:
        told = run_as_it_is(MANY_LEFT_OPEN + GONE, node.endpoints, "gone", f"tcp://127.0.0.1:{free_port()}")
    assert 0.9 < float(told) < 15, "and not a second for each"


# --- forks -----------------------------------------------------------------------------------------------------------

FORKED = """
import os, sys, lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
lease = client.acquire("x", ttl=60)
told = []
lease.on_change(lambda lease, state: told.append(state))
lost = lease.lost
units = client.acquire(lessor.units("seats", 2, limit=2), ttl=60)
over = client.acquire("over", ttl=60)
client.break_lease(over.token, "in the way")
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
    class Keeper:
        def share_progress(self):
            raise AssertionError("the keeper is the parent's")
    lease._keeper = Keeper()
    lease.progress()
    lease._keeper = None
    for of_the_parent in (lease, units, over):
        for ask in (
            of_the_parent.renew,
            of_the_parent.share,
            of_the_parent.erase,
            lambda: of_the_parent.update(b""),
            lambda: of_the_parent.shrink(1),
            lambda: of_the_parent.write(b""),
        ):
            try:
                ask()
            except lessor.LeaseLost as error:
                assert error.loss is of_the_parent.loss
            else:
                raise AssertionError(ask)
        assert of_the_parent.release() is False
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
assert [view.name for view in client.leases()] == ["x", "seats"]
assert lease.release() is units.release() is True
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
            for ask in (lease.renew, lease.share, lease.erase, lambda: lease.update(b""), lambda: lease.write(b"")):
                try:
                    await ask()
                except lessor.LeaseLost as error:
                    ok = ok and error.loss is lessor.Loss.FORK
                else:
                    ok = False
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


WATCHED = """
import os, select, sys, threading, lessor
client = lessor.connect(sys.argv[1], sys.argv[2])
watch, gone = client.watch("x"), client.watch("x")
watch.__enter__(), gone.__enter__()
told = []
reads = threading.Thread(target=lambda: told.extend(event.kind for event in watch))
reads.start()
ready, go = os.pipe(), os.pipe()
child = os.fork()
if not child:
    del gone
    os.write(ready[1], b"!")
    assert watch.next(timeout=20).kind == "granted", "it goes on here by itself"
    client.close()
    assert watch.closed
    os._exit(0)
os.read(ready[0], 1)
line = watch._line
lease = client.acquire("x", ttl=60)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert not select.select([line.waker.fileno()], [], [], 0)[0], "the child has not rung in the parent"
assert gone.next(timeout=20).kind == "granted"
lease.release()
while "released" not in told:
    pass
watch.close()
gone.close()
reads.join()
assert told == ["granted", "released"]
"""


def test_in_the_child_of_a_fork_a_watch_goes_on_by_itself_and_disturbs_not_that_of_the_parent(
    node: Embedded, observer: lessor.Client
) -> None:
    run(WATCHED, node.endpoints, observer.namespace)


WATCHED_IN_A_LOOP = """
import asyncio, os, sys, lessor
client = lessor.aio.connect(sys.argv[1], sys.argv[2])
watch = client.watch("x")
async def read():
    assert (await watch.next(timeout=20)).kind == "granted"
async def in_the_child():
    await read()
    await client.close()
async def in_the_parent():
    await client.acquire("x", ttl=60)
    await read()
    await client.close()
loop = asyncio.new_event_loop()
loop.run_until_complete(watch.__aenter__())
ready, go = os.pipe()
child = os.fork()
if not child:
    async def begun():
        os.write(go, b"!")
        await in_the_child()
    asyncio.run(begun())
    os._exit(0)
os.read(ready, 1)
loop.run_until_complete(in_the_parent())
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
loop.close()
"""


def test_in_the_child_of_a_fork_a_watch_of_a_task_goes_on_in_a_loop_of_its_own(
    node: Embedded, observer: lessor.Client
) -> None:
    run(WATCHED_IN_A_LOOP, node.endpoints, observer.namespace)


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
