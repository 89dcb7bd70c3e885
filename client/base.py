"""What the clients of both faces share: the arguments, checked before anything is asked, and what answers mean."""

import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import random
from typing import Any, TypedDict

from ..core import limits
from ..core.checks import check, check_flag
from ..core.commands import FOREVER, Claim, OpenSession, Renew
from ..core.resources import Resource
from ..core.results import ClaimInfo, ClaimPage
from ..transport.endpoints import parse_list
from .durations import Duration, milliseconds, ttl_milliseconds
from .errors import BadRequest
from .heritage import read_session
from .lease import LeaseView, view
from .news import check_on_lost
from .protocol import Protocol
from .records import Terms
from .wants import Want, resources_of


class Options(TypedDict, total=False):
    """What `connect` takes beside the endpoints and the namespace: the arguments of `Client` by these names."""

    holder: str | None
    session_timeout: Duration
    request_timeout: Duration
    description: str
    detect_deadlocks: bool
    session: str | None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants to hold, and how."""

    claim: Claim
    terms: Terms
    on_lost: Any
    keeper: str | None


class BaseClient:
    """What a client knows, whichever way it waits."""

    def __init__(
        self,
        endpoints: str | Sequence[str],
        namespace: str,
        holder: str | None,
        session_timeout: Duration,
        request_timeout: Duration,
        description: str,
        *,
        detect_deadlocks: bool,
        session: str | None,
    ) -> None:
        """Check the arguments."""
        self.namespace = namespace
        check_flag("detect_deadlocks", detect_deadlocks)
        self._detect_deadlocks = detect_deadlocks
        self._holder = holder
        session_timeout_ms = milliseconds(
            session_timeout, "session timeout", limits.SESSION_TIMEOUT_MS_MIN, limits.SESSION_TIMEOUT_MS_MAX
        )
        check(OpenSession(bytes(limits.SESSION_KEY_BYTES), session_timeout_ms, description, namespace))
        check(Claim(namespace, (Resource(("x",)),), self.holder, b"", 0, 0, detached=False))
        nodes = parse_list(_joined(endpoints))
        self._request_timeout_ms = milliseconds(request_timeout, "request timeout", 1)
        tickets = [read_session(session)] if session is not None else []
        for ticket in tickets:
            if ticket.namespace != namespace:
                raise BadRequest(f"the session is of the namespace {ticket.namespace!r}, not {namespace!r}")
            session_timeout_ms = ticket.timeout_ms

        def make_protocol() -> Protocol:
            # once: a child of a fork begins with a session of its own
            ticket = tickets.pop() if tickets else None
            return Protocol(nodes, _draw_key, session_timeout_ms, description, random, namespace, ticket)

        self._make_protocol: Callable[[], Protocol] = make_protocol
        self._nodes = nodes

    def __repr__(self) -> str:
        """Show the namespace, the holder and the nodes."""
        return f"<{type(self).__name__} {self.namespace!r} holder={self.holder!r} of {', '.join(self._nodes)}>"

    @property
    def holder(self) -> str:
        """How others see who holds, unless an acquire says otherwise."""
        return self._holder if self._holder is not None else f"{socket.gethostname()}:{os.getpid()}"

    def _chain(self) -> int:
        """Return which flow of control asks, a number that no other one has while this one lives."""
        raise NotImplementedError

    def _wish(
        self,
        name: Want,
        ttl: Duration | None,
        timeout: Duration | None,
        *,
        data: bytes = b"",
        holder: str | None = None,
        detached: bool = False,
        on_lost: Any = None,
        keeper: str | None = None,
        begins: bool = True,
        **terms: Any,
    ) -> Wish:
        """Return what is asked for, checked; not `begins`: it is only checked, and not yet asked by anybody."""
        holder = self.holder if holder is None else holder
        ttl_ms = 0 if ttl is None else ttl_milliseconds(ttl)
        wait_ms = FOREVER if timeout is None else milliseconds(timeout, "timeout", 0, limits.WAIT_MS_MAX)
        check_on_lost(on_lost)
        if keeper not in (None, "process"):
            raise BadRequest(f"a keeper is 'process' or None, not {keeper!r}")
        if keeper is not None and not (ttl_ms and terms.get("auto_renew", True)):
            raise BadRequest("a keeper needs a ttl and auto_renew: it renews the lease")
        found = checked_terms(ttl_ms, **terms)
        chain = self._chain() if self._detect_deadlocks and wait_ms and begins else 0
        resources = resources_of(name)
        claim = Claim(self.namespace, resources, holder, data, ttl_ms, wait_ms, detached, found.max_hold_ms, chain)
        check(claim)
        return Wish(claim, found, on_lost, keeper)


def views(protocol: Protocol, page: Any) -> tuple[list[LeaseView], int]:
    """Return a page of claims as users see them, and after which claim the next one begins (0: there is none)."""
    assert isinstance(page, ClaimPage)
    return [view_of(protocol, info) for info in page.claims], page.upto


def view_of(protocol: Protocol, info: ClaimInfo) -> LeaseView:
    """Return one claim as users see it."""
    anchor = protocol.anchor
    return view(info, anchor.clock_ms, anchor.over_after_ms(info.expires_at_ms))


def shown(resources: Sequence[Resource]) -> str:
    """Return what somebody wants, as text for people."""
    return ", ".join(repr("/".join(resource.path)) for resource in resources)


def renewal_milliseconds(token: int, ttl: Duration | None) -> int:
    """Return the ttl of a renewal, 0 for the lease's own; checked."""
    ttl_ms = 0 if ttl is None else ttl_milliseconds(ttl)
    check(Renew(token, ttl_ms))
    return ttl_ms


def checked_terms(
    ttl_ms: int, *, auto_renew: bool = True, max_hold: Duration | None = None, progress_timeout: Duration | None = None
) -> Terms:
    """Return how a lease is to be kept.

    Raises:
        BadRequest: the terms contradict each other, or are out of bounds.
    """
    check_flag("auto_renew", auto_renew)
    max_hold_ms = progress_ms = 0
    if max_hold is not None:
        max_hold_ms = milliseconds(max_hold, "max_hold", limits.TTL_MS_MIN, limits.MAX_HOLD_MS_MAX)
    if progress_timeout is not None:
        progress_ms = milliseconds(progress_timeout, "progress_timeout", 1)
    if progress_ms and not (auto_renew and ttl_ms):
        raise BadRequest("progress_timeout needs a ttl and auto_renew: it stops the renewal in the background")
    return Terms(auto_renew, max_hold_ms, progress_ms)


def _draw_key() -> bytes:
    return secrets.token_bytes(limits.SESSION_KEY_BYTES)


def _joined(endpoints: Any) -> str:
    if isinstance(endpoints, str):
        return endpoints
    if not isinstance(endpoints, Sequence) or not all(isinstance(each, str) for each in endpoints):
        raise BadRequest(
            f"endpoints are text, or a list of texts such as 'tcp://127.0.0.1:7411', not {endpoints!r:.80}"
        )
    return ",".join(endpoints)
