"""Cancelling at every await of the asyncio face leaves nothing held and nobody in a queue, tried for each of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import lessor
from lessor.actors.embedded import Embedded

from .loops import Client, until

MOMENTS = ["while it waits", "once what it waits for is there"]


class CancelledAt:
    """Runs a coroutine, and cancels its task at the await of this number."""

    def __init__(self, body: Coroutine[Any, Any, None], number: int, moment: str) -> None:
        self.body, self.number, self.moment = body, number, moment
        self.awaits = 0

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        steps = self.body.__await__()
        value, error = None, None
        while True:
            try:
                future = steps.throw(error) if error is not None else steps.send(value)
            except StopIteration:
                return
            if self.awaits == self.number:
                if future is None or self.moment == MOMENTS[0]:
                    asyncio.get_running_loop().call_soon(task.cancel)
                else:
                    future.add_done_callback(lambda _: task.cancel())  # comes before the task's own
            self.awaits += 1
            value, error = None, None
            try:
                value = yield future
            except BaseException as thrown:  # noqa: BLE001 - it is handed on
                error = thrown


@asynccontextmanager
async def contended(client: Client, name: str) -> AsyncIterator[None]:
    """Have the name be held by somebody else for a moment, so that others stand in line."""
    lease = await client.acquire(name)

    async def give_back() -> None:
        async with asyncio.timeout(60):
            while not any(view.waiting for view in await client.describe(name)):
                pass
        await lease.release()

    giving = asyncio.create_task(give_back())
    try:
        yield
    finally:
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)
        await lease.release()


async def in_a_lock(client: Client) -> None:
    async with client.lock("x", ttl=30, cancel_on_loss=True) as lease:
        await lease.renew()
        await client.describe("x")


async def by_hand(client: Client) -> None:
    lease = await client.try_acquire("x", ttl=30)
    assert lease is not None
    try:
        await lease.renew(60)
    finally:
        await lease.release()


async def in_line(client: Client) -> None:
    async with (
        lessor.aio.connect(client._caller.protocol.endpoints, client.namespace) as other,
        contended(other, "x"),
        client.lock("x", timeout=30),
    ):
        await client.leases()


async def too_late(client: Client) -> None:
    async with client.lock("x"):
        with pytest.raises(
            (lessor.AcquireTimeout, lessor.Unavailable)
        ):  # the latter if it is not even answered in time
            await client.acquire("x", timeout=0.05)


async def by_ticket(client: Client) -> None:
    lease = await client.acquire("x", ttl=30)
    try:
        async with await client.resume(lease.ticket()) as again:
            await again.renew()
    finally:
        await lease.release()


async def to_the_end(client: Client) -> None:
    await client.acquire("x")
    await client.acquire("y", ttl=None)
    await client.close()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("body", [in_a_lock, by_hand, in_line, too_late, by_ticket, to_the_end])
def test_cancelling_at_any_await_leaves_nothing_behind(
    body: Callable[[Client], Coroutine[Any, Any, None]], moment: str
) -> None:
    with lessor.embedded() as node:
        number = 0
        while asyncio.run(cancelled_at(node, body, number, moment)) > number:
            number += 1
        assert number >= 3, "each await of the body was tried"


async def cancelled_at(
    node: Embedded, body: Callable[[Client], Coroutine[Any, Any, None]], number: int, moment: str
) -> int:
    """Return how many awaits there were before the body ended."""
    namespace = f"await {number}"
    async with asyncio.timeout(60), lessor.aio.connect(node.endpoints, namespace) as observer:
        client = lessor.aio.connect(node.endpoints, namespace)
        steps = CancelledAt(body(client), number, moment)

        async def run() -> None:
            await steps

        task = asyncio.create_task(run())
        await asyncio.gather(task, return_exceptions=True)
        if body is to_the_end:
            await client.close()
        error = None if task.cancelled() else task.exception()
        assert error is None, error
        await until(lambda: nothing_left(observer), f"nothing is left after a cancellation at await {number}")
        await until(lambda: no_lease_of(client), "and its client knows of none")
        await client.close()
        return steps.awaits


async def no_lease_of(client: Client) -> bool:
    await asyncio.sleep(0)
    return not client._caller.protocol.leases


async def nothing_left(observer: Client) -> bool:
    return not await observer.leases()
