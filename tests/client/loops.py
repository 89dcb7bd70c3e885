"""Runs coroutines of tests: with a client of the asyncio face in a namespace of the test's own, and nothing left."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import lessor
from lessor.actors.embedded import Embedded

Client = lessor.aio.Client
Body = Callable[[Client], Coroutine[Any, Any, None]]

TIMEOUT_S = 50.0


async def until(ask: Callable[[], Awaitable[Any]], what: str) -> None:
    """Ask until the answer is true."""
    async with asyncio.timeout(TIMEOUT_S):
        while not await ask():
            pass
    assert what


def play(node: Embedded, namespace: str, body: Body) -> None:
    """Run a body with a client; at the end nothing may be held or waited for in its namespace."""

    async def whole() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            async with lessor.aio.connect(node.endpoints, namespace) as client:
                await body(client)

    asyncio.run(whole(), debug=True)
    with lessor.connect(node.endpoints, namespace) as observer:
        assert observer.leases() == [], "nothing held and nobody waiting"
    assert node.failure is None
