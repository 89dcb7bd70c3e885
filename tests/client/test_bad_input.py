"""What is wrong in itself is refused by both faces, on the line on which it stands, and nothing is sent or begun."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import lessor
from lessor import BadRequest, recipes
from lessor.client.caller import Caller
from lessor.client.loop_caller import LoopCaller

ENDPOINT = "tcp://127.0.0.1:7411"

WRONG: list[tuple[Callable[[Any], Any], str]] = [
    (lambda client: client.transact(None), "a transaction is made by client.transaction(), not None"),
    (lambda client: client.transact([]), r"not []"),
    (lambda client: client.lock_all(5), "several names are a list of them, not 5"),
    (lambda client: client.lock_all("ledger"), "not 'ledger'"),
    (lambda client: client.workers(None, 1), "several names are a list of them, not None"),
    (lambda client: client.workers("abc", 1), "not 'abc'"),
    (lambda client: client.workers([""], 1), "must not be empty"),
    (lambda client: client.workers(["a"], 1, ttl="30"), "not a str"),
    (lambda client: client.acquire("x", on_lost=["terminate"]), "a callable, 'terminate' or 'kill', not ['terminate']"),
    (lambda client: client.acquire("x", on_lost={}), "not {}"),
    (lambda client: client.acquire("x", auto_renew="no"), "auto_renew is True or False, not 'no'"),
    (lambda client: client.try_acquire("x", auto_renew=0), "auto_renew is True or False, not 0"),
    (lambda client: client.delete_semaphore("x", force="no"), "force is True or False, not 'no'"),
    (lambda client: client.drop_namespace("x", force=None), "force is True or False, not None"),
    (lambda client: client.leases(all_namespaces="no"), "all_namespaces is True or False, not 'no'"),
    (lambda client: client.semaphores(all_namespaces=1), "all_namespaces is True or False"),
    (lambda client: client.pins(all_namespaces=1), "all_namespaces is True or False"),
    (lambda client: client.registers(all_namespaces=1), "all_namespaces is True or False"),
    (lambda client: client.sessions(all_namespaces=1), "all_namespaces is True or False"),
    (lambda client: client.events("x", since=0, below="no"), "below is True or False, not 'no'"),
    (lambda client: client.watch("x", below="no"), "below is True or False, not 'no'"),
    (lambda client: client.claim("x", "", 30), "a holder's name must not be empty"),
    (lambda client: client.extend("x", "", 30), "a holder's name must not be empty"),
    (lambda client: client.revoke("x", ""), "a holder's name must not be empty"),
    (lambda client: client.revoke("x", ["me"]), "a holder's name is text, not list"),
    (lambda client: client.check_holder("x", ""), "a holder's name must not be empty"),
    (lambda client: client.lock(""), "must not be empty"),
    (lambda client: client.lock("x", ttl=-1), "a ttl is from 0.1 s to 604800 s, not -1"),
    (lambda client: client.lock("x", timeout="5"), "not a str"),
    (lambda client: client.lock("x", on_lost="terminte"), "'terminte'"),
    (lambda client: client.lock("x", keeper="thread"), "a keeper is 'process' or None, not 'thread'"),
    (lambda client: client.read_lock("x", data="text"), "bytes, not str"),
    (lambda client: client.write_lock("a", ""), "must not be empty"),
    (lambda client: client.reentrant_lock(None), "text, not NoneType"),
    (lambda client: client.reentrant_lock("x", ttl=0), "a ttl is from"),
    (lambda client: client.semaphore("", 3), "must not be empty"),
    (lambda client: client.semaphore("x", 3, ttl=0), "a ttl is from"),
    (lambda client: client.election("\0"), "must be printable"),
    (lambda client: client.election("x", ttl=0), "a ttl is from"),
    (lambda client: client.stable_leadership(""), "must not be empty"),
    (lambda client: client.party("x", ttl=0), "a ttl is from"),
    (lambda client: client.barrier("", 2), "must not be empty"),
    (lambda client: client.barrier("x", 2, ttl=0), "a ttl is from"),
    (lambda client: client.double_barrier("x", 0), "from 1 on, not 0"),
    (lambda client: client.singleton(""), "must not be empty"),
    (lambda client: client.singleton("x" * 1_020), "1024 bytes in UTF-8, not 1028"),
    (lambda client: client.singleton("x", ttl=0), "a ttl is from"),
    (lambda client: client.singleton("x", timeout=-1), "a timeout is from"),
    (lambda client: client.singleton("x", min_hold=0.05), "a min_hold other than 0 is from 0.1 s"),
    (lambda client: client.singleton("x", on_lost="terminte"), "'terminte'"),
]


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
@pytest.mark.parametrize(("call", "text"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_what_is_wrong_in_itself_is_refused_where_it_stands(
    face: str, call: Callable[[Any], Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: the text shows the bound, or what was given; a recipe is refused when it is made, not when it is used."""

    def send(*_: object, **__: object) -> Any:
        raise AssertionError("this is sent")

    for caller in (Caller, LoopCaller):
        monkeypatch.setattr(caller, "ask", send)
        monkeypatch.setattr(caller, "acquire", send)

    def block() -> None:
        with lessor.connect(ENDPOINT) as client:
            call(client)

    async def play() -> None:
        async with lessor.aio.connect(ENDPOINT) as client:
            answer = call(client)
            if inspect.isawaitable(answer):
                await answer

    with pytest.raises(BadRequest) as caught:
        block() if face == "blocking" else asyncio.run(play())
    assert text in str(caught.value)


