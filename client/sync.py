"""The blocking face of the client: thread-safe, one background thread, leases renewed while the program works."""

import datetime as dt
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from random import random
from types import TracebackType
from typing import Any, Self

from ..core import limits
from ..core.checks import check
from ..core.commands import FOREVER, Claim, Describe, ListClaims, OpenSession, Operation, Release, Renew
from ..core.resources import Resource
from ..core.results import ClaimPage, Denied, Released
from ..transport.endpoints import parse_list
from .caller import Caller
from .errors import AcquireTimeout, BadRequest, ClientClosed, LeaseLost, ServiceBusy, Unavailable
from .lease import BaseLease, LeaseView, view
from .protocol import Protocol
from .records import LeaseRecord, LeaseState

Duration = float | dt.timedelta
"""A length of time: seconds, or a timedelta."""


class Lease(BaseLease):
    """A lease that this client holds. Use it in `with`, or call `release` when the work is done."""

    def __init__(self, caller: Caller, record: LeaseRecord) -> None:
        """Made by the client."""
        super().__init__(caller.protocol, record)
        self._caller = caller

    def renew(self, ttl: Duration | None = None) -> None:
        """Extend the lease to `ttl` from now (None: by its own ttl); it never shortens.

        Raises:
            LeaseLost: it is not held any more.
            Unavailable: no answer came; indefinite, but the lease is held at least as long as before.
            BadRequest: the ttl is out of bounds, or the lease has none.
        """
        ttl_ms = 0 if ttl is None else _ttl_ms(ttl)
        _check(Renew(self.token, ttl_ms))
        if self._record.state is LeaseState.HELD:
            self._caller.ask(lambda done, deadline: self._protocol.renew(self._record, ttl_ms, done, deadline))
        if self._record.state is not LeaseState.HELD:
            raise LeaseLost(f"{self.name!r} is not held any more: {self.lost_reason or 'it was released'}")

    def release(self) -> bool:
        """Give the lease back; True if it was held until now, False if it had been lost or released before.

        Names the grant by its token, so that a release that comes late cannot touch the next holder.

        Raises:
            Unavailable: no answer came. The client counts the lease as released all the same, and goes on releasing it
                in the background; until it gets through, others may see it as held.
        """
        state = self._record.state
        if state is LeaseState.RELEASED:
            return False
        result = self._caller.ask(lambda done, deadline: self._protocol.release(self._record, done, deadline))
        return isinstance(result, Released) and state is LeaseState.HELD

    def __enter__(self) -> Self:
        """Return the lease itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease. An error of the body is not hidden by one of the release.

        Raises:
            LeaseLost: it was lost while the body ran, so that some of it was done without the lease.
        """
        lost = self.lost_reason
        try:
            self.release()
        except (Unavailable, ServiceBusy, ClientClosed):
            pass  # it ends by itself with its ttl or its session; the work that it guarded is done
        if lost and error is None:
            raise LeaseLost(f"{self.name!r} was lost before the body of `with` had ended: {lost}")


