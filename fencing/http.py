"""Fencing over HTTP: the header that carries a token, and WSGI and ASGI middleware that refuse an old one."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, unquote

from ..core import limits
from ..core.errors import BadRequest, LessorError
from .gate import TOKEN_MAX, Gate, HasToken, StaleToken, TokenGate, resource_of

TOKEN_HEADER: Final = "X-Lessor-Token"  # noqa: S105 - a name, and no secret
SCOPE_KEY: Final = "lessor.token"
"""Where the handler finds the `Presented`, in the environment of WSGI and in the scope of ASGI."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1: they ask for no change
# A structured field (RFC 9651): a number with two parameters. Names may be any Unicode and strings there may not, so
# they are percent-encoded.
_STRING: Final = r'"((?:[A-Za-z0-9_.~/:@!$&\'()*+,=-]|%[0-9A-Fa-f]{2})+)"'
_HEADER: Final = re.compile(rf"([1-9][0-9]{{0,18}}); ?namespace={_STRING}; ?name={_STRING}")
_HEADER_BYTES_MAX: Final = 64 + 3 * (limits.NAMESPACE_BYTES_MAX + limits.NAME_BYTES_MAX)

LeaseOf = Callable[[str, str], tuple[str, str] | None]
"""From a request's method and path, the namespace and name of the lease that guards it; None: nothing does."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as a client presented it, and of which lease."""

    namespace: str
    name: str
    token: int


def token_headers(lease: HasToken) -> dict[str, str]:
    """Return the header to send with each request that the lease guards.

    >>> token_headers(Presented("default", "reports/nightly", 7))
    {'X-Lessor-Token': '7; namespace="default"; name="reports/nightly"'}
    """
    namespace, name = quote(lease.namespace, safe="/"), quote(lease.name, safe="/")
    return {TOKEN_HEADER: f'{lease.token}; namespace="{namespace}"; name="{name}"'}


def parse_token(value: str) -> Presented:
    """Read the value of the header; BadRequest if it is not one.

    >>> parse_token('7; namespace="default"; name="reports/nightly"')
    Presented(namespace='default', name='reports/nightly', token=7)
    """
    match = _HEADER.fullmatch(value) if len(value) <= _HEADER_BYTES_MAX else None
    if match is None:
        raise BadRequest(f'{TOKEN_HEADER} is like 7; namespace="default"; name="nightly-report"')
    try:
        namespace, name = unquote(match[2], errors="strict"), unquote(match[3], errors="strict")
    except UnicodeDecodeError:
        raise BadRequest(f"a name in {TOKEN_HEADER} is not UTF-8 in percent-encoding") from None
    token = int(match[1])
    if token > TOKEN_MAX:
        raise BadRequest(f"a token is a whole number from 1 to {TOKEN_MAX}")
    for what, text, most in (
        ("namespace", namespace, limits.NAMESPACE_BYTES_MAX),
        ("name", name, limits.NAME_BYTES_MAX),
    ):
        if len(text.encode()) > most:
            raise BadRequest(f"a {what} has at most {most} bytes")
    return Presented(namespace, name, token)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that is not passed on."""

    status: HTTPStatus
    body: bytes

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the answer."""
        return [("Content-Type", "application/json"), ("Content-Length", str(len(self.body)))]


