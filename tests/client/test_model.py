"""The whole lease model through both faces against one real node: every call and every refusal.

Each test is written once, awaited; the blocking face is driven through threads, so that it waits as a thread does.
"""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

import lessor
from lessor import LeaseState, Loss
from lessor.actors.embedded import Embedded
from lessor.client.refusals import refused
from lessor.core.results import ChainLink, DeadlockDetected

from ..support.patience import free_in_time, timed_out_awaited

KILLED = """
import os, sys, lessor
client = lessor.connect(sys.argv[1], sys.argv[2], session_timeout=60)
kept = client.acquire("kept", ttl=None, data=b"of the dead")
also = client.acquire("also", ttl=30)
print(client.session_ticket(), flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded
        assert embedded.failure is None


class Awaited:
    """Makes a blocking client, lease or lock look awaited: each call runs in a thread of its own."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.found, name)
        if not inspect.ismethod(member) or name in PLAIN:
            return member if name not in PLAIN else lambda *args, **options: _wrapped(member(*args, **options))

        async def call(*args: Any, **options: Any) -> Any:
            return _wrapped(await asyncio.to_thread(member, *args, **options))

        return call

    async def __aenter__(self) -> Any:
        return _wrapped(await asyncio.to_thread(self.found.__enter__))

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.found.__exit__, *error)


PLAIN = {
    "lock",
    "read_lock",
    "write_lock",
    "lock_all",
    "transaction",
    "remaining",
    "check",
    "ticket",
    "on_change",
    "expire_time_unsafe",
}


def _wrapped(found: Any) -> Any:
    if isinstance(found, list):
        return [_wrapped(each) for each in found]
    return Awaited(found) if isinstance(found, lessor.Lease | lessor.Lock) else found


Connect = Callable[..., Any]
Body = Callable[[Connect], Coroutine[Any, Any, None]]


@pytest.fixture(params=["blocking", "awaited"])
def play(request: pytest.FixtureRequest, node: Embedded) -> Callable[[Body], None]:
    """Runs a body with a maker of clients in a namespace of its own, in which nothing may be left behind."""
    namespace = request.node.name[:100]

    async def whole(body: Body) -> None:
        async with asyncio.timeout(150), AsyncExitStack() as stack:

            def connect(**options: Any) -> Any:
                options = {"namespace": namespace, **options}
                made = (
                    Awaited(lessor.connect(node.endpoints, **options))
                    if request.param == "blocking"
                    else lessor.aio.connect(node.endpoints, **options)
                )
                stack.push_async_callback(made.close)
                return made

            await body(connect)

    def run(body: Body) -> None:
        asyncio.run(whole(body))
        with lessor.connect(node.endpoints, namespace) as observer:
            assert observer.leases() == [], "nothing held and nobody waiting"

    return run


async def lost(lease: Any) -> Any:
    """Wait until a lease is lost, and return which loss it was."""
    async with asyncio.timeout(60):
        waited = lease.lost.wait
        await (waited() if inspect.iscoroutinefunction(waited) else asyncio.to_thread(waited, 60))
    return lease.loss


@asynccontextmanager
async def under_way(call: Awaitable[Any], client: Any, waiting: int = 1) -> AsyncIterator["asyncio.Future[Any]"]:
    """Have a call wait in the service while the body runs."""
    task = asyncio.ensure_future(call)
    while sum(lease.waiting for lease in await client.leases()) < waiting:
        assert not task.done(), task
    yield task
    await task


# --- sets, readers, units --------------------------------------------------------------------------------------------


def test_readers_share_and_a_writer_waits_for_them(play: Any) -> None:
    async def body(connect: Connect) -> None:
        one, two = connect(), connect()
        async with one.read_lock("a", "b") as lease, two.read_lock("a"):
            assert lease.resources == (lessor.read("a", "b"),)
            assert await two.try_acquire(lessor.write("a", "b", "c")) is None
        async with two.write_lock("a"):
            assert await one.try_acquire(lessor.read("a", "b")) is None

    play(body)