def test_a_switch_of_a_client_that_is_neither_on_nor_off_is_refused() -> None:
    for connect in (lessor.connect, lessor.aio.connect):
        with pytest.raises(BadRequest, match="detect_deadlocks is True or False, not 'yes'"):
            connect(ENDPOINT, detect_deadlocks="yes")  # type: ignore[arg-type]
    awaited = lessor.aio.connect(ENDPOINT)
    with pytest.raises(BadRequest, match="cancel_on_loss is True or False, not 1"):
        awaited.lock("x", cancel_on_loss=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [5, b"state", "", "a\0b", "\ud800", ["state"]])
def test_what_is_no_directory_is_refused_by_an_embedded_service(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P11: an empty text, as of a variable that is not set, does not stand for the directory in which one works."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRequest, match="the directory of a node is a path, not"):
        lessor.embedded(data)
    assert list(tmp_path.iterdir()) == []


def test_nobody_s_name_is_not_everybody_s() -> None:
    """P6: a revocation in the name of "" ended whatever lease it found."""
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
        token = client.claim("x", "somebody", 30)
        with pytest.raises(BadRequest, match="must not be empty"):
            client.revoke("x", "")
        assert client.check_holder("x", "somebody") == token


def test_a_singleton_of_the_blocking_face_takes_no_coroutine() -> None:
    """Its call only makes the coroutine, which would run after the lease was given back."""
    client = lessor.connect(ENDPOINT)
    with pytest.raises(BadRequest, match="is no plain function"):

        @client.singleton("x")
        async def job() -> None:
            raise AssertionError("this runs")

    client.close()


def test_a_singleton_of_the_asyncio_face_takes_no_plain_function() -> None:
    """It would have run, and only then would there have been nothing to await."""

    def job() -> None:
        raise AssertionError("this runs")

    async def ticks() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(BadRequest, match=r"job is no coroutine function; lessor\.recipes has one"):
        recipes.aio.singleton("x")(job)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="is no coroutine function"):
        recipes.aio.singleton("x")(ticks)  # type: ignore[arg-type]


def test_a_singleton_takes_whatever_can_be_called_in_the_way_of_its_face() -> None:
    class Job:
        async def __call__(self, word: str) -> str:
            return word

    @functools.wraps(Job.__call__)
    def traced(*words: str) -> Awaitable[str]:
        return Job()(*words)

    @functools.wraps(Job.__call__)
    def waited_for(*words: str) -> str:
        return asyncio.run(Job()(*words))

    for awaited in (Job(), functools.partial(Job(), "x"), functools.partial(Job.__call__, Job())):
        recipes.aio.singleton("x")(awaited)
        with pytest.raises(BadRequest, match="is no plain function"):
            recipes.singleton("x")(awaited)
    recipes.aio.singleton("x")(traced)
    for plain in (functools.partial(print, "x"), print, waited_for):
        recipes.singleton("x")(plain)


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_a_lease_is_not_amended_by_nothing(face: str) -> None:
    """None was taken for no change, and the lease said that None was its data."""
    with lessor.embedded() as node:

        async def play() -> None:
            async with lessor.aio.connect(node.endpoints) as client:
                lease = await client.acquire(lessor.units("x", 2, 3), data=b"mine")
                with pytest.raises(BadRequest, match="data is bytes, not NoneType"):
                    await lease.update(None)  # type: ignore[arg-type]
                with pytest.raises(BadRequest, match="a count is a whole number, not NoneType"):
                    await lease.shrink(None)  # type: ignore[arg-type]
                with pytest.raises(BadRequest, match="a count is a whole number, not str"):
                    await lease.shrink("1")  # type: ignore[arg-type]
                assert (lease.data, lease.resources[0].count) == (b"mine", 2)

        if face == "asyncio":
            return asyncio.run(play())
        with lessor.connect(node.endpoints) as client:
            lease = client.acquire(lessor.units("x", 2, 3), data=b"mine")
            with pytest.raises(BadRequest, match="data is bytes, not NoneType"):
                lease.update(None)  # type: ignore[arg-type]
            with pytest.raises(BadRequest, match="a count is a whole number, not NoneType"):
                lease.shrink(None)  # type: ignore[arg-type]
            with pytest.raises(BadRequest, match="a count is a whole number, not str"):
                lease.shrink("1")  # type: ignore[arg-type]
            assert (lease.data, lease.resources[0].count) == (b"mine", 2)
            return None
