"""The recipes of the asyncio face with a real node: what awaiting and cancelling add to those of the blocking one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

import lessor
from lessor import AcquireTimeout, BadRequest, LeaseLost, Unavailable
from lessor.actors.embedded import Embedded
from lessor.client.recipes import aio_groups, rules
from lessor.client.recipes.rules import Share
from lessor.recipes import SKIPPED, LeadershipChanged, aio

from ...support.patience import longer, timed_out_awaited
from ..loops import Body, Client, play, until

SOON_S = 45.0


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def run(node: Embedded, request: pytest.FixtureRequest) -> Callable[[Body], None]:
    return lambda body: play(node, request.node.name[:200], body)


def twin(node: Embedded, client: Client) -> Client:
    return lessor.aio.connect(node.endpoints, client.namespace, holder="other")


async def soon(what: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SOON_S):
        return await what


def test_a_semaphore_and_a_reentrant_lock_are_each_tasks_own(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        pool, lock = client.semaphore("s", 2), client.reentrant_lock("x")
        order: list[str] = []

        async def work(name: str) -> None:
            async with pool, lock as outer, lock as inner:
                assert outer is inner
                order.append(name)
                await asyncio.sleep(0)
                order.append(name)

        await soon(asyncio.gather(*[work(name) for name in "abcd"]))
        assert [order[n] == order[n + 1] for n in range(0, 8, 2)] == [True] * 4
        assert (await pool.acquire(2, timeout=0)).held
        assert await pool.release()

    run(body)


def test_units_may_have_a_longest_hold_and_word_of_their_loss(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        pool, lost = client.semaphore("s", 2), asyncio.Event()
        for acquire in (pool.acquire, pool.try_acquire):
            lost.clear()
            lease = await acquire(max_hold=0.2, on_lost=lambda _: lost.set())
            assert lease is not None
            await soon(lost.wait())
            assert lease.loss is lessor.Loss.MAX_HOLD

    run(body)


def test_a_task_releases_its_own_and_a_lock_whose_lease_was_given_back_is_acquired_anew(
    run: Callable[[Body], None],
) -> None:
    """P3."""

    async def body(client: Client) -> None:
        pool, lock = client.semaphore("s", 2), client.reentrant_lock("x")

        async def other() -> None:
            for nobodys in (pool, lock):
                with pytest.raises(BadRequest):
                    await nobodys.release()

        async with pool as unit, await lock.acquire(timeout=SOON_S) as first:
            await soon(asyncio.create_task(other()))
            assert (unit.held, first.held) == (True, True)
        async with await lock.acquire(timeout=SOON_S) as second:
            assert second.token > first.token

    run(body)


def test_an_election_is_campaigned_for_observed_and_resigned(run: Callable[[Body], None], node: Embedded) -> None:
    async def body(client: Client) -> None:
        async with twin(node, client) as other, other.election("e").observe() as seen:
            assert await anext(seen) is None
            async with await client.election("e").campaign(b"1") as leading:
                assert (await soon(anext(seen))).value == b"1"
                await leading.proclaim(b"2")
                assert (await soon(anext(seen))).value == b"2"
                campaign = asyncio.create_task(other.election("e").campaign(b"3"))
                await until(lambda: waiting(client, "e"), "it stands in line")
            assert (await soon(anext(seen))).value == b"3"
            assert (await soon(campaign)).token > leading.token

    run(body)


async def waiting(client: Client, name: str) -> bool:
    return any(view.waiting for view in await client.describe(name))


def test_a_candidate_that_is_cancelled_stands_in_no_line(run: Callable[[Body], None], node: Embedded) -> None:
    async def body(client: Client) -> None:
        async with twin(node, client) as other, await client.election("e").campaign():
            campaign = asyncio.create_task(other.election("e").campaign())
            await until(lambda: waiting(client, "e"), "it stands in line")
            campaign.cancel()
            await asyncio.wait([campaign])

            async def gone() -> bool:
                return not await waiting(client, "e")

            await until(gone, "it has left the line")

    run(body)


def test_the_body_of_a_stable_leadership_is_cancelled_when_another_one_leads(
    run: Callable[[Body], None], node: Embedded
) -> None:
    """Juju's WithStableLeadership."""

    async def body(client: Client) -> None:
        async with twin(node, client) as other:
            leading = await client.election("e").campaign()
            begun, steps = asyncio.Event(), []

            async def work() -> None:
                async with other.stable_leadership("e"):
                    steps.append("in")
                    begun.set()
                    await asyncio.Event().wait()

            working = asyncio.create_task(work())
            await soon(begun.wait())
            await leading.proclaim(b"no change")
            await leading.resign()
            with pytest.raises(LeadershipChanged):
                await soon(working)
            assert (steps, working.cancelled(), working.cancelling()) == (["in"], False, 0)

    run(body)


