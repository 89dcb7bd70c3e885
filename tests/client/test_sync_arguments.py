"""What the blocking face refuses before it sends anything, naming the bound; and the examples in the docstrings."""

import asyncio
import datetime as dt
import doctest
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lessor
from lessor import BadRequest, Client, Lease
from lessor.client.caller import Caller
from lessor.client.protocol import LeaseRecord, Protocol
from lessor.core import limits

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
    before = threading.active_count()
    with lessor.connect(ENDPOINT) as client:
        yield client
        assert threading.active_count() == before


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
    pytest.param({"ttl": 0}, "from 100 ms", id="no ttl at all"),
    pytest.param({"ttl": 0.0999}, "from 100 ms to 604800000 ms, not 99 ms", id="short ttl"),
    pytest.param({"ttl": 604_801}, "from 0 to 604800 seconds, not 604801", id="long ttl"),
    pytest.param({"ttl": dt.timedelta(days=8)}, "604800 seconds", id="long timedelta"),
    pytest.param({"ttl": -1}, "from 0 to 604800 seconds, not -1", id="negative ttl"),
    pytest.param({"ttl": float("nan")}, "not nan", id="ttl that is no number"),
    pytest.param({"ttl": float("inf")}, "not inf", id="ttl without end"),
    pytest.param({"ttl": 10**400}, "604800 seconds", id="huge ttl"),
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
        (86_401, "from 0 ms to 86400000 ms, not 86401000 ms"),
        (604_801, "604800 seconds"),
        (-0.001, "not -0.001"),
        (float("nan"), "not nan"),
        ("5", "not a str"),
        (dt.timedelta(seconds=-1), "from 0 to"),
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
    ("ttl", "text"), [(0, "from 100 ms"), (0.05, "from 100 ms"), (604_801, "604800"), (-1, "-1"), ("1", "not a str")]
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
        ({"session_timeout": 0.4}, "from 500 ms to 1800000 ms, not 400 ms"),
        ({"session_timeout": 1_801}, "from 500 ms to 1800000 ms"),
        ({"session_timeout": "10"}, "not a str"),
        ({"request_timeout": -1}, "not -1"),
        ({"request_timeout": None}, "not a NoneType"),
        ({"request_timeout": 0}, "a request timeout is from 1 ms on, not 0"),
        ({"request_timeout": 0.0001}, "from 1 ms on"),
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


EXAMPLES = {"lessor": 2, "lessor.client.sync": 9, "lessor.client.aio": 12, "lessor.client.clock": 0}
EXAMPLES |= {"lessor.client.watching": 1, "lessor.client.aio_watching": 2}


@pytest.mark.parametrize(("module", "lines"), EXAMPLES.items())
def test_the_examples_in_the_docstrings_are_true(module: str, lines: int) -> None:
    with lessor.embedded() as node, lessor.connect(node.endpoints) as client:

        def run(example: Callable[[Any], Any]) -> None:
            async def play() -> None:
                async with lessor.aio.connect(node.endpoints) as awaited:
                    await example(awaited)

            asyncio.run(play())

        found = {"node": node, "client": client, "run": run, "lessor": lessor}
        result = doctest.testmod(importlib.import_module(module), extraglobs=found)
    assert (result.failed, result.attempted) == (0, lines)


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
