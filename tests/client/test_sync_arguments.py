"""What the blocking face refuses before it sends anything, naming the bound; and the examples in the docstrings."""

import asyncio
import datetime as dt
import doctest
import importlib
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lessor
from lessor import BadRequest, Client, Lease
from lessor.client.caller import Caller
from lessor.client.durations import milliseconds
from lessor.client.protocol import LeaseRecord, Protocol
from lessor.client.recipes.sync_groups import Recipes
from lessor.core import limits
from lessor.core.commands import Transact

from ..support.waiting import until

ENDPOINT = "tcp://127.0.0.1:7411"
LONG = "x" * 2_000


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client that fails the test if it would send anything."""

    def refuse(*_: object, **__: object) -> Any:
        raise AssertionError("this is sent")

    monkeypatch.setattr(Caller, "ask", refuse)
    monkeypatch.setattr(Caller, "acquire", refuse)
    before = set(threading.enumerate())
    with lessor.connect(ENDPOINT) as client:
        yield client
        assert set(threading.enumerate()) <= before, "it has not even begun"


ACQUIRES = [
    pytest.param({"name": ""}, "must not be empty", id="no name"),
    pytest.param({"name": LONG}, "1024 bytes", id="long name"),
    pytest.param({"name": "é" * 513}, "1024 bytes in UTF-8, not 1026", id="long name in UTF-8"),
    pytest.param({"name": "a\nb"}, "printable", id="unprintable name"),
    pytest.param({"name": "\ud800"}, "valid Unicode", id="name that is no text"),
    pytest.param({"name": 5}, "text, not int", id="name that is a number"),
    pytest.param({"name": None}, "text, not NoneType", id="name that is None"),
    pytest.param({"name": b"x"}, "text, not bytes", id="name that is bytes"),
    pytest.param({"holder": ""}, "must not be empty", id="no holder"),
    pytest.param({"holder": "x" * 256}, "255 bytes", id="long holder"),
    pytest.param({"holder": 5}, "text, not int", id="holder that is a number"),
    pytest.param({"data": bytes(limits.DATA_BYTES_MAX + 1)}, "65536", id="much data"),
    pytest.param({"data": "text"}, "bytes, not str", id="data that is text"),
    pytest.param({"data": bytearray(b"x")}, "bytes, not bytearray", id="data that may change"),
    pytest.param({"ttl": 0}, "a ttl is from 0.1 s to 604800 s, not 0", id="no ttl at all"),
    pytest.param({"ttl": 0.0999}, "a ttl is from 0.1 s to 604800 s, not 0.0999", id="short ttl"),
    pytest.param({"ttl": 604_801}, "from 0.1 s to 604800 s, not 604801", id="long ttl"),
    pytest.param({"ttl": dt.timedelta(days=8)}, "604800 s", id="long timedelta"),
    pytest.param({"ttl": -1}, "from 0.1 s to 604800 s, not -1", id="negative ttl"),
    pytest.param({"ttl": float("nan")}, "not nan", id="ttl that is no number"),
    pytest.param({"ttl": float("inf")}, "not inf", id="ttl without end"),
    pytest.param({"ttl": 10**400}, "604800 s", id="huge ttl"),
    pytest.param({"ttl": "30"}, "number of seconds or a timedelta, not a str", id="ttl that is text"),
    pytest.param({"ttl": True}, "not a bool", id="ttl that is a truth value"),
    pytest.param({"ttl": None, "detached": True}, "needs a ttl", id="detached without ttl"),
]


@pytest.mark.parametrize(("arguments", "text"), ACQUIRES)
def test_a_bad_argument_is_refused_by_each_way_to_acquire(client: Client, arguments: dict[str, Any], text: str) -> None:
    arguments = {"name": "x", **arguments}

    def enter(**rest: Any) -> Lease:
        return client.lock(**rest).__enter__()

    ways: list[Callable[..., Any]] = [client.acquire, client.try_acquire]
    if "detached" not in arguments:
        ways.append(enter)
    for way in ways:
        with pytest.raises(BadRequest) as caught:
            way(**arguments)
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("timeout", "text"),
    [
        (86_401, "a timeout is from 0 s to 86400 s, not 86401"),
        (604_801, "86400 s, not 604801"),
        (-0.001, "not -0.001"),
        (float("nan"), "not nan"),
        ("5", "not a str"),
        (dt.timedelta(seconds=-1), "from 0 s to"),
    ],
)
def test_a_bad_timeout_is_refused(client: Client, timeout: Any, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        client.acquire("x", timeout=timeout)
    assert text in str(caught.value)
    with pytest.raises(BadRequest), client.lock("x", timeout=timeout):
        pass


@pytest.mark.parametrize(("name", "text"), [("", "empty"), (LONG, "1024"), ("\0", "printable"), (5, "text, not int")])
def test_a_bad_name_is_not_described(client: Client, name: Any, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        client.describe(name)


@pytest.mark.parametrize(
    ("ttl", "text"), [(0, "from 0.1 s"), (0.05, "not 0.05"), (604_801, "604800"), (-1, "-1"), ("1", "not a str")]
)
def test_a_bad_ttl_does_not_renew(client: Client, ttl: Any, text: str) -> None:
    record = LeaseRecord("default", ("x",), "me", b"", 1, 1, 30_000, 30_000, auto_renew=True, detached=False, session=1)
    caller = Caller(lambda: Protocol([ENDPOINT], lambda: bytes(16), 10_000, "", lambda: 0.5), 1_000)
    lease = Lease(caller, record)
    with pytest.raises(BadRequest, match=text):
        lease.renew(ttl)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"endpoints": ""}, "at least one endpoint"),
        ({"endpoints": []}, "at least one endpoint"),
        ({"endpoints": None}, "or a list of texts such as 'tcp://127.0.0.1:7411', not None"),
        ({"endpoints": 7411}, "not 7411"),
        ({"endpoints": b"tcp://127.0.0.1:7411"}, "not b'tcp"),
        ({"endpoints": [ENDPOINT, 7411]}, "a list of texts"),
        ({"endpoints": "127.0.0.1:7411"}, "tcp://HOST:PORT"),
        ({"endpoints": "http://127.0.0.1:7411"}, "tcp://HOST:PORT"),
        ({"endpoints": f"{ENDPOINT},tcp://127.0.0.1:99999"}, "65531"),
        ({"endpoints": [ENDPOINT, "nonsense"]}, "tcp://HOST:PORT"),
        ({"namespace": ""}, "must not be empty"),
        ({"namespace": "x" * 256}, "255 bytes"),
        ({"namespace": 5}, "text, not int"),
        ({"holder": ""}, "must not be empty"),
        ({"holder": "x" * 256}, "255 bytes"),
        ({"session_timeout": 0.4}, "a session timeout is from 0.5 s to 1800 s, not 0.4"),
        ({"session_timeout": 1_801}, "from 0.5 s to 1800 s"),
        ({"session_timeout": "10"}, "not a str"),
        ({"request_timeout": -1}, "not -1"),
        ({"request_timeout": None}, "not a NoneType"),
        ({"request_timeout": 0}, "a request timeout is from 0.001 s to 604800 s, not 0"),
        ({"request_timeout": 0.0001}, "from 0.001 s"),
        ({"description": LONG}, "1024"),
        ({"description": 5}, "text, not int"),
    ],
)
def test_a_client_is_not_made_with_a_bad_option(options: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        lessor.connect(**{"endpoints": ENDPOINT, **options})
    assert text in str(caught.value)


def test_a_bad_request_is_a_value_error_and_an_error_of_ours() -> None:
    assert issubclass(BadRequest, lessor.LessorError)
    assert issubclass(BadRequest, ValueError)


def test_endpoints_may_be_text_or_a_list() -> None:
    for endpoints in (f"{ENDPOINT}, tcp://h2:7421,", [ENDPOINT, "tcp://h2:7421"], (ENDPOINT, "tcp://h2:7421")):
        client = lessor.connect(endpoints)
        assert client._caller.protocol.endpoints == [ENDPOINT, "tcp://h2:7421"]
        client.close()


NOT_SHOWN = {"expire_time_unsafe"}
"""Nobody is to learn to use it."""

RECIPES = {name for name in vars(Recipes) if not name.startswith("_")}
"""Shown in the examples of lessor.recipes, which have a test of their own."""

MODULES = ["sync", "holding", "lease", "model", "wants", "watching", "aio", "aio_holding", "aio_watching"]
EXAMPLES = ["lessor", "lessor.testing", *(f"lessor.client.{name}" for name in MODULES)]


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_in_the_docstrings_are_true(module: str) -> None:
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:

        def run(example: Callable[[Any], Any]) -> None:
            async def play() -> None:
                async with lessor.aio.connect(node.endpoints) as awaited:
                    await example(awaited)

            asyncio.run(play())

        found = {"node": node, "client": client, "run": run, "lessor": lessor}
        result = doctest.testmod(importlib.import_module(module), extraglobs=found)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("module", EXAMPLES)
def test_no_example_needs_an_answer_sooner_than_a_slow_machine_gives_it(module: str) -> None:
    """A wait of a twentieth of a second raised Unavailable there: a short one also bounds the wait for the service."""
    text = Path(importlib.import_module(module).__file__ or "").read_text()
    examples = [line for line in text.splitlines() if line.lstrip().startswith((">>>", "..."))]
    assert examples
    assert [line for line in examples if re.search(r"timeout=(0\.\d|[1-4]\b)", line)] == []


@pytest.mark.parametrize("shown", [Client, Lease])
def test_every_call_is_shown_in_an_example(shown: type) -> None:
    documented = [found for module in EXAMPLES for found in members(importlib.import_module(module))]
    lines = [line for found in documented for line in (inspect.getdoc(found) or "").splitlines()]
    examples = "\n".join(line for line in lines if line.startswith((">>>", "...")))
    calls = [name for name, found in inspect.getmembers(shown, inspect.isfunction) if not name.startswith("_")]
    assert len(calls) > 10
    assert [name for name in calls if f".{name}(" not in examples and name not in NOT_SHOWN | RECIPES] == []


def members(module: Any) -> Iterator[Any]:
    yield module
    for found in vars(module).values():
        if getattr(found, "__module__", "") == module.__name__:
            yield found
            if inspect.isclass(found):
                yield from vars(found).values()


def test_a_timeout_of_nothing_is_a_try_that_raises() -> None:
    """P9: the same word as `--timeout 0` of the command."""
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
        held = client.acquire("x", timeout=0)
        with pytest.raises(lessor.AcquireTimeout) as refused:
            client.acquire("x", timeout=0)
        assert not refused.value.indefinite
        assert held.held


def test_a_lease_is_released_by_its_token_from_another_client() -> None:
    with lessor.embedded() as node, lessor.connect(node.endpoints) as one, lessor.connect(node.endpoints) as other:
        lease = one.acquire("x", detached=True)
        assert other.release(lease.token)
        assert not other.release(lease.token)
        assert other.try_acquire("x") is not None


def outlive(lease: Lease, error: type[Exception] | None) -> None:
    """Work until the lease is lost, and fail then if that is asked for."""
    until(lambda: not lease.held, "the lease is lost")
    if error is not None:
        raise error


@pytest.mark.parametrize(("error", "told"), [(None, lessor.LeaseLost), (ZeroDivisionError, ZeroDivisionError)])
def test_a_body_that_ran_without_its_lease_is_told(error: type[Exception] | None, told: type[Exception]) -> None:
    """P8: `with` does not end in silence when the lease was lost meanwhile; an error of the body itself is kept."""
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client, pytest.raises(told):  # noqa: SIM117
        with client.lock("x", ttl=0.2, auto_renew=False) as lease:
            outlive(lease, error)


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
@pytest.mark.parametrize(
    ("limit", "text"),
    [(0, "from 1 on, not 0; None for"), (-1, "not -1"), ("3", "whole number, not str"), (True, "whole number")],
)
def test_a_semaphore_of_no_units_is_refused_when_it_is_made(face: str, limit: Any, text: str) -> None:
    client: Any = lessor.connect(ENDPOINT) if face == "blocking" else lessor.aio.connect(ENDPOINT)
    for make in (lambda: client.semaphore("s", limit), lambda: lessor.units("s", 1, limit)):
        with pytest.raises(BadRequest) as caught:
            make()
        assert text in str(caught.value)
    assert client.semaphore("s") is not None, "one that was created, with the limit that it has"


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (lambda parts: parts.write("", b"", 1), "a name must not be empty"),
        (lambda parts: parts.write("x", "", 1), "data is bytes, not str"),
        (lambda parts: parts.write("x", b"", "1"), "whole number, not str"),
        (lambda parts: parts.erase("x", 1, version=-1), "not -1"),
        (lambda parts: parts.if_held(None), "whole number, not NoneType"),
        (lambda parts: parts.if_version("x", "1"), "whole number, not str"),
        (lambda parts: parts.if_holder("x", ""), "must not be empty"),
        (lambda parts: parts.renew(1, 0.05), "a ttl is from 0.1 s to 604800 s, not 0.05"),
        (lambda parts: parts.renew(1, 0), "not 0"),
        (lambda parts: parts.pin("x", 7), "text, not int"),
    ],
)
def test_a_part_of_a_transaction_is_refused_on_the_line_that_adds_it(
    client: Client, part: Callable[[Any], Any], text: str
) -> None:
    parts = client.transaction()
    with pytest.raises(BadRequest) as caught:
        part(parts)
    assert text in str(caught.value)
    assert parts.ask().operation == Transact((), ()), "and nothing was added"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda client: client.write_register("x", "", 1), "data is bytes, not str"),
        (lambda client: client.write_register("", b"", 1), "must not be empty"),
        (lambda client: client.acquire("x", detached="yes"), "True or False, not 'yes'"),
        (lambda client: client.create_namespace("n", ttl_max="1"), "a ttl_max is a number of seconds"),
        (lambda client: client.create_namespace("n", default_ttl=0.05), "from 0.1 s to 604800 s, not 0.05 s"),
        (lambda client: client.create_namespace("n", claims_max=True), "whole number, not bool"),
        (lambda client: client.events("x", since="1"), "whole number, not str"),
        (lambda client: client.watch("", since=0), "must not be empty"),
        (lambda client: client.release("7"), "whole number, not str"),
        (lambda client: client.break_lease(7, None), "a reason is text, not NoneType"),
        (lambda client: client.acquire("x", max_hold=0.05), "a max_hold is from 0.1 s to 31622400 s, not 0.05"),
    ],
)
def test_a_bad_argument_of_the_other_calls_is_refused_before_anything_is_sent(
    client: Client, call: Callable[[Client], Any], text: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        call(client)
    assert text in str(caught.value)


def test_an_option_that_does_not_exist_is_named() -> None:
    for connect in (lessor.connect, lessor.aio.connect):
        with pytest.raises(TypeError, match="holdr"):
            connect(ENDPOINT, holdr="me")  # type: ignore[call-arg] # so that a type checker names it, too


def test_seconds_become_the_milliseconds_that_were_meant() -> None:
    """P4: 2.3 * 1000 is a little less than 2300."""
    assert [milliseconds(seconds) for seconds in (2.3, 1.001, 0.57, 8.2)] == [2300, 1001, 570, 8200]


def test_a_lock_of_names_from_an_iterator_is_entered_again_with_all_of_them() -> None:
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
        lock = client.lock(lessor.write(name) for name in ("a", "b"))
        for _ in range(2):
            with lock as lease:
                assert [one.path for one in lease.resources] == [("a",), ("b",)]
        with pytest.raises(BadRequest, match="nothing is wanted"):
            client.lock([])


def test_with_on_a_client_that_is_closed_fails_at_once() -> None:
    client = lessor.connect(ENDPOINT)
    lock = client.lock("x")
    client.close()
    for entered in (client, lock, client.semaphore("x"), client.reentrant_lock("x"), client.watch("x")):
        with pytest.raises(lessor.ClientClosed):
            entered.__enter__()

    async def play() -> None:
        awaited = lessor.aio.connect(ENDPOINT)
        lock = awaited.lock("x")
        await awaited.close()
        for entered in (awaited, lock, awaited.semaphore("x"), awaited.reentrant_lock("x"), awaited.watch("x")):
            with pytest.raises(lessor.ClientClosed):
                await entered.__aenter__()

    asyncio.run(play())


def test_with_on_a_lease_that_is_over_is_not_entered() -> None:
    """P8: `with lease` after the lease was released, or lost, would be work without it."""
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
        released, broken = client.acquire("x"), client.acquire("y")
        released.release()
        client.break_lease(broken.token, "for a test")
        assert broken.lost.wait(60)
        for lease, why in ((released, "released"), (broken, "for a test")):
            with pytest.raises(lessor.LeaseLost, match=why), lease:
                raise AssertionError("this is entered")

        async def play() -> None:
            async with lessor.aio.connect(node.endpoints) as awaited:
                lease = await awaited.acquire("z")
                await lease.release()
                with pytest.raises(lessor.LeaseLost, match="released"):
                    async with lease:
                        raise AssertionError("this is entered")

        asyncio.run(play())


def test_a_client_releases_a_lease_as_well_as_a_token() -> None:
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:
        lease = client.acquire("x")
        assert client.release(lease)
        assert (lease.state, client.describe("x")) == (lessor.LeaseState.RELEASED, [])
        assert not client.release(lease)
        taken = client.resume(client.acquire("y", detached=True).ticket())
        former = client.acquire("z", detached=True)
        with lessor.connect(node.endpoints) as other:
            resumed = other.resume(former.ticket())
            until(lambda: not former.held, "the former owner is told")
            assert not client.release(former), "it is the other's by now, under the same token"
            assert resumed.held
        assert taken.release()

        async def play() -> None:
            async with lessor.aio.connect(node.endpoints) as awaited:
                lease = await awaited.acquire("x")
                assert await awaited.release(lease)
                assert not lease.held

        asyncio.run(play())