class _Door:
    """What both kinds of middleware decide alike."""

    def __init__(self, gate: Gate, lease_of: LeaseOf | None, *, required: bool) -> None:
        self.gate = gate
        self._lease_of = lease_of
        self._required = required

    def look(self, method: str, path: str, values: list[str]) -> Presented | Refusal | None:
        """Return what the gate is to be asked, a refusal, or None if the request passes unasked."""
        lease = None
        if self._lease_of is not None:
            lease = self._lease_of(method, path)
            if lease is None:
                return None
        if not values:
            if lease is None and (method in _SAFE_METHODS or not self._required):
                return None
            return _refusal(HTTPStatus.PRECONDITION_REQUIRED, "token_required", f"send {TOKEN_HEADER}")
        if len(values) > 1:
            return _refusal(HTTPStatus.BAD_REQUEST, "bad_token", f"there is more than one {TOKEN_HEADER}")
        try:
            presented = parse_token(values[0])
        except BadRequest as error:
            return _refusal(HTTPStatus.BAD_REQUEST, "bad_token", str(error))
        if lease is not None and lease != (presented.namespace, presented.name):
            return _refusal(HTTPStatus.BAD_REQUEST, "wrong_lease", "the token is of a lease that does not guard this")
        return presented

    def ask(self, presented: Presented) -> Refusal | None:
        """Ask the gate, which may take as long as a disk or a database does."""
        try:
            self.gate.admit(resource_of(presented), presented.token)
        except StaleToken as error:
            # 412: the token is a condition that the client put on its request, and it does not hold. A 409 would ask
            # the client to mend the request and repeat it, and some clients repeat one by themselves.
            tokens = {"token": error.token, "newest": error.newest}
            lease = {"namespace": presented.namespace, "name": presented.name}
            return _refusal(HTTPStatus.PRECONDITION_FAILED, "stale_token", str(error), **lease, **tokens)
        except LessorError as error:  # whoever cannot be looked at is not let in
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "guard_unavailable", str(error))
        return None


class FencingMiddleware:
    """WSGI middleware that refuses requests with an old token. Put it around the application.

    A request without a token is answered 428 if it is unsafe or `lease_of` names its lease, one with a header that
    cannot be read 400, one with an old token 412, each with a JSON body. An error of the gate's own, such as a database
    that is gone, is raised: nobody passes.
    """

    def __init__(
        self, app: Callable[..., Any], gate: Gate, *, lease_of: LeaseOf | None = None, required: bool = True
    ) -> None:
        """Wrap `app`.

        Args:
            app: the WSGI application.
            gate: where the newest tokens are: a TokenGate, FileGate or SqlGate.
            lease_of: says which lease guards a request. With None, the header itself says it: enough against a client
                that was overtaken, not against one that names the wrong lease.
            required: whether unsafe methods need a token; without `lease_of` only.
        """
        self._app = app
        self._door = _Door(gate, lease_of, required=required)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        value = environ.get("HTTP_X_LESSOR_TOKEN")
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        path = path.encode("latin-1").decode("utf-8", "replace")  # as PEP 3333 hands over what came in UTF-8
        found = self._door.look(environ["REQUEST_METHOD"], path, [] if value is None else [value])
        if isinstance(found, Presented):
            environ[SCOPE_KEY] = found
            found = self._door.ask(found)
        if found is None:
            answer: Iterable[bytes] = self._app(environ, start_response)
            return answer
        start_response(f"{found.status.value} {found.status.phrase}", found.headers)
        return [found.body]


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class AsyncFencingMiddleware:
    """ASGI middleware that refuses requests with an old token; the same arguments and answers as `FencingMiddleware`.

    A gate that may wait for a disk is asked in a thread of asyncio's own, so that the loop goes on. WebSockets pass
    unasked: a look at the handshake would say nothing of the messages that follow.
    """

    def __init__(
        self,
        app: Callable[[Any, Any, Any], Awaitable[Any]],
        gate: Gate,
        *,
        lease_of: LeaseOf | None = None,
        required: bool = True,
    ) -> None:
        """Wrap the ASGI application `app`; see `FencingMiddleware`."""
        self._app = app
        self._door = _Door(gate, lease_of, required=required)
        self._at_once = isinstance(gate, TokenGate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        key = TOKEN_HEADER.lower().encode()
        values = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == key]
        found = self._door.look(scope["method"], scope["path"], values)
        if isinstance(found, Presented):
            scope = {**scope, SCOPE_KEY: found}
            found = self._door.ask(found) if self._at_once else await asyncio.to_thread(self._door.ask, found)
        if found is None:
            await self._app(scope, receive, send)
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in found.headers]
        await send({"type": "http.response.start", "status": found.status.value, "headers": headers})
        await send({"type": "http.response.body", "body": found.body})


def _refusal(status: HTTPStatus, error: str, detail: str, **more: str | int) -> Refusal:
    return Refusal(status, json.dumps({"error": error, "detail": detail, **more}).encode() + b"\n")
