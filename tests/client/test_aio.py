"""The asyncio face against a real node in this process: locks, leases, tasks, scopes, the end of a client."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lessor
from lessor import BadRequest, ClientClosed, LeaseLost, LeaseState, Loss, Unavailable
from lessor.actors.embedded import Embedded
from lessor.client import clock
from lessor.core.limits import LIST_PAGE_MAX
from lessor.core.requests import Request
from lessor.transport import sockets
from lessor.transport.packets import decode_packet

from ..support.patience import Since, longer, timed_out_awaited
from ..support.sockets import free_port
from .loops import Body, Client, play, until


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def run(node: Embedded, request: pytest.FixtureRequest) -> Callable[[Body], None]:
    return lambda body: play(node, request.node.name[:200], body)


def twin(node: Embedded, client: Client) -> Client:
    """Another client of the same namespace."""
    return lessor.aio.connect(node.endpoints, client.namespace)


# --- locks and leases ------------------------------------------------------------------------------------------------


def test_a_lock_gives_the_lease_itself_and_releases_it_at_the_end(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        async with client.lock("x", ttl=30, data=b"data") as lease:
            assert isinstance(lease, lessor.aio.Lease)
            assert lease.held
            [seen] = await client.describe("x")
            assert (seen.holder, seen.token, seen.data) == (client.holder, lease.token, b"data")
        assert await client.describe("x") == []
        assert (lease.state, lease.lost_reason) == (LeaseState.RELEASED, "")

    run(body)


def test_a_lease_can_be_used_in_async_with_by_itself_and_is_released_when_the_body_fails(
    run: Callable[[Body], None],
) -> None:
    async def body(client: Client) -> None:
        with pytest.raises(ZeroDivisionError):
            async with await client.acquire("x"):
                _ = 1 / 0
        assert await client.describe("x") == []

    run(body)


def test_a_try_gives_the_lease_or_none_and_a_wait_has_its_turn(run: Callable[[Body], None]) -> None:  # P7
    async def body(client: Client) -> None:
        lease = await client.try_acquire("x")
        assert lease is not None
        assert await client.try_acquire("x") is None
        await timed_out_awaited(lambda timeout: client.acquire("x", timeout=timeout))
        later = asyncio.ensure_future(client.acquire("x"))
        await until(lambda: waiting(client, "x"), "it stands in line")
        assert await lease.release()
        assert (await later).token > lease.token
        assert await (await later).release()
        assert not await lease.release()

    run(body)


async def waiting(client: Client, name: str) -> int:
    return sum(lease.waiting for lease in await client.describe(name))


def test_a_lease_is_renewed_in_the_background_and_when_asked(run: Callable[[Body], None]) -> None:  # P4
    async def body(client: Client) -> None:
        async def lives_on(ttl: float) -> bool:
            lease = await client.acquire("x", ttl=ttl)
            first = lease.expire_time_unsafe()

            async def outlived() -> bool:
                await client.describe("x")
                return not lease.held or lease.expire_time_unsafe() > first + 1_000 * ttl + 100

            await until(outlived, "it has outlived its ttl")
            return lease.held and await lease.release()

        lived_on = False
        for ttl in longer(0.6):
            lived_on = lived_on or await lives_on(ttl)
        assert lived_on
        async with client.lock("x") as lease:
            since = Since()
            await lease.renew(ttl=60)
            assert since.left(60, lease.remaining)

    run(body)


def test_the_end_of_a_lease_is_told_by_one_event_whether_it_was_released_or_lost(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        released, lost = await client.acquire("x"), await client.acquire("y", ttl=0.3, auto_renew=False)
        ends = [released.ended, lost.ended]
        assert not ends[0].is_set()
        await released.release()
        assert [await end.wait() for end in ends] == [True, True]
        assert [lease.lost.is_set() for lease in (released, lost)] == [False, True]

    run(body)


def test_the_loss_of_a_lease_is_told_by_its_event_and_its_callbacks(run: Callable[[Body], None]) -> None:  # P8
    async def body(client: Client) -> None:
        told: list[tuple[int, LeaseState]] = []
        lost: list[str] = []
        lease = await client.acquire(
            "x", ttl=0.3, auto_renew=False, on_lost=lambda lease: lost.append(lease.lost_reason)
        )
        lease.on_change(lambda lease, state: told.append((lease.token, state)))
        await lease.lost.wait()
        await asyncio.sleep(0)
        assert (lease.state, lease.loss, lease.held) == (LeaseState.LOST, Loss.EXPIRED, False)
        assert told == [(lease.token, LeaseState.LOST)]
        assert [why.startswith("it expired") for why in lost] == [True], "while this process stood still, perhaps"
        with pytest.raises(LeaseLost) as caught:
            lease.check()
        assert caught.value.loss is Loss.EXPIRED
        with pytest.raises(LeaseLost):
            await lease.renew()

    run(body)


def test_a_body_that_ran_without_its_lease_is_told(run: Callable[[Body], None]) -> None:  # P8
    async def body(client: Client) -> None:
        with pytest.raises(LeaseLost, match="before the body"):
            async with client.lock("x", ttl=0.2, auto_renew=False) as lease:
                await lease.lost.wait()

    run(body)


def test_a_queue_and_a_long_listing_are_described_whole(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lessor.core.limits.LIST_PAGE_MAX", 3)
    assert LIST_PAGE_MAX > 3

    async def body(client: Client) -> None:
        names = [f"name {number}" for number in range(8)]
        for name in names:
            await client.acquire(name)
        assert [seen.name for seen in await client.leases()] == names
        assert {seen.name for seen in await client.leases(all_namespaces=True)} >= set(names)

    run(body)


def test_a_release_by_token_is_told_to_the_holder_at_once(node: Embedded, run: Callable[[Body], None]) -> None:  # P8
    async def body(client: Client) -> None:
        async with twin(node, client) as other:
            lease = await client.acquire("x")
            assert await other.release(lease.token)
            await lease.lost.wait()
            assert lease.loss is Loss.ENDED

    run(body)


# --- many tasks ------------------------------------------------------------------------------------------------------


def test_many_tasks_take_turns_in_the_order_in_which_they_came(run: Callable[[Body], None]) -> None:  # P3, P5, P7
    async def body(client: Client) -> None:
        served: list[tuple[int, int]] = []

        async def work(number: int) -> None:
            async with client.lock("x", timeout=50) as lease:
                served.append((number, lease.token))

        await asyncio.gather(*[work(number) for number in range(200)])
        assert [number for number, _ in served] == list(range(200))
        assert [token for _, token in served] == sorted(token for _, token in served)

    run(body)


def test_the_requests_of_tasks_that_wait_at_the_same_time_travel_together(
    node: Embedded, run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lessor.client.calls.SILENCE_MS", 60_000)  # no slow machine makes it ask again

    async def body(unused: Client) -> None:
        async with lessor.aio.connect(node.endpoints, unused.namespace, session_timeout=600) as client:
            await client.describe("x")
            sent: list[int] = []
            pump = client._caller._engine._pump  # type: ignore[union-attr]
            really = pump.send

            def send(packets: Any) -> Any:
                sent.extend(requests(packet.frame) for packet in packets)
                return really(packets)

            with monkeypatch.context() as patched:
                patched.setattr(pump, "send", send)
                await asyncio.gather(*[client.describe(f"name {number}") for number in range(100)])
            assert sent == [100], "all in one packet"

    run(body)


def test_nothing_that_has_arrived_is_left_unread_though_no_event_tells_of_it(
    node: Embedded, run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lessor.client.calls.SILENCE_MS", 600_000)  # what lies unread is not asked for again

    async def body(unused: Client) -> None:
        async with lessor.aio.connect(node.endpoints, unused.namespace, session_timeout=600) as client:
            await ask_in_many_packets(client)

    async def ask_in_many_packets(client: Client) -> None:
        await client.describe("x")
        pump = client._caller._engine._pump  # type: ignore[union-attr]
        at_a_time = sockets.receive
        sent: list[int] = []
        really = pump.send

        def send(packets: Any) -> Any:
            sent.extend(requests(packet.frame) for packet in packets)
            return really(packets)

        async def ask(number: int) -> None:
            for _ in range(number):
                await asyncio.sleep(0)  # so that each travels by itself, and so does its answer
            await client.describe("x")

        with monkeypatch.context() as slow:
            slow.setattr(sockets, "receive", lambda socket: at_a_time(socket, 1))
            slow.setattr(pump, "send", send)
            asked = asyncio.gather(*[ask(number) for number in range(100)])
            slow.setattr(pump, "wait_ms", lambda: None)  # no timer helps
            while sum(sent) < 100:  # noqa: ASYNC110 - it is for the turns that this waits
                await asyncio.sleep(0)
            threading.Event().wait(0.3)  # the loop stands still, and many answers come
            await asked
        assert sum(sent) == 100

    run(body)


def requests(frame: bytes) -> int:
    return sum(isinstance(message, Request) for message in decode_packet(frame))


# --- a body that is cancelled when its lease is lost -----------------------------------------------------------------


def test_a_body_is_cancelled_when_its_lease_is_lost_if_asked(run: Callable[[Body], None]) -> None:  # P8
    async def body(client: Client) -> None:
        with pytest.raises(LeaseLost) as caught:
            async with client.lock("x", ttl=0.3, auto_renew=False, cancel_on_loss=True):
                await asyncio.Event().wait()
        assert caught.value.loss is Loss.EXPIRED
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await client.describe("x")  # nothing cancels what comes after

    run(body)


def test_a_cancellation_from_elsewhere_at_the_same_time_is_not_swallowed(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        async def work() -> None:
            async with client.lock("x", ttl=0.3, auto_renew=False, cancel_on_loss=True) as lease:
                lease.on_change(lambda *_: task.cancel())
                try:
                    await asyncio.Event().wait()
                finally:
                    while task.cancelling() < 2:  # noqa: ASYNC110 - the second comes in the next turn
                        await asyncio.sleep(0)

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(body)


def test_a_body_that_swallows_its_cancellation_still_ends_in_the_loss(run: Callable[[Body], None]) -> None:  # P8
    async def body(client: Client) -> None:
        with pytest.raises(LeaseLost, match="before the body"):  # noqa: PT012 - it is the end of the body that raises
            async with client.lock("x", ttl=0.3, auto_renew=False, cancel_on_loss=True):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass
        await client.describe("x")

    run(body)


def test_the_error_of_a_body_that_was_cancelled_for_the_loss_is_kept(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it is the end of the body that raises
            async with client.lock("x", ttl=0.3, auto_renew=False, cancel_on_loss=True):
                try:
                    await asyncio.Event().wait()
                finally:
                    _ = 1 / 0
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(body)


def test_nested_scopes_each_cancel_for_their_own_loss_only(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        async with client.lock("outer", ttl=30, cancel_on_loss=True) as outer:
            with pytest.raises(LeaseLost, match="'inner'"):
                async with client.lock("inner", ttl=0.3, auto_renew=False, cancel_on_loss=True):
                    await asyncio.Event().wait()
            outer.check()
            await client.describe("outer")

    run(body)


def test_the_outer_loss_passes_through_an_inner_scope_that_still_holds(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        with pytest.raises(LeaseLost, match="'outer'"):
            async with (
                client.lock("outer", ttl=0.4, auto_renew=False, cancel_on_loss=True),
                client.lock("inner", cancel_on_loss=True),
            ):
                await asyncio.Event().wait()
        await until(lambda: free(client, "inner"), "nobody holds it")

    run(body)


def test_a_released_lease_cancels_nobody(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        async with client.lock("x", cancel_on_loss=True) as lease:
            await lease.release()
            await client.describe("x")

    run(body)


# --- the engine ------------------------------------------------------------------------------------------------------


def test_a_suspend_is_noticed_and_the_loss_is_told_first_thing(
    node: Embedded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # P8
    async def main() -> None:
        client = lessor.aio.connect(node.endpoints, "suspended by a loop", session_timeout=300)
        lease = await client.acquire("x", ttl=300)  # without the suspend nothing would be due for a minute
        protocol = client._caller.protocol
        while (protocol.wake_at_ms() or 0) < clock.now_ms() + 20_000:  # noqa: ASYNC110 - so that nothing is due
            await asyncio.sleep(0)
        really = clock._read_ns
        monkeypatch.setattr(clock, "_read_ns", lambda: really() + 3_600_000_000_000)
        assert not lease.held, "whoever looks knows at once"
        async with asyncio.timeout(50):
            await lease.lost.wait()
        assert lease.loss is Loss.SUSPENDED
        assert "suspended for 3600" in caplog.text
        await client.close()

    asyncio.run(main())


def test_an_error_in_a_callback_is_logged_and_harms_nothing(
    run: Callable[[Body], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def body(client: Client) -> None:
        told: list[LeaseState] = []
        lease = await client.acquire("x")
        lease.on_change(lambda *_: 1 / 0)
        lease.on_change(lambda _, state: told.append(state))
        await lease.release()
        await asyncio.sleep(0)
        assert told == [LeaseState.RELEASED]

    with caplog.at_level(logging.ERROR):
        run(body)
    assert "ZeroDivisionError" in caplog.text


def test_an_engine_that_fails_says_so_to_everybody_and_its_leases_are_lost(
    node: Embedded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # P8
    async def body(unused: Client) -> None:
        client = lessor.aio.connect(node.endpoints, unused.namespace, session_timeout=600)
        lease = await client.acquire("x", ttl=600)  # so that nothing comes but the answer that is asked for here
        monkeypatch.setattr(client._caller.protocol, "receive", lambda *_: 1 / 0)
        with pytest.raises(Unavailable, match="division by zero") as caught:
            await client.describe("x")
        assert caught.value.indefinite
        assert lease.loss is Loss.FAILED
        assert "the client's engine failed" in caplog.text
        with pytest.raises(ClientClosed):
            await client.describe("x")
        async with twin(node, client) as other:
            assert await other.release(lease.token), "it is left to end by itself"

    play(node, "engine failed", body)


async def free(client: Client, name: str) -> bool:
    return not await client.describe(name)


def test_closing_releases_withdraws_and_tells_whoever_waits(node: Embedded, run: Callable[[Body], None]) -> None:
    async def body(other: Client) -> None:
        client = twin(node, other)
        lease = await client.acquire("x")
        held = await other.acquire("y")
        later = asyncio.ensure_future(client.acquire("y"))
        await until(lambda: waiting(other, "y"), "it stands in line")
        await asyncio.gather(client.close(), client.close())
        await client.close()
        with pytest.raises(ClientClosed):
            await later
        assert await other.describe("x") == []
        assert len(await other.describe("y")) == 1
        assert (lease.held, held.held, lease.state) == (False, True, LeaseState.RELEASED)
        with pytest.raises(ClientClosed):
            await client.acquire("z")

    run(body)


def test_a_close_that_is_cancelled_goes_on(node: Embedded, run: Callable[[Body], None]) -> None:
    async def body(other: Client) -> None:
        client = twin(node, other)
        await client.acquire("x")
        closing, other_s = asyncio.create_task(client.close()), asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await other_s
        await until(lambda: free(other, "x"), "it is released all the same")
        await client.close()

    run(body)


def test_a_client_that_was_never_used_can_be_closed_and_one_that_was_belongs_to_its_loop(node: Embedded) -> None:
    unused = lessor.aio.connect(node.endpoints)
    asyncio.run(unused.close())
    client = lessor.aio.connect(node.endpoints)
    with asyncio.Runner() as first:
        first.run(client.describe("x"))
        with pytest.raises(ClientClosed, match="another event loop"):
            asyncio.run(client.describe("x"))
        first.run(client.close())


def test_a_service_that_is_not_there_is_unavailable_and_nothing_has_happened() -> None:  # P9
    async def body() -> None:
        async with lessor.aio.connect(f"tcp://127.0.0.1:{free_port()}", request_timeout=0.3) as client:
            for ask in (client.acquire("x", timeout=0.2), client.try_acquire("x"), client.describe("x")):
                with pytest.raises(Unavailable) as caught:
                    await ask
                assert not caught.value.indefinite
            with pytest.raises(BadRequest):
                await client.acquire("")

    asyncio.run(body())


def test_the_blocking_face_does_not_pay_for_asyncio() -> None:
    program = "import sys, lessor; lessor.connect; print('asyncio' in sys.modules, 'lessor.client.aio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False"
    bare = "import sys, zmq, logging, cbor2, socket, threading; print('asyncio' in sys.modules)"
    paid = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == paid.stdout.strip(), "only if zmq itself loads it"
