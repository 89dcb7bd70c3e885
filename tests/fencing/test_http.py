"""Fencing over HTTP: what the header says, and what is refused with which answer, over WSGI and ASGI alike."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from lessor.client.sync import Lease
from lessor.core import limits
from lessor.core.errors import BadRequest
from lessor.fencing import (
    TOKEN_HEADER,
    AsyncFencingMiddleware,
    FencingMiddleware,
    FileGate,
    Gate,
    GuardBusy,
    Presented,
    SqlGate,
    SqlGuard,
    StaleToken,
    TokenGate,
    parse_token,
    token_headers,
)

from ..support.http_servers import asgi_server, wsgi_server
from .conftest import Overtake

WRITE = """
import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

def write(lease, address):
    try:
        urlopen(Request(address, b"%d" % lease.token, token_headers(lease), method="PUT")).close()
    except HTTPError as error:
        with error:
            told = json.loads(error.read())
        assert (error.code, told["error"]) == (412, "stale_token"), told
        raise StaleToken(told["name"], told["token"], told["newest"])
"""


@dataclass
class App:
    """An application that keeps what it was sent, over WSGI and ASGI."""

    written: list[tuple[bytes, Any]] = field(default_factory=list)

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        self.written.append((body, environ.get("lessor.token")))
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        self.written.append((event["body"], scope.get("lessor.token")))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    @contextmanager
    def served(self, kind: str, gate: Gate, **options: Any) -> Iterator[str]:
        """Serve the application behind the middleware, and give its address."""
        if kind == "wsgi":
            with wsgi_server(FencingMiddleware(self.wsgi, gate, **options)) as address:
                yield address
        else:
            with asgi_server(AsyncFencingMiddleware(self.asgi, gate, **options)) as address:
                yield address


def ask(address: str, headers: dict[str, str], method: str = "PUT") -> tuple[int, Any]:
    """Send a request, and return its status and what it said."""
    try:
        with urlopen(Request(address, b"x", headers, method=method), timeout=60) as answer:
            return answer.status, answer.read()
    except HTTPError as refusal:
        with refusal as answer:
            told = json.loads(answer.read()) if answer.headers["Content-Type"] == "application/json" else None
            return answer.code, told


def headers_of(token: int, name: str = "job", namespace: str = "default") -> dict[str, str]:
    return token_headers(Presented(namespace, name, token))


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture(params=["memory", "file", "sqlite"])
def gate(request: pytest.FixtureRequest, tmp_path: Path) -> Gate:
    if request.param == "memory":
        return TokenGate()
    if request.param == "file":
        return FileGate(tmp_path / "tokens")
    with closing(sqlite3.connect(tmp_path / "tokens.sqlite3")) as connection:
        SqlGuard.sqlite().create_table(connection)
    return SqlGate(SqlGuard.sqlite(), lambda: sqlite3.connect(tmp_path / "tokens.sqlite3"))


# The header.


@pytest.mark.parametrize("namespace", ["default", "a/b", "Ä", "%2F", 'a"; name="x'])
@pytest.mark.parametrize("name", ["nightly-report", "reports/nightly", "Ü\n\r\0\\", " ", "日" * 341])
@pytest.mark.parametrize("token", [1, 7, 2**63 - 1])
def test_what_is_written_into_the_header_is_read_from_it(namespace: str, name: str, token: int) -> None:
    lease = Presented(namespace, name, token)
    (header, value), *rest = token_headers(lease).items()
    assert header == TOKEN_HEADER
    assert rest == []
    assert value.isascii()
    assert value.isprintable()
    assert parse_token(value) == lease


@pytest.mark.parametrize(
    "value",
    [
        "",
        "7",
        "seven",
        '7; namespace="default"',
        '7; name="job"; namespace="default"',
        "7; namespace=default; name=job",
        '7; namespace=""; name="job"',
        '0; namespace="default"; name="job"',
        '-7; namespace="default"; name="job"',
        '07; namespace="default"; name="job"',
        '7; namespace="default"; name="job";',
        '7; namespace="default"; name="job", 8; namespace="default"; name="job"',
        '7; namespace="default"; name="%"',
        '7; namespace="default"; name="%FF"',
        '7; namespace="default"; name="job"\n',
        '\N{ARABIC-INDIC DIGIT SEVEN}; namespace="default"; name="job"',
        '7; namespace="default"; name="jöb"',
        f'{2**63}; namespace="default"; name="job"',
        f'{"9" * 5000}; namespace="default"; name="job"',
        f'7; namespace="default"; name="{"x" * (limits.NAME_BYTES_MAX + 1)}"',
        f'7; namespace="{"x" * (limits.NAMESPACE_BYTES_MAX + 1)}"; name="job"',
        f'7; namespace="default"; name="{"%20" * 100_000}"',
    ],
)
def test_a_header_that_is_not_one_is_refused(value: str) -> None:
    """P11."""
    with pytest.raises(BadRequest):
        parse_token(value)


# What is refused.


def test_a_paused_holder_that_wakes_up_is_refused_over_http(
    overtake: Overtake, app: App, kind: str, gate: Gate
) -> None:
    """P3, P5, for each store of the newest tokens."""
    with app.served(kind, gate) as address:

        def write_as_second(lease: Lease) -> None:
            assert ask(address, token_headers(lease)) == (200, b"ok")

        outcome = overtake(WRITE, address, write_as_second=write_as_second)
    assert outcome.refused
    assert [presented.token for _, presented in app.written] == [outcome.first, outcome.second]


def test_an_old_token_is_answered_412_and_told_both(app: App, kind: str, gate: Gate) -> None:
    with app.served(kind, gate) as address:
        assert ask(address, headers_of(7)) == (200, b"ok")
        status, told = ask(address, headers_of(6))
        assert ask(address, headers_of(7)) == (200, b"ok")
    assert (status, told.pop("detail")) == (412, "token 6 for 'default/job' is stale: 7 has been seen")
    assert told == {"error": "stale_token", "namespace": "default", "name": "job", "token": 6, "newest": 7}
    assert app.written == [(b"x", Presented("default", "job", 7))] * 2


def test_each_name_and_namespace_has_its_own_newest_token(app: App, kind: str) -> None:
    with app.served(kind, TokenGate()) as address:
        for headers in (headers_of(7), headers_of(3, "other"), headers_of(2, "job", "test"), headers_of(1, "é")):
            assert ask(address, headers) == (200, b"ok")


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_a_change_without_a_token_is_answered_428(app: App, kind: str, method: str) -> None:
    with app.served(kind, TokenGate()) as address:
        status, told = ask(address, {}, method)
    assert (status, told["error"], app.written) == (428, "token_required", [])


def test_a_look_needs_no_token_but_an_old_one_is_refused(app: App, kind: str) -> None:
    with app.served(kind, TokenGate()) as address:
        assert ask(address, {}, "GET") == (200, b"ok")
        assert ask(address, headers_of(7), "GET") == (200, b"ok")
        assert ask(address, headers_of(6), "GET")[0] == 412


def test_a_token_is_not_needed_where_none_is_asked_for(app: App, kind: str) -> None:
    with app.served(kind, TokenGate(), required=False) as address:
        assert ask(address, {}) == (200, b"ok")
        assert ask(address, headers_of(7)) == (200, b"ok")
        assert ask(address, headers_of(6))[0] == 412


def test_a_header_that_cannot_be_read_is_answered_400(app: App, kind: str) -> None:
    """P11."""
    with app.served(kind, TokenGate()) as address:
        status, told = ask(address, {TOKEN_HEADER: "seven"})
    assert (status, told["error"], app.written) == (400, "bad_token", [])


def test_the_server_may_say_which_lease_guards_what(app: App, kind: str) -> None:
    """Then a client cannot get past by naming a lease that nobody else holds."""

    def lease_of(method: str, path: str) -> tuple[str, str] | None:
        return ("default", "job") if (method, path) == ("PUT", "/report") else None

    gate = TokenGate()
    with app.served(kind, gate, lease_of=lease_of) as address:
        assert ask(address, headers_of(7)) == (200, b"ok")
        status, told = ask(address, headers_of(9, "other"))
        assert (status, told["error"]) == (400, "wrong_lease")
        assert ask(address, {})[0] == 428
        assert ask(address, headers_of(6))[0] == 412
        assert ask(address, headers_of(6), "GET") == (200, b"ok")
    assert gate.newest("default/job") == 7
    assert gate.newest("default/other") == 0


def test_who_cannot_be_looked_at_is_not_let_in(app: App, kind: str) -> None:
    class Busy:
        def admit(self, name: str, token: int) -> None:
            raise GuardBusy("the lock is taken")

    with app.served(kind, Busy()) as address:
        status, told = ask(address, headers_of(7))
    assert (status, told["error"], app.written) == (503, "guard_unavailable", [])


def test_many_clients_with_mixed_tokens_end_with_the_highest(app: App, kind: str, gate: Gate) -> None:
    with app.served(kind, gate) as address, ThreadPoolExecutor(8) as pool:
        tokens = [token * 37 % 101 for token in range(1, 101)]
        answers = list(pool.map(lambda token: ask(address, headers_of(token))[0], tokens))
    assert set(answers) == {200, 412}
    assert answers[tokens.index(100)] == 200
    with pytest.raises(StaleToken) as refused:
        gate.admit("default/job", 1)
    assert refused.value.newest == 100


# ASGI alone.


def http_scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "method": "PUT", "path": "/", "headers": headers}


def header_of(token: int) -> tuple[bytes, bytes]:
    return b"x-lessor-token", headers_of(token)[TOKEN_HEADER].encode()


def test_a_slow_gate_does_not_keep_the_loop_from_others() -> None:
    """The gate waits for an event that only the loop can set."""
    asked, go_on = threading.Event(), threading.Event()

    class Slow:
        def admit(self, name: str, token: int) -> None:
            asked.set()
            assert go_on.wait(60)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send("passed")

    async def run() -> list[Any]:
        sent: list[Any] = []

        async def send(event: Any) -> None:
            sent.append(event)

        async def others() -> None:
            await asyncio.to_thread(asked.wait)
            go_on.set()

        middleware = AsyncFencingMiddleware(app, Slow())
        await asyncio.gather(middleware(http_scope(header_of(7)), None, send), others())  # type: ignore[arg-type]
        return sent

    assert asyncio.run(run()) == ["passed"]


def test_two_headers_are_one_too_many() -> None:
    async def run() -> int:
        sent: list[Any] = []

        async def send(event: Any) -> None:
            sent.append(event)

        middleware = AsyncFencingMiddleware(App().asgi, TokenGate())
        await middleware(http_scope(header_of(7), header_of(8)), None, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])

    assert asyncio.run(run()) == 400


@pytest.mark.parametrize("type_", ["lifespan", "websocket"])
def test_what_is_no_request_passes_as_it_came(type_: str) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    scope = {"type": type_}
    asyncio.run(AsyncFencingMiddleware(app, TokenGate())(scope, None, None))  # type: ignore[arg-type]
    assert seen == [scope]
    assert seen[0] is scope


def test_the_path_that_is_asked_about_is_the_whole_path_in_unicode() -> None:
    """PEP 3333 hands UTF-8 over as if it were Latin-1, and the part before the application apart."""
    asked = []

    def lease_of(method: str, path: str) -> None:
        asked.append((method, path))

    environ = {"REQUEST_METHOD": "PUT", "SCRIPT_NAME": "/app", "PATH_INFO": "/é".encode().decode("latin-1")}
    app = SimpleNamespace(answer=lambda environ, start_response: [b"ok"]).answer
    assert FencingMiddleware(app, TokenGate(), lease_of=lease_of)(environ, lambda *_: None) == [b"ok"]
    assert asked == [("PUT", "/app/é")]
