"""What clients and gateways say to each other."""

from dataclasses import dataclass
from typing import Annotated

from . import limits
from .ballot import Ballot
from .commands import Operation
from .encoding import MaxBytes, MaxItems, wire
from .results import ClaimStatus, Result

Endpoint = Annotated[str, MaxBytes(255)]


@wire(110)
@dataclass(frozen=True, slots=True)
class Request:
    """An operation under the client's own number; a retry carries the same number and so has one effect (P6).

    Only whoever is attached acts for a session: the number is of his attachment (`ATTACH_STEP`), `proof` of his key.
    """

    session: int
    number: int
    acked_below: int
    operation: Operation
    proof: int = 0


@wire(111)
@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of request `number`; `clock_ms` is the lease clock of the batch that held it: the client's anchor."""

    number: int
    clock_ms: int
    result: Result


@wire(112)
@dataclass(frozen=True, slots=True)
class Redirect:
    """Not from me: `leader` leads at `endpoint` (0 and "": nobody is known to lead).

    `indefinite`: the request had been passed on, and may yet take effect. Number 0: of no request; whoever waits for a
    push is to ask again, since another node leads, or this one anew.
    """

    number: int
    leader: int
    endpoint: Endpoint
    indefinite: bool


@wire(113)
@dataclass(frozen=True, slots=True)
class Busy:
    """Too much is under way; the request had no effect, try again later (P10)."""

    number: int


@wire(114)
@dataclass(frozen=True, slots=True)
class Rejected:
    """The request is wrong in itself and had no effect."""

    number: int
    reason: Annotated[str, MaxBytes(limits.DETAIL_BYTES_MAX)]


@wire(115)
@dataclass(frozen=True, slots=True)
class Notice:
    """Pushed: the state of a claim of this session changed by itself. A hint; it may be lost with a connection."""

    session: int
    clock_ms: int
    status: ClaimStatus


@wire(116)
@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Ask this node, leader or not, how it is."""

    number: int


@wire(117)
@dataclass(frozen=True, slots=True)
class Counter:
    """One counter of a node."""

    name: Annotated[str, MaxBytes(64)]
    value: int


@wire(118)
@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """How a node is, as far as it knows itself; of namespaces and semaphores, those that were created are counted."""

    number: int
    node: int
    cluster: Annotated[str, MaxBytes(64)]
    version: Annotated[str, MaxBytes(64)]
    role: Annotated[str, MaxBytes(16)]
    ballot: Ballot
    leader: int
    leader_endpoint: Endpoint
    chosen_upto: int
    applied_upto: int
    clock_ms: int
    sessions: int
    held: int
    waiting: int
    revision: int
    counters: Annotated[tuple[Counter, ...], MaxItems(64)]
    namespaces: int = 0
    semaphores: int = 0
    pins: int = 0
    registers: int = 0
    lapsed: int = 0


@wire(119)
@dataclass(frozen=True, slots=True)
class SessionStolen:
    """Pushed: somebody else has attached this session, for the `attach`-th time. A hint, as every push."""

    session: int
    attach: int