class Lock:
    """A lock by name: each `with` acquires a lease, and never enters without it."""

    def __init__(self, client: "Client", arguments: dict[str, Any]) -> None:
        """Made by `Client.lock`."""
        self._client = client
        self._arguments = arguments
        self._leases: list[tuple[int, Lease]] = []  # of each thread

    def __enter__(self) -> Lease:
        """Wait for the lease, and return it.

        Raises:
            AcquireTimeout, Unavailable, ServiceBusy, BadRequest: as `Client.acquire`; the body is not entered.
        """
        lease = self._client.acquire(**self._arguments)
        self._leases.append((threading.get_ident(), lease))
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lease.

        Raises:
            LeaseLost: it was lost while the body ran.
        """
        mine = [entry for entry in self._leases if entry[0] == threading.get_ident()]
        entry = (mine or self._leases)[-1]  # one that was entered elsewhere, if none was here
        self._leases.remove(entry)
        entry[1].__exit__(kind, error, trace)


class Client:
    """A client of the service. One for a process is enough: it may be used from many threads at once."""

    def __init__(
        self,
        endpoints: str | Sequence[str],
        namespace: str = "default",
        *,
        holder: str | None = None,
        session_timeout: Duration = limits.SESSION_TIMEOUT_MS_DEFAULT / 1000,
        request_timeout: Duration = 10.0,
        description: str = "",
    ) -> None:
        """Make a client; it connects when it is first used.

        Args:
            endpoints: of the nodes, separated by commas or as a list: `tcp://127.0.0.1:7411,tcp://127.0.0.1:7421`.
            namespace: in which names are looked up.
            holder: how others see who holds; None for host:pid.
            session_timeout: how long the service keeps this client's session without a sign of life.
            request_timeout: how long a call waits for the service, where it takes no timeout of its own.
            description: of this client, for operators.

        Raises:
            BadRequest: an argument is out of bounds; the text says which.
        """
        self.namespace = namespace
        self.holder = holder if holder is not None else f"{socket.gethostname()}:{os.getpid()}"
        session_timeout_ms = _ms(session_timeout)
        _check(OpenSession(bytes(limits.SESSION_KEY_BYTES), session_timeout_ms, description))
        _check(self._claim("x", 1, 0, data=b"", holder=None, detached=False))
        nodes = parse_list(_joined(endpoints))
        if not _ms(request_timeout):
            raise BadRequest(f"a request timeout is from 1 ms on, not {request_timeout!r}")

        def draw_key() -> bytes:
            return secrets.token_bytes(limits.SESSION_KEY_BYTES)

        protocol = Protocol(nodes, draw_key, session_timeout_ms, description, random)
        self._caller = Caller(protocol, _ms(request_timeout))

    # --- leases ------------------------------------------------------------------------------------------------------

    def lock(
        self,
        name: str,
        ttl: Duration | None = 30.0,
        *,
        timeout: Duration | None = None,
        data: bytes = b"",
        holder: str | None = None,
        detached: bool = False,
        auto_renew: bool = True,
    ) -> Lock:
        """Return a lock to be used in `with`, which waits for its turn and gives the lease.

        >>> with client.lock("nightly-report", ttl=30) as lease:    # doctest: +SKIP
        ...     print(lease.token)
        """
        how = {"data": data, "holder": holder, "detached": detached, "auto_renew": auto_renew}
        return Lock(self, {"name": name, "ttl": ttl, "timeout": timeout, **how})

    def acquire(
        self,
        name: str,
        ttl: Duration | None = 30.0,
        *,
        timeout: Duration | None = None,
        data: bytes = b"",
        holder: str | None = None,
        detached: bool = False,
        auto_renew: bool = True,
    ) -> Lease:
        """Wait in line for a lease, and return it.

        Args:
            name: of what is to be held.
            ttl: how long it lives unless it is renewed; None: as long as this client's session.
            timeout: how long to wait; None: for ever; 0: not at all.
            data: kept with the lease, for others to see.
            holder: instead of the client's own.
            detached: it does not end with this client's session, only by its ttl or by whoever has its token.
            auto_renew: renew it in the background at a third of its ttl.

        Raises:
            AcquireTimeout: it was not granted in time.
            Unavailable: the service was not reached in time.
            ServiceBusy: a limit of the service is reached.
            BadRequest: an argument is out of bounds; nothing was asked.
        """
        wait_ms = FOREVER if timeout is None else _ms(timeout)
        claim = self._claim(name, ttl, wait_ms, data=data, holder=holder, detached=detached)
        outcome = self._acquire(claim, auto_renew=auto_renew)
        if isinstance(outcome, Denied):  # without any time to wait
            raise AcquireTimeout(f"{name!r} is not free")
        return Lease(self._caller, outcome)

    def try_acquire(
        self,
        name: str,
        ttl: Duration | None = 30.0,
        *,
        data: bytes = b"",
        holder: str | None = None,
        detached: bool = False,
        auto_renew: bool = True,
    ) -> Lease | None:
        """Return the lease if it is free now, None if it certainly is not held by this call; never wait in line.

        Raises:
            Unavailable, ServiceBusy, BadRequest: as `acquire`.
        """
        claim = self._claim(name, ttl, 0, data=data, holder=holder, detached=detached)
        outcome = self._acquire(claim, auto_renew=auto_renew)
        return None if isinstance(outcome, Denied) else Lease(self._caller, outcome)

    def release(self, token: int) -> bool:
        """Give back the grant of this token, whoever took it: a lease of another client, such as a detached one.

        True if it was held until now. Its holder, if it is still there, is told.

        Raises:
            Unavailable, BadRequest: as `acquire`.
        """
        operation = Release(token)
        _check(operation)
        return isinstance(self._ask(operation), Released)

    # --- looking -----------------------------------------------------------------------------------------------------

    def describe(self, name: str) -> list[LeaseView]:
        """Return who holds `name` (first) and who waits for it, in order; empty if nobody does.

        Raises:
            Unavailable, BadRequest: as `acquire`.
        """
        found, upto = self._views(Describe(self.namespace, (name,)))
        # a queue too long for one answer goes on in the listing of the namespace, in the same order
        if upto:
            found += [claim for claim in self._listed(self.namespace, upto) if claim.name == name]
        return found

    def leases(self, *, all_namespaces: bool = False) -> list[LeaseView]:
        """Return every lease and every waiting claim of the namespace, or of all of them, oldest first.

        Raises:
            Unavailable, BadRequest: as `acquire`.
        """
        return list(self._listed("" if all_namespaces else self.namespace, 0))

    # --- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release what is held, withdraw what is waited for, and end the session. Quick, and may be called twice."""
        self._caller.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    # --- parts -------------------------------------------------------------------------------------------------------

    def _acquire(self, operation: Claim, *, auto_renew: bool) -> Any:
        _check(operation)
        return self._caller.acquire(operation, auto_renew=auto_renew)

    def _claim(self, name: str, ttl: Duration | None, wait_ms: int, **rest: Any) -> Claim:
        holder = self.holder if rest["holder"] is None else rest["holder"]
        ttl_ms = 0 if ttl is None else _ttl_ms(ttl)
        return Claim(self.namespace, (Resource((name,)),), holder, rest["data"], ttl_ms, wait_ms, rest["detached"])

    def _listed(self, namespace: str, after: int) -> Iterator[LeaseView]:
        page, upto = self._views(ListClaims(namespace, after, limits.LIST_PAGE_MAX))
        yield from page
        while upto:
            page, upto = self._views(ListClaims(namespace, upto, limits.LIST_PAGE_MAX))
            yield from page

    def _ask(self, operation: Operation) -> Any:
        return self._caller.ask(lambda done, deadline: self._caller.protocol.call(operation, done, deadline))

    def _views(self, operation: Operation) -> tuple[list[LeaseView], int]:
        """Return a page, and after which claim the next one begins (0: there is none)."""
        _check(operation)
        page = self._ask(operation)
        assert isinstance(page, ClaimPage)
        anchor = self._caller.protocol.anchor
        views = [view(info, anchor.clock_ms, anchor.over_after_ms(info.expires_at_ms)) for info in page.claims]
        return views, page.upto