def test_a_stable_leadership_can_be_entered_again_and_ends_when_a_change_could_not_be_told(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        async def fail(_: object) -> None:
            raise BadRequest("of a service that is of another version")

        scope = client.stable_leadership("e")
        for _ in range(2):
            async with await client.election("e").campaign() as leading, scope:
                assert scope.leader is not None
                assert scope.leader.token == leading.token
        leading = await client.election("e").campaign()
        with pytest.raises(LeadershipChanged, match="of another version"):  # noqa: PT012
            async with scope:
                monkeypatch.setattr(client, "describe", fail)
                await leading.resign()
                await soon(asyncio.Event().wait())

    run(body)


def test_a_cancellation_from_elsewhere_goes_through_a_stable_leadership(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        begun = asyncio.Event()

        async def work() -> None:
            async with client.stable_leadership("e"):
                begun.set()
                await asyncio.Event().wait()

        working = asyncio.create_task(work())
        await soon(begun.wait())
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        with pytest.raises(ZeroDivisionError):
            async with client.stable_leadership("e"):
                raise ZeroDivisionError

    run(body)


def test_barriers_open_for_all_and_not_for_who_was_cancelled(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        barrier = client.barrier("b", 3)
        quitter = asyncio.create_task(barrier.wait())

        async def one_is_here() -> bool:
            return len([view for view in await client.describe(("b", "here")) if view.data]) == 1

        await until(one_is_here, "it is here")
        quitter.cancel()
        await asyncio.wait([quitter])
        await timed_out_awaited(lambda timeout: barrier.wait(timeout=timeout))
        for _ in range(3):
            assert sorted(await soon(asyncio.gather(*[barrier.wait() for _ in range(3)]))) == [0, 1, 2]
        assert await client.registers() == []

        async def both() -> None:
            async with client.double_barrier("d", 2):
                pass

        await soon(asyncio.gather(both(), both()))

    run(body)


def test_who_gives_up_at_a_barrier_is_not_let_through_by_another_one_who_does(
    run: Callable[[Body], None], node: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: he took the round, which the other had erased as one that all had left, for one that had been opened."""
    leave_s = 123.0
    ends: list[bool] = []
    monkeypatch.setattr(rules.Deadline, "over", property(lambda _: bool(ends)))
    monkeypatch.setattr(aio_groups, "LOOK_S", 0.05)
    monkeypatch.setattr(aio_groups, "LEAVE_S", leave_s)

    async def body(one: Client) -> None:
        given_up, left = asyncio.Event(), asyncio.Event()
        acquire, try_acquire = one.acquire, one.try_acquire

        async def unanswered(*arguments: Any, **options: Any) -> Any:
            if options.get("timeout") == leave_s:
                raise Unavailable("no answer", indefinite=True)
            return await acquire(*arguments, **options)

        async def later(*arguments: Any, **options: Any) -> Any:
            given_up.set()
            await left.wait()
            return await try_acquire(*arguments, **options)

        async with twin(node, one) as other, twin(node, one) as observer:
            acquire_of_other = other.acquire

            async def in_between(*arguments: Any, **options: Any) -> Any:
                if options.get("timeout") == leave_s:
                    await given_up.wait()
                return await acquire_of_other(*arguments, **options)

            monkeypatch.setattr(one, "acquire", unanswered)
            monkeypatch.setattr(one, "try_acquire", later)
            monkeypatch.setattr(other, "acquire", in_between)
            outcomes = [asyncio.ensure_future(client.barrier("b", 3).wait()) for client in (one, other)]
            async with asyncio.timeout(SOON_S):
                while len([view for view in await observer.describe(("b", "here")) if view.data]) < len(outcomes):
                    await observer.revision()
            ends.append(True)
            with pytest.raises(AcquireTimeout):
                await soon(outcomes[1])
            left.set()
            with pytest.raises(AcquireTimeout):
                await soon(outcomes[0])

    run(body)


def test_who_gives_up_at_a_barrier_leaves_nothing_behind_though_its_gate_was_not_answered_in_time(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: the register that says which round it is stayed until the next round."""
    leave_s = 123.0
    monkeypatch.setattr(aio_groups, "LEAVE_S", leave_s)

    async def body(client: Client) -> None:
        acquire = client.acquire

        async def slow(*arguments: Any, **options: Any) -> Any:
            if options.get("timeout") == leave_s:
                raise Unavailable("no answer", indefinite=True)
            return await acquire(*arguments, **options)

        monkeypatch.setattr(client, "acquire", slow)
        await timed_out_awaited(lambda timeout: client.barrier("b", 2).wait(timeout=timeout))
        assert (await client.leases(), await client.registers()) == ([], [])

    run(body)


def test_a_barrier_is_given_up_in_time_though_somebody_holds_its_name_or_its_gate(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        for part in ((), ("gate",)):
            async with client.lock(("b", *part), ttl=600):
                await timed_out_awaited(lambda timeout: client.barrier("b", 2).wait(timeout=timeout))

        async def gives_up(within: float) -> bool:
            waiting_there = asyncio.create_task(client.barrier("b", 2).wait(timeout=within))

            async def has_come() -> bool:
                return waiting_there.done() or bool(await client.registers())

            await until(has_come, "it has come")
            if waiting_there.done():  # while this process stood still
                await asyncio.gather(waiting_there, return_exceptions=True)
                return False
            async with client.lock(("b", "gate"), ttl=600) as gate:
                [told] = await asyncio.gather(waiting_there, return_exceptions=True)
                await gate.erase()
            return isinstance(told, AcquireTimeout)

        gave_up = False
        for timeout in longer(2.0):
            gave_up = gave_up or await gives_up(timeout)
        assert gave_up

    run(body)


def test_a_party_shows_who_is_here(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        party = client.party("p")
        async with party.observe() as seen:
            assert await anext(seen) == []
            async with await party.join(b"a"), await party.join(b"b"):
                assert [member.data for member in await party.members()] == [b"a", b"b"]
                async for members in seen:
                    if len(members) == 2:
                        break

    run(body)


def test_workers_share_tasks_out_and_leave_nothing_when_they_are_cancelled(
    run: Callable[[Body], None], node: Embedded
) -> None:
    async def body(client: Client) -> None:
        jobs = [f"job-{number}" for number in range(10)]
        async with twin(node, client) as other:
            first, second = client.workers(jobs, 4), other.workers(jobs, 10)
            held = [await soon(anext(first)) for _ in range(4)]
            rest = [await soon(anext(second)) for _ in range(6)]
            assert sorted(lease.name for lease in [*held, *rest]) == jobs
            waiting = asyncio.create_task(second.take())
            await asyncio.sleep(0)
            await held[0].release()
            assert (await soon(waiting)).name == held[0].name
            waiting = asyncio.create_task(second.take())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await second.close()
            await first.close()

    run(body)


@pytest.mark.parametrize("turns", range(12))
def test_a_worker_that_is_cancelled_while_it_tries_keeps_nothing_that_it_does_not_show(
    run: Callable[[Body], None], turns: int
) -> None:
    async def body(client: Client) -> None:
        await client.revision()
        worker = client.workers(["a", "b"], 2)
        taking = asyncio.create_task(worker.take())
        for _ in range(turns):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait([taking])

        async def all_is_shown() -> bool:
            shown = {lease.name for lease in worker.held}
            return {view.name for view in await client.leases()} == shown

        await until(all_is_shown, "what is held is shown")
        await worker.close()

    run(body)


def test_a_worker_that_is_closed_while_it_tries_keeps_nothing_and_yields_nothing(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        granted, answer = asyncio.Event(), asyncio.Event()
        really = client.try_acquire

        async def slow(*arguments: Any) -> Any:
            lease = await really(*arguments)
            granted.set()
            await answer.wait()
            return lease

        monkeypatch.setattr(client, "try_acquire", slow)
        worker = client.workers(["a", "b"], 2, ttl=600)
        taken = asyncio.create_task(worker.take())
        await soon(granted.wait())
        await worker.close()
        answer.set()
        assert await soon(taken) is None
        assert worker.held == []
        await until(lambda: no_leases(client), "all are given back")

    run(body)


def test_a_cancelled_worker_keeps_nothing_of_what_it_was_granted_beyond_its_capacity(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        really = Share.take

        def cancelled(share: Share, leases: Any) -> Any:
            taken.cancel()  # while it waits for the first release
            return really(share, leases)

        monkeypatch.setattr(Share, "take", cancelled)
        async with client.workers(["a", "b", "c", "d"], 1, ttl=600) as worker:
            taken = asyncio.create_task(worker.take())
            with pytest.raises(asyncio.CancelledError):
                await soon(taken)
        await until(lambda: no_leases(client), "all are given back")

    run(body)


async def no_leases(client: Client) -> bool:
    return not await client.leases()


def test_what_a_cancelled_worker_was_granted_while_others_were_tried_is_given_back(
    run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(client: Client) -> None:
        attempt, granted = client.try_acquire, asyncio.Event()

        async def slow(name: Any, *arguments: Any) -> Any:
            if name == "b":
                await asyncio.Event().wait()
            found = await attempt(name, *arguments)
            granted.set()
            return found

        monkeypatch.setattr(client, "try_acquire", slow)
        worker = client.workers(["a", "b"], 2)
        taking = asyncio.create_task(worker.take())
        await soon(granted.wait())
        taking.cancel()
        await asyncio.wait([taking])
        await until(lambda: no_leases(client), "all are given back")
        await worker.close()

    run(body)


def test_a_singleton_runs_once_at_a_time_and_is_cancelled_when_its_lease_is_lost(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        begun = asyncio.Event()

        @client.singleton("job")
        async def job() -> None:
            begun.set()
            await asyncio.Event().wait()

        running = asyncio.ensure_future(job())
        await soon(begun.wait())
        assert await job() is SKIPPED
        [view] = await client.leases()
        await client.break_lease(view.token, "a test")
        with pytest.raises(LeaseLost):
            await soon(running)

    run(body)


def test_a_fast_job_does_not_run_twice_and_needs_no_client(
    run: Callable[[Body], None], node: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSOR_ENDPOINTS", node.endpoints)

    @aio.singleton("a job of the asyncio face", min_hold=3600)
    async def job() -> str:
        return "ran"

    async def body(_: Client) -> None:
        assert [await job(), await job()] == ["ran", SKIPPED]

    run(body)
