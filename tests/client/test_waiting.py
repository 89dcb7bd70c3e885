"""What a client is told of its own places in line."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lessor
from lessor.core.limits import CLAIMS_PER_PING_MAX

from ..support.fake_service import World
from ..support.waiting import until
from .loops import until as until_awaited


def places(line: list[lessor.Waiting]) -> list[tuple[str, int, int]]:
    return [(one.name, one.waiters_ahead, one.position) for one in line]


def test_whoever_waits_is_told_how_many_stand_before_and_when_one_of_them_has_left() -> None:
    """P7: those who hold are not counted, and those who wait for something else neither."""
    with lessor.embedded() as node, lessor.connect(node.endpoints) as other, lessor.connect(node.endpoints) as client:
        held = [other.acquire(name) for name in "xy"]
        assert other.waiting() == client.waiting() == []
        with ThreadPoolExecutor() as pool:
            first = pool.submit(other.acquire, "x")
            until(lambda: places(other.waiting()) == [("x", 0, 1)], "the first stands in line")
            below = pool.submit(client.acquire, ("x", "below"), holder="me")
            until(lambda: places(client.waiting()) == [("x/below", 1, 2)], "it stands behind the first")
            apart = pool.submit(client.acquire, lessor.read("y"))
            until(lambda: places(client.waiting()) == [("x/below", 1, 2), ("y", 0, 1)], "so does the other")
            (one, two) = client.waiting()
            assert (one.path, one.holder, two.resources) == (("x", "below"), "me", (lessor.read("y"),))
            pool.submit(client.wait_free, "y")  # takes no place in a line
            held[0].release()
            first.result(60)
            until(lambda: places(client.waiting()) == [("x/below", 0, 1), ("y", 0, 1)], "it is the next one now")
            first.result().release()
            held[1].release()
            assert below.result(60).held
            assert apart.result(60).held
        assert client.waiting() == []


def test_a_task_sees_its_place_as_a_thread_does() -> None:
    async def play(endpoints: str) -> None:
        async with lessor.aio.connect(endpoints) as client:
            held = await client.acquire("x")
            waits = []
            for place in range(3):
                waits.append(asyncio.create_task(client.acquire("x")))

                async def in_line(behind: int = place) -> Any:
                    return places(await client.waiting()) == [("x", ahead, ahead + 1) for ahead in range(behind + 1)]

                await until_awaited(in_line, "it stands behind those before")
            waits[0].cancel()

            async def moved_up() -> Any:
                return places(await client.waiting()) == [("x", 0, 1), ("x", 1, 2)]

            await until_awaited(moved_up, "the others have moved up")
            for wait in waits[1:]:
                await held.release()
                held = await wait
            assert await client.waiting() == []

    with lessor.embedded() as node:
        asyncio.run(play(node.endpoints))


def test_all_places_are_told_as_they_are_though_one_ping_asks_for_a_few() -> None:
    world = World()
    holder, other, client = (world.client() for _ in range(3))
    names = [f"name-{number}" for number in range(2 * CLAIMS_PER_PING_MAX + 1)]
    for name in names:
        holder.acquire(name)
    world.run(50)
    before = other.acquire(names[-1])
    world.run(50)
    waits = [client.acquire(name) for name in names]
    world.run(50)
    assert not any(wait.done for wait in [before, *waits])
    other.abandon(before)
    world.run(50)
    told = client.begin(lambda done: client.protocol.waiting(done, None))
    world.finish(told)
    assert places(told.value) == [(name, 0, 1) for name in names]
