"""What the clients of both faces share: the arguments, checked before anything is asked, and what answers mean."""

import datetime as dt
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import random
from typing import Any

from ..core import limits
from ..core.commands import FOREVER, Claim, Describe, OpenSession, Operation, Renew, Resource, check
from ..core.results import ClaimPage, Renewed
from ..transport.endpoints import parse_list
from .errors import BadRequest, LeaseLost
from .lease import LeaseView, view
from .news import check_on_lost
from .protocol import Protocol
from .records import LeaseRecord, Terms
from .ticket import Ticket

Duration = float | dt.timedelta
"""A length of time: seconds, or a timedelta."""


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
    ) -> None:
        """Check the arguments."""
        self.namespace = namespace
        self._holder = holder
        session_timeout_ms = milliseconds(session_timeout)
        checked(OpenSession(bytes(limits.SESSION_KEY_BYTES), session_timeout_ms, description))
        self._wish("x", 1, 0)
        nodes = parse_list(_joined(endpoints))
        self._request_timeout_ms = milliseconds(request_timeout)
        if not self._request_timeout_ms:
            raise BadRequest(f"a request timeout is from 1 ms on, not {request_timeout!r}")

        def make_protocol() -> Protocol:
            return Protocol(nodes, _draw_key, session_timeout_ms, description, random)

        self._make_protocol: Callable[[], Protocol] = make_protocol

    @property
    def holder(self) -> str:
        """How others see who holds, unless an acquire says otherwise."""
        return self._holder if self._holder is not None else f"{socket.gethostname()}:{os.getpid()}"

    def _wish(
        self,
        name: str,
        ttl: Duration | None,
        timeout: Duration | None,
        *,
        data: bytes = b"",
        holder: str | None = None,
        detached: bool = False,
        on_lost: Any = None,
        keeper: str | None = None,
        **terms: Any,
    ) -> Wish:
        """Return what is asked for, checked."""
        holder = self.holder if holder is None else holder
        ttl_ms = 0 if ttl is None else ttl_milliseconds(ttl)
        wait_ms = FOREVER if timeout is None else milliseconds(timeout)
        claim = Claim(self.namespace, (Resource((name,)),), holder, data, ttl_ms, wait_ms, detached)
        checked(claim)
        check_on_lost(on_lost)
        if keeper not in (None, "process"):
            raise BadRequest(f"a keeper is 'process' or None, not {keeper!r}")
        if keeper is not None and not (ttl_ms and terms.get("auto_renew", True)):
            raise BadRequest("a keeper needs a ttl and auto_renew: it renews the lease")
        return Wish(claim, checked_terms(ttl_ms, **terms), on_lost, keeper)

    def _resumed(self, ticket: Ticket, result: Any, terms: Terms) -> LeaseRecord:
        """Return the record of a lease that was resumed, from the answer to its renewal.

        Raises:
            LeaseLost: it is not held any more.
        """
        if not isinstance(result, Renewed):
            raise LeaseLost(f"{ticket.name!r} is not held any more: its ticket is of token {ticket.token}")
        return LeaseRecord(
            namespace=ticket.namespace,
            path=(ticket.name,),
            holder=ticket.holder,
            data=b"",
            claim=ticket.claim,
            token=ticket.token,
            ttl_ms=ticket.ttl_ms,
            expires_at_ms=result.expires_at_ms,
            auto_renew=terms.auto_renew,
            detached=ticket.detached,
            session=0,
        )


def views(protocol: Protocol, page: Any) -> tuple[list[LeaseView], int]:
    """Return a page of claims as users see them, and after which claim the next one begins (0: there is none)."""
    assert isinstance(page, ClaimPage)
    anchor = protocol.anchor
    found = [view(info, anchor.clock_ms, anchor.over_after_ms(info.expires_at_ms)) for info in page.claims]
    return found, page.upto


def renewal_milliseconds(token: int, ttl: Duration | None) -> int:
    """Return the ttl of a renewal, 0 for the lease's own; checked."""
    ttl_ms = 0 if ttl is None else ttl_milliseconds(ttl)
    checked(Renew(token, ttl_ms))
    return ttl_ms


def checked_terms(
    ttl_ms: int, *, auto_renew: bool = True, max_hold: Duration | None = None, progress_timeout: Duration | None = None
) -> Terms:
    """Return how a lease is to be kept.

    Raises:
        BadRequest: the terms contradict each other, or are out of bounds.
    """
    max_hold_ms = 0 if max_hold is None else milliseconds(max_hold)
    progress_ms = 0 if progress_timeout is None else milliseconds(progress_timeout)
    if (max_hold is not None and not max_hold_ms) or (progress_timeout is not None and not progress_ms):
        raise BadRequest("max_hold and progress_timeout are from 1 ms on; None for without end")
    if progress_ms and not (auto_renew and ttl_ms):
        raise BadRequest("progress_timeout needs a ttl and auto_renew: it stops the renewal in the background")
    return Terms(auto_renew, max_hold_ms, progress_ms)


def milliseconds(duration: Duration) -> int:
    """Return a length of time in milliseconds.

    Raises:
        BadRequest: it is none, or too long.
    """
    seconds: Any = duration.total_seconds() if isinstance(duration, dt.timedelta) else duration
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise BadRequest(f"a duration is a number of seconds or a timedelta, not a {type(duration).__name__}")
    if not 0 <= seconds <= limits.TTL_MS_MAX / 1000:
        raise BadRequest(f"a duration is from 0 to {limits.TTL_MS_MAX // 1000} seconds, not {duration!r}")
    return int(seconds * 1000)


def ttl_milliseconds(ttl: Duration) -> int:
    """Return a ttl in milliseconds.

    Raises:
        BadRequest: it is none.
    """
    if milliseconds(ttl) == 0:  # on the wire, 0 stands for no ttl at all
        raise BadRequest(f"a ttl is from {limits.TTL_MS_MIN} ms to {limits.TTL_MS_MAX} ms, not {ttl!r}")
    return milliseconds(ttl)


def checked(operation: Operation) -> Operation:
    """Refuse what is wrong in itself before it is sent; the gateway checks again.

    Raises:
        BadRequest: the text says what is wrong.
    """
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
    return operation


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