def test_a_set_is_held_all_at_once_or_not_at_all(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, other = connect(), connect()
        async with client.lock_all(["x", ("y", "z"), lessor.read("r")]) as lease:
            assert [each.path for each in lease.resources] == [("x",), ("y", "z"), ("r",)]
            assert await other.try_acquire(("y", "z")) is None
            assert await other.try_acquire([lessor.write("free"), lessor.write("x")]) is None
            assert [lease.name for lease in await client.leases()] == ["x"]
            async with other.read_lock("r"):
                pass

    play(body)


def test_units_shrink_and_serve_whoever_waits_and_never_grow(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, other = connect(), connect()
        lease = await client.acquire(lessor.units("s", 3, limit=4))
        async with under_way(other.acquire(lessor.units("s", 2, limit=4)), client) as waiting:
            await lease.shrink(2)
            second = await waiting
        assert lease.resources[0].count == 2
        with pytest.raises(lessor.CannotGrow):
            await lease.shrink(3)
        assert lease.resources[0].count == 2
        with pytest.raises(lessor.BadRequest):
            await lease.shrink(True)
        await lease.release()
        with pytest.raises(lessor.NotHeldError):
            await lease.shrink(1)
        await second.release()

    play(body)


def test_semaphores_are_created_updated_listed_and_deleted(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client = connect()
        await client.create_semaphore("s", 2, b"one")
        with pytest.raises(lessor.SemaphoreExists):
            await client.create_semaphore("s", 2)
        assert await client.update_semaphore("s", b"two")
        assert not await client.update_semaphore("s", b"two")
        lease = await client.acquire(lessor.units("s"))
        (found,) = await client.semaphores()
        assert (found.name, found.limit, found.units, found.data) == ("s", 2, 1, b"two")
        with pytest.raises(lessor.SemaphoreInUse):
            await client.delete_semaphore("s")
        with pytest.raises(lessor.LimitDiffers):
            await client.try_acquire(lessor.units("s", 1, limit=5))
        with pytest.raises(lessor.BadRequest, match="more than the limit"):
            await client.try_acquire(lessor.units("s", 3))
        await client.delete_semaphore("s", force=True)
        assert await lost(lease) is Loss.BROKEN
        for call in (client.delete_semaphore("s"), client.update_semaphore("s", b"")):
            with pytest.raises(lessor.NoSuchSemaphore):
                await call
        with pytest.raises(lessor.NoSuchSemaphore):
            await client.try_acquire(lessor.units("s"))
        with pytest.raises(lessor.BadRequest, match="whole number"):
            await client.create_semaphore("s", "2")

    play(body)


def test_a_writer_that_shares_lets_readers_in(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, other = connect(), connect()
        lease = await client.acquire("x")
        async with under_way(other.acquire(lessor.read("x")), client) as waiting:
            await lease.share()
            assert (await waiting).held
            assert lease.held
        assert lease.resources == (lessor.read("x"),)

    play(body)


def test_the_data_of_a_lease_is_replaced(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client = connect()
        async with client.lock("x", data=b"old") as lease:
            await lease.update(b"new")
            assert lease.data == b"new"
            assert (await client.describe("x"))[0].data == b"new"
            with pytest.raises(lessor.BadRequest, match="data is bytes"):
                await lease.update("text")
            assert lease.data == b"new"

    play(body)


# --- registers and transactions --------------------------------------------------------------------------------------


def test_a_register_is_written_only_under_a_token_that_covers_it(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client = connect()
        lease = await client.acquire(("x", "y"))
        assert not await client.read_register(("x", "y"))
        one = (await lease.write(b"1", version=0)).version
        assert one > 0
        with pytest.raises(lessor.VersionConflict) as caught:
            await lease.write(b"2", version=7)
        assert caught.value.version == one
        with pytest.raises(lessor.NotCovered):
            await lease.write(b"", "elsewhere")
        read = await client.read_register(("x", "y"))
        assert (read.version, read.token, read.data) == (one, lease.token, b"1")
        assert [each.path for each in await client.registers()] == [("x", "y")]
        assert await lease.erase()
        assert not await lease.erase()
        await lease.release()
        with pytest.raises(lessor.NotHeldError):
            await lease.write(b"late")

    play(body)


def test_a_transaction_is_carried_out_whole_or_not_at_all(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client = connect()
        lease = await client.acquire("x", holder="me")
        whole = client.transaction().if_held(lease.token).if_holder("x", "me").if_free("y").if_version("x", 0)
        await client.transact(whole.write("x", b"1", lease.token).pin("z", "e").renew(lease.token, 60))
        assert (await client.read_register("x")).data == b"1"
        assert [(each.path, each.entities) for each in await client.pins()] == [(("z",), ("e",))]
        with pytest.raises(lessor.TransactionDeclined) as caught:
            await client.transact(
                client.transaction().if_version("x", 5).release(lease.token).erase("x", lease.token).unpin("z", "e")
            )
        assert (caught.value.part, caught.value.index) == ("check", 0)
        assert lease.held
        await client.transact(client.transaction().unpin("z", "e").erase("x", lease.token).release(lease.token))
        assert lease.state is LeaseState.RELEASED
        with pytest.raises(lessor.TransactionDeclined, match="step 0"):
            await client.transact(client.transaction().renew(lease.token))
        with pytest.raises(lessor.BadRequest):
            await client.transact(client.transaction())

    play(body)


# --- waiting, looking, breaking --------------------------------------------------------------------------------------


def test_whoever_waits_until_it_is_free_is_told(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, other = connect(), connect()
        assert await client.wait_free("x", 0)
        lease = await other.acquire("x")
        assert not await client.wait_free("x", 0)
        assert not await free_in_time(client, "x", 0.2)
        async with under_way(client.wait_free("x"), other) as waiting:
            await lease.release()
            assert await waiting
        with pytest.raises(lessor.BadRequest):
            await client.wait_free("")

    play(body)


def test_the_death_of_the_holder_s_session_frees_the_name(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, other = connect(), connect()
        await other.acquire("x", ttl=None)
        async with under_way(client.wait_free("x", 60), client) as waiting:
            await other.close()
            assert await waiting

    play(body)


def test_a_lease_is_validated_by_its_token(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, other = connect(), connect()
        async with client.lock("x", holder="me") as lease:
            found = await other.validate(lease.token)
            assert (found.name, found.holder, found.token) == ("x", "me", lease.token)
        assert await other.validate(lease.token) is None
        with pytest.raises(lessor.BadRequest):
            await other.validate(-1)

    play(body)


def test_a_lease_that_is_broken_is_lost_with_the_operator_s_reason(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, operator = connect(), connect()
        lease = await client.acquire("x", ttl=None)
        await operator.break_lease(lease.token, "it hangs")
        assert await lost(lease) is Loss.BROKEN
        assert lease.lost_reason == "it hangs"
        with pytest.raises(lessor.LeaseLost, match="it hangs"):
            lease.check()
        with pytest.raises(lessor.NotHeldError):
            await operator.break_lease(lease.token, "again")
        with pytest.raises(lessor.BadRequest):
            await operator.break_lease(lease.token, 7)

    play(body)


def test_a_ticket_takes_a_lease_over_with_all_that_is_known_of_it(play: Any) -> None:
    async def body(connect: Connect) -> None:
        owner, heir = connect(), connect()
        lease = await owner.acquire([lessor.write("a", "b"), lessor.units("s", 2, limit=3)], ttl=5, data=b"d")
        taken = await heir.resume(f" {lease.ticket()}\n")  # as a file has it
        assert (taken.token, taken.path, taken.data) == (lease.token, ("a", "b"), b"d")
        assert taken.resources == lease.resources
        assert await lost(lease) is Loss.TAKEN_OVER
        assert not await lease.release(), "and leaves it to whoever has it now"
        await owner.close()
        before = taken.expire_time_unsafe()
        async with asyncio.timeout(60):
            while taken.expire_time_unsafe() < before + 100:  # it is renewed
                await heir.validate(taken.token)
        await taken.shrink(1)
        assert await taken.release()
        with pytest.raises(lessor.LeaseLost):
            await heir.resume(lease.ticket())

    play(body)


def test_the_service_ends_what_is_held_for_as_long_as_it_may_be(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, other = connect(), connect()
        lease = await client.acquire("x", ttl=30, max_hold=0.3)
        assert lease.remaining() <= 0.3
        await other.acquire("x", timeout=60)
        assert await lost(lease) is Loss.MAX_HOLD

    play(body)


# --- namespaces and sessions -----------------------------------------------------------------------------------------


def test_a_namespace_s_settings_count(play: Any) -> None:
    async def body(connect: Connect) -> None:
        operator = connect()
        name = f"{operator.namespace[:80]} own"
        await operator.create_namespace(name, default_ttl=2_000, ttl_max=4_000, claims_max=1)
        with pytest.raises(lessor.NamespaceExists):
            await operator.create_namespace(name)
        client = connect(namespace=name)
        lease = await client.acquire("x", ttl=None)
        assert 1_900 < lease.remaining() <= 2_000, "the default ttl"
        with pytest.raises(lessor.ServiceBusy):
            await client.try_acquire("y")
        with pytest.raises(lessor.BadRequest, match="ttl"):
            await client.try_acquire("y", ttl=4_001)
        with pytest.raises(lessor.NamespaceInUse):
            await operator.drop_namespace(name)
        assert await operator.alter_namespace(name, claims_max=7)
        found = await operator.describe_namespace(name)
        assert (found.created, found.default_ttl, found.ttl_max, found.claims_max, found.claims) == (
            True,
            2_000,
            4_000,
            7,
            1,
        )
        assert name in [each.name for each in await operator.namespaces()]
        await operator.drop_namespace(name, force=True)
        assert await lost(lease) is Loss.BROKEN
        for call in (operator.drop_namespace(name), operator.alter_namespace(name, lock_delay=1)):
            with pytest.raises(lessor.NoSuchNamespace):
                await call

    play(body)


def test_pins_keep_a_lease_beyond_its_ttl(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, other = connect(), connect()
        assert await client.pin("x", "e")
        assert not await client.pin("x", "e")
        await client.acquire("x", ttl=0.2, auto_renew=False, detached=True)
        assert not await free_in_time(other, "x", 0.6)
        assert await client.unpin("x", "e")
        assert not await client.unpin("x", "e")
        assert await other.wait_free("x", 60)
        with pytest.raises(lessor.BadRequest):
            await client.pin("x", 7)

    play(body)


def test_what_happened_is_told_from_a_revision_on(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client = connect(description="of this test")
        async with client.lock("x"):
            pass
        found = await client.events("x", since=0)
        assert [event.kind for event in found.events] == ["granted", "released"]
        assert (await client.events("x", since=found.revision)).events == ()
        assert [session.description for session in await client.sessions()] == ["of this test"]

    play(body)


# --- deadlocks -------------------------------------------------------------------------------------------------------


def test_a_circle_of_flows_is_found_if_asked_for(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client, looker = connect(detect_deadlocks=True), connect()
        if not isinstance(client, Awaited):
            inner = asyncio.Event()

            async def other() -> None:
                async with client.lock("b"):
                    inner.set()
                    async with client.lock("a"):
                        pass

            async with client.lock("a"):
                task = asyncio.create_task(other())
                await inner.wait()
                while sum(lease.waiting for lease in await looker.leases()) < 1:
                    pass
                with pytest.raises(lessor.DeadlockDetected) as caught:
                    await client.acquire("b")
            await task
        else:
            caught = await asyncio.to_thread(_circle_of_threads, client.found, looker.found)
        assert {link.path for link in caught.value.circle} == {("a",), ("b",)}

    play(body)


def _circle_of_threads(client: lessor.Client, looker: lessor.Client) -> Any:
    import threading

    inner = threading.Event()

    def other() -> None:
        with client.lock("b"):
            inner.set()
            with client.lock("a"):
                pass

    thread = threading.Thread(target=other)
    with client.lock("a"):
        thread.start()
        inner.wait(60)
        while sum(lease.waiting for lease in looker.leases()) < 1:
            pass
        with pytest.raises(lessor.DeadlockDetected) as caught:
            client.acquire("b")
    thread.join(60)
    return caught


def test_a_circle_too_large_to_tell_says_how_much_of_it_is_left_out() -> None:
    own = ChainLink("me", "n", ("a", "b"), 1)
    with pytest.raises(lessor.DeadlockDetected, match="for ever: 7 more <- 'a/b' of me") as caught:
        refused(DeadlockDetected((own,), 7))
    assert (caught.value.circle, caught.value.left_out) == ((own,), 7)


def test_deadlocks_are_not_looked_for_otherwise(play: Any) -> None:
    async def body(connect: Connect) -> None:
        one, two = connect(), connect()
        await one.acquire("a")
        lease = await two.acquire("b")
        async with under_way(one.wait_free("b"), one):
            await timed_out_awaited(lambda timeout: two.acquire("a", timeout=timeout))
            await lease.release()

    play(body)


# --- taking a session over -------------------------------------------------------------------------------------------


def test_the_leases_of_a_killed_process_go_on_with_whoever_takes_its_session_over(play: Any, node: Embedded) -> None:
    async def body(connect: Connect) -> None:
        looker = connect()
        ran = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", KILLED, node.endpoints, looker.namespace],
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == -9
        heir = connect(session=ran.stdout.strip())
        found = {lease.name: lease for lease in await heir.recover()}
        assert set(found) == {"kept", "also"}
        assert found["kept"].data == b"of the dead"
        assert all(lease.held for lease in found.values())
        assert await heir.recover() == []
        thief = connect(session=ran.stdout.strip())
        with pytest.raises(lessor.OutOfSequence):
            await thief.recover()
        last = connect(session=await heir.session_ticket())
        assert len(await last.recover()) == 2
        assert await lost(found["kept"]) is Loss.STOLEN
        with pytest.raises(lessor.ClientClosed, match="taken over"):
            await heir.leases()

    play(body)


def test_a_ticket_of_an_ended_session_says_so(play: Any) -> None:
    async def body(connect: Connect) -> None:
        client = connect()
        ticket = await client.session_ticket()
        await client.close()
        heir = connect(session=ticket)
        with pytest.raises(lessor.SessionExpired):
            await heir.recover()
        with pytest.raises(lessor.SessionExpired):
            await heir.acquire("x")
        with pytest.raises(lessor.BadRequest, match="ticket"):
            connect(session="nonsense")
        with pytest.raises(lessor.BadRequest, match="namespace"):
            connect(session=ticket, namespace="elsewhere")

    play(body)


def test_waiting_until_free_leaves_nothing_behind_when_it_is_cancelled(node: Embedded) -> None:
    async def body() -> None:
        async with (
            lessor.aio.connect(node.endpoints, "cancelled") as client,
            lessor.aio.connect(node.endpoints, "cancelled") as other,
            other.lock("x"),
        ):
            task = asyncio.create_task(client.wait_free("x"))
            while len(await other.leases()) < 2:
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while len(await other.leases()) > 1:
                pass

    asyncio.run(asyncio.wait_for(body(), 60))


def test_what_is_not_free_is_named_also_when_the_names_came_one_by_one(node: Embedded) -> None:
    with (
        lessor.connect(node.endpoints, "one by one") as client,
        client.lock("a"),
        pytest.raises(lessor.AcquireTimeout, match="'a', 'b' is not free"),
    ):
        client.acquire((lessor.write(name) for name in "ab"), timeout=0)