def connect(endpoints: str | Sequence[str], namespace: str = "default", **options: Any) -> Client:
    """Return a client of the service at `endpoints`; see `Client` for the options.

    >>> client = connect("tcp://127.0.0.1:7411,tcp://127.0.0.1:7421,tcp://127.0.0.1:7431")
    >>> client.close()
    """
    return Client(endpoints, namespace, **options)


def _joined(endpoints: Any) -> str:
    if isinstance(endpoints, str):
        return endpoints
    if not isinstance(endpoints, Sequence) or not all(isinstance(each, str) for each in endpoints):
        raise BadRequest(
            f"endpoints are text, or a list of texts such as 'tcp://127.0.0.1:7411', not {endpoints!r:.80}"
        )
    return ",".join(endpoints)


def _ttl_ms(ttl: Duration) -> int:
    if _ms(ttl) == 0:  # on the wire, 0 stands for no ttl at all
        raise BadRequest(f"a ttl is from {limits.TTL_MS_MIN} ms to {limits.TTL_MS_MAX} ms, not {ttl!r}")
    return _ms(ttl)


def _ms(duration: Duration) -> int:
    seconds: Any = duration.total_seconds() if isinstance(duration, dt.timedelta) else duration
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise BadRequest(f"a duration is a number of seconds or a timedelta, not a {type(duration).__name__}")
    if not 0 <= seconds <= limits.TTL_MS_MAX / 1000:
        raise BadRequest(f"a duration is from 0 to {limits.TTL_MS_MAX // 1000} seconds, not {duration!r}")
    return int(seconds * 1000)


def _check(operation: Operation) -> None:
    """Refuse what is wrong in itself before it is sent; the gateway checks again."""
    texts: dict[str, Any] = {}
    match operation:
        case Claim(namespace, (Resource((name,)),), holder, data):
            texts = {"a namespace": namespace, "a name": name, "a holder's name": holder}
            if not isinstance(data, bytes):
                raise BadRequest(f"data is bytes, not {type(data).__name__}")
        case Describe(namespace, (name,)):
            texts = {"a namespace": namespace, "a name": name}
        case OpenSession(_, _, description):
            texts = {"a description": description}
        case _:
            pass
    for what, text in texts.items():
        if not isinstance(text, str):
            raise BadRequest(f"{what} is text, not {type(text).__name__}")
    check(operation)
