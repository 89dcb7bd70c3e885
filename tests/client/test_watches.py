"""Watches of one name or a prefix: each event once and in order, and what is missing is said."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lessor
from lessor.actors.embedded import Embedded
from lessor.client.asks import Events
from lessor.client.course import LOOK_AGAIN_S, Course
from lessor.client.watch import Missed
from lessor.core.events import DATA_CHANGED, DELETED, OWNERS_CHANGED, Event
from lessor.core.limits import EVENT_PAGE_MAX, LIST_LOOK_MAX
from lessor.testing import Cluster

from ..support.sockets import free_port
from ..support.waiting import until
from .loops import Body, play

SOON_S = 60.0


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def client(node: Embedded, request: pytest.FixtureRequest) -> Iterator[lessor.Client]:
    with lessor.connect(node.endpoints, request.node.name[:200]) as connected:
        yield connected


@pytest.fixture
def run(node: Embedded, request: pytest.FixtureRequest) -> Callable[[Body], None]:
    return lambda body: play(node, request.node.name[:200], body)


def never_looking(watch: Any) -> Any:
    """A watch that asks only when the feed tells it to."""
    watch._course._look_after = 3600.0
    return watch


def told_by(watch: Any, count: int) -> list[Any]:
    """What a watch tells next, each in time."""
    return [watch.next(timeout=SOON_S) for _ in range(count)]


def kinds(watch: Any, count: int) -> list[str]:
    """The kinds of the next events."""
    return [getattr(told, "kind", repr(told)) for told in told_by(watch, count)]


# --- the course, without any I/O -------------------------------------------------------------------------------------


def event(revision: int, *path: str) -> Event:
    return Event(revision, 1, 0, "granted", "n", path or ("x",), 1, 1, 1, "me", 0)


def drained(course: Course) -> list[Any]:
    return list(iter(course.next, None))


def test_a_course_without_a_beginning_begins_now() -> None:
    course = Course("n", "x", None, below=False)
    course.take(Events((), 41, 0))
    assert (course.revision, course.due, drained(course)) == (41, False, [])


def test_only_what_concerns_the_name_is_asked_for() -> None:
    course = Course("n", ("a", "b"), None, below=False)
    course.take(Events((), 10, 0))
    course.hint([event(11, "a"), event(12, "a", "c"), event(13, "a", "b", "c")])
    before = course.due
    course.hint([event(14, "a", "b")])
    assert (before, course.due) == (False, True)
    course.take(Events((event(14, "a", "b"),), 14, 0))
    after = course.due
    assert not after, "one question for one piece of news"
    assert drained(course) == [event(14, "a", "b")]


def test_what_the_service_keeps_no_more_is_told_before_what_follows_it() -> None:
    course = Course("n", "x", 5, below=False)
    course.take(Events((event(30),), 31, 20))
    assert drained(course) == [Missed(6, 20), event(30)]


def test_the_revision_is_that_of_what_was_handed_out_and_not_of_what_was_read() -> None:
    """So that whoever stops in the middle goes on with the next event."""
    course = Course("n", "x", 5, below=False)
    course.take(Events((event(7), event(9)), 11, 0))
    assert course.revision == 5
    course.next()
    assert course.revision == 7
    course.next()
    assert (course.next(), course.revision) == (None, 11)


@pytest.mark.parametrize("page", [tuple(event(n) for n in range(1, EVENT_PAGE_MAX + 1)), ()])
def test_a_full_page_is_followed_by_the_next_one(page: tuple[Event, ...]) -> None:
    """Also one in which LIST_LOOK_MAX events of others were looked at."""
    course = Course("n", "x", None, below=False)
    course.take(Events((), 0, 0))
    course.look()
    course.take(Events(page, len(page) or LIST_LOOK_MAX, 0))
    before = course.due
    course.take(Events((), LIST_LOOK_MAX + 1, 0))
    assert (before, course.due) == (True, False)


def test_a_cluster_that_was_made_anew_is_told_from_its_beginning() -> None:
    course = Course("n", "x", 500, below=False)
    course.take(Events((), 2, 0))
    course.take(Events((event(2),), 2, 0))
    assert drained(course) == [event(2)]


def test_silence_is_asked_about_less_and_less_but_never_never() -> None:
    """P10: nobody polls fast."""
    course = Course("n", "x", None, below=False)
    looks = [course.look_after() for _ in range(20)]
    assert looks == sorted(looks)
    assert sum(looks[:5]) > 2
    assert looks[-1] == LOOK_AGAIN_S


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_feed_loses_and_the_pages_hold_each_event_is_told_once(seed: int) -> None:
    chance = random.Random(seed)
    history: list[Event] = []
    course, told = Course("n", "x", 0, below=False), []
    for _ in range(2000):
        for _ in range(chance.choice((0, 0, 1, 5))):
            history.append(event(len(history) + 1, chance.choice("xy")))
        course.hint([each for each in history[-5:] if chance.random() < 0.3])
        if chance.random() < 0.1:
            course.look()
        if course.due:
            after = course._read or 0
            span = history[after : after + chance.choice((1, 3, 600))]
            course.take(Events(tuple(e for e in span if e.path == ("x",)), span[-1].revision if span else after, 0))
        told += drained(course) if chance.random() < 0.5 else []
    course.look()
    while course.due:
        rest = history[course._read or 0 :][:600]
        course.take(Events(tuple(e for e in rest if e.path == ("x",)), rest[-1].revision if rest else len(history), 0))
    assert told + drained(course) == [each for each in history if each.path == ("x",)]


# --- with nodes ------------------------------------------------------------------------------------------------------


def test_a_watch_tells_what_becomes_of_owners_data_and_the_end_and_nothing_of_others(client: lessor.Client) -> None:
    with client.watch("x") as watch, client.lock("other"):
        with client.lock("x") as lease:
            lease.update(b"data")
            lease.write(b"register")
            lease.erase()
        told = kinds(watch, 5)
    assert told == ["granted", "amended", "written", "erased", "released"]
    assert [kind in OWNERS_CHANGED for kind in told] == [True, True, False, False, True]
    assert told[2] in DATA_CHANGED
    assert told[3] in DELETED


def test_a_watch_of_a_prefix_tells_what_happens_below_it(client: lessor.Client) -> None:
    with client.watch("a", below=True) as wide, client.watch("a") as narrow:
        for path in (("a", "b"), ("ab",), ("a", "b", "c"), ("a",)):
            client.acquire(path).release()
        seen = [each.path for each in told_by(wide, 6) if isinstance(each, Event)]
        assert seen == [("a", "b")] * 2 + [("a", "b", "c")] * 2 + [("a",)] * 2
        assert [each.path for each in told_by(narrow, 2) if isinstance(each, Event)] == [("a",)] * 2


def test_a_watch_goes_on_from_a_revision(client: lessor.Client) -> None:
    since = client.revision()
    client.acquire("x").release()
    with client.watch("x", since=since) as first:
        granted = next(first)
        assert isinstance(granted, Event)
        assert granted.kind == "granted"
        resume = first.revision
    assert resume == granted.revision
    with client.watch("x", since=resume) as second:
        assert kinds(second, 1) == ["released"]


def test_what_happens_before_the_watch_began_is_not_told(client: lessor.Client) -> None:
    client.acquire("x").release()
    before = client.revision()
    with client.watch("x") as watch:
        told: list[Any] = []

        def begun() -> bool:
            told.append(watch.next(timeout=0))
            return watch.revision > 0

        until(begun, "it is known from where on it tells")
        assert set(told) == {None}
        assert before <= watch.revision <= client.revision()


def test_many_pages_of_what_has_happened_are_told_to_the_last_event(client: lessor.Client) -> None:
    since = client.revision()
    for _ in range(EVENT_PAGE_MAX):
        client.acquire("x").release()
    with client.watch("x", since=since) as watch:
        assert kinds(watch, 2 * EVENT_PAGE_MAX) == ["granted", "released"] * EVENT_PAGE_MAX


def test_news_comes_by_the_feed_and_not_by_asking_often(client: lessor.Client) -> None:
    """A watch whose looks are far apart is told within one of them."""
    with client.watch("x") as watch:
        never_looking(watch)._look_at = time.monotonic() + 3600

        def is_heard() -> bool:
            client.acquire("x").release()
            return watch.next(timeout=0.3) is not None

        until(is_heard, "the feed is connected")
        [*_, last] = client.events("x", since=0).events
        while watch.revision < last.revision:
            told_by(watch, 1)
        for _ in range(3):
            client.acquire("x").release()
            assert kinds(watch, 2) == ["granted", "released"]


def test_a_watch_that_is_closed_ends_at_once_whatever_it_waits_for(client: lessor.Client) -> None:
    watch = never_looking(client.watch("x"))
    ended = threading.Event()

    def read() -> None:
        assert list(watch) == []
        ended.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until(lambda: watch._course.begun, "it has begun")
    watch.close()
    watch.close()
    assert ended.wait(SOON_S)
    reader.join()
    assert list(watch) == []


def test_a_watch_is_closed_at_once_also_while_no_node_answers() -> None:
    with lessor.connect(f"tcp://127.0.0.1:{free_port()}", request_timeout=600) as client:
        watch = client.watch("x")
        ended = threading.Event()

        def read() -> None:
            assert list(watch) == []
            ended.set()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        until(lambda: watch._interrupt, "it asks")
        watch.close()
        assert ended.wait(SOON_S)
        reader.join()


def test_a_watch_waits_no_longer_than_it_is_told_though_no_node_answers() -> None:
    """In both faces: a call waits for the service itself for much longer."""
    away = f"tcp://127.0.0.1:{free_port()}"
    began = time.monotonic()
    with lessor.connect(away, request_timeout=60) as client:
        assert client.watch("x").next(timeout=0.1) is None

    async def other_face() -> None:
        async with lessor.aio.connect(away, request_timeout=60) as client:
            assert await client.watch("x").next(timeout=0.1) is None

    asyncio.run(other_face())
    assert time.monotonic() - began < 30


def test_a_watch_that_was_closed_before_it_began_tells_nothing(client: lessor.Client) -> None:
    watch = client.watch("x", since=0)
    watch.close()
    with watch:
        assert list(watch) == []
    seen = client.election("e").observe()
    seen.close()
    assert list(seen) == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux does")
def test_many_watches_of_a_client_share_its_threads(client: lessor.Client) -> None:
    """P10."""

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    since = client.revision()  # on a slow machine none of them is told in time from where on it looks
    before = threads()
    watches = [client.watch(("x", str(number)), since=since) for number in range(30)]
    for watch in watches:
        watch.next(timeout=0)
    assert threads() <= before + 3
    client.acquire(("x", "7")).release()
    assert kinds(watches[7], 2) == ["granted", "released"]
    for watch in watches:
        watch.close()
    until(lambda: threads() <= before, "they have ended")


def test_whoever_reads_a_watch_is_told_that_its_client_was_closed(node: Embedded) -> None:
    client = lessor.connect(node.endpoints)
    watch = never_looking(client.watch("x"))
    told: list[Any] = []

    def read() -> None:
        try:
            next(watch)
        except lessor.ClientClosed as error:
            told.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until(lambda: watch._course.begun, "it has begun")
    client.close()
    reader.join(SOON_S)
    assert len(told) == 1


@pytest.mark.parametrize(("name", "since"), [(7, None), ("x", -1), ("x", "now"), (("a", 1), None)])
def test_a_watch_of_what_cannot_be_watched_is_refused_when_it_is_made(
    client: lessor.Client, name: Any, since: Any
) -> None:
    with pytest.raises(lessor.BadRequest):
        client.watch(name, since=since)


def test_no_revision_however_high_harms_a_node(client: lessor.Client, node: Embedded) -> None:
    """P11."""
    client.acquire("x").release()
    for since in (2**40, 2**62, 2**63 - 3):
        assert client.events("x", since=since).events == ()
    assert node.failure is None


def test_what_a_restarted_service_has_forgotten_is_told_as_missed(tmp_path: Path) -> None:
    port = free_port()
    with lessor.embedded(tmp_path, port) as node, lessor.connect(node.endpoints) as client:
        watch = client.watch("x")
        with watch:
            client.acquire("x")
            assert kinds(watch, 1) == ["granted"]
            since = watch.revision
        client.acquire("y").release()
    with lessor.embedded(tmp_path, port) as node, lessor.connect(node.endpoints) as client:
        with client.watch("x", since=since) as watch:
            missed = next(watch)
            assert isinstance(missed, Missed)
            assert missed.first == since + 1
            client.acquire("x", timeout=SOON_S).release()
            told = kinds(watch, 2)
        assert told == ["granted", "released"]


def test_a_watch_goes_on_over_the_death_of_a_leader_and_a_restart_of_all_nodes() -> None:
    """Each event once and in order: here every grant of a name that is taken again and again."""
    with Cluster(3) as cluster, cluster.client(request_timeout=60) as client, cluster.client() as reader:
        with reader.watch("x") as watch:
            tokens = [held(client)]
            killed = cluster.kill_leader()
            tokens.append(held(client))
            cluster.restart(killed)
            cluster.kill(cluster.wait_for_leader())
            tokens += [held(client), held(client)]
            told = told_by(watch, 8)
        events = [each for each in told if isinstance(each, Event)]
        assert len(events) == len(told), told
        assert [each.token for each in events if each.kind == "granted"] == tokens
        assert [each.revision for each in events] == sorted({each.revision for each in events})


def held(client: lessor.Client) -> int:
    with client.lock("x") as lease:
        return lease.token


async def begun(watch: Any) -> None:
    async with asyncio.timeout(SOON_S):
        while not watch._course.begun:  # noqa: ASYNC110 - the reader tells nobody of it
            await asyncio.sleep(0)


# --- the asyncio face ------------------------------------------------------------------------------------------------


def test_a_task_reads_a_watch_and_its_wait_can_be_cancelled_without_a_loss(run: Callable[[Body], None]) -> None:
    async def body(client: lessor.aio.Client) -> None:
        async with client.watch("x") as watch:
            waiting = asyncio.create_task(anext(watch))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            for _ in range(3):
                await (await client.acquire("x")).release()
                told = [await anext(watch), await watch.next(timeout=SOON_S)]
                assert [getattr(each, "kind", None) for each in told] == ["granted", "released"]
            assert await watch.next(timeout=0.01) is None

    run(body)


def test_a_watch_of_a_task_is_closed_by_another_task_or_with_its_client(run: Callable[[Body], None]) -> None:
    async def body(client: lessor.aio.Client) -> None:
        async def read(watch: Any) -> list[Any]:
            return [told async for told in watch]

        watch = never_looking(client.watch("x"))
        reader = asyncio.create_task(read(watch))
        await begun(watch)
        await watch.close()
        assert await reader == []
        watch = never_looking(client.watch("x"))
        reader = asyncio.create_task(read(watch))
        await begun(watch)
        await client.close()
        with pytest.raises(lessor.ClientClosed):
            await reader

    run(body)


def test_cancelling_at_any_moment_loses_no_event(run: Callable[[Body], None]) -> None:
    async def body(client: lessor.aio.Client) -> None:
        since = await client.revision()
        for _ in range(10):
            await (await client.acquire("x")).release()
        watch, turns = client.watch("x", since=since), 0
        told: list[Any] = []
        async with watch:
            while len(told) < 20:
                reading = asyncio.create_task(anext(watch))
                for _ in range(turns % 7):
                    await asyncio.sleep(0)
                turns += 1
                if turns < 200:
                    reading.cancel()
                try:
                    told.append(await reading)
                except asyncio.CancelledError:
                    continue
        revisions = [each.revision for each in told if isinstance(each, Event)]
        assert len(revisions) == 20
        assert revisions == sorted(set(revisions))

    run(body)
