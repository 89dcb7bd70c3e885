"""A lease as its holder sees it, and as others see it: until when, in whose time, and what to think of that."""

import datetime as dt
import time
from dataclasses import dataclass

from ..core.results import ClaimInfo, ClaimPhase
from . import clock
from .protocol import Protocol
from .records import LeaseRecord, LeaseState


def wall_ms(local_ms: int) -> int:
    """Return a moment of the client's own clock on its wall clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000 + local_ms - clock.now_ms()


def as_datetime(epoch_ms: float) -> dt.datetime:
    """Return milliseconds since the epoch as an aware datetime in UTC."""
    return dt.datetime.fromtimestamp(epoch_ms / 1000, dt.UTC)


class BaseLease:
    """What a held lease says of itself in both faces of the client."""

    def __init__(self, protocol: Protocol, record: LeaseRecord) -> None:
        """Wrap the protocol's record."""
        self._protocol = protocol
        self._record = record

    def __repr__(self) -> str:
        """Show the name, the token and the state."""
        return f"<Lease {self.name!r} token={self.token} {self._record.state.value}>"

    @property
    def name(self) -> str:
        """The name of what is held."""
        return "/".join(self._record.path)

    @property
    def namespace(self) -> str:
        """The namespace that the name is in."""
        return self._record.namespace

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every grant before it in this cluster (P5)."""
        return self._record.token

    @property
    def holder(self) -> str:
        """The holder's name, as others see it."""
        return self._record.holder

    @property
    def data(self) -> bytes:
        """The data kept with the lease."""
        return self._record.data

    @property
    def held(self) -> bool:
        """Whether the lease is certainly still held: not released, not lost, and before its deadline."""
        return self.remaining() > 0

    @property
    def lost_reason(self) -> str:
        """Why the lease was lost, "" while it is held or if it was released."""
        if self._record.state is LeaseState.LOST:
            return self._record.reason
        return "" if self.held or self._record.state is LeaseState.RELEASED else "it expired"

    def remaining(self) -> float:
        """Return for how many seconds from now the lease is certainly held, 0.0 when it is not.

        Counted on this machine's own clock from the sending of the request, less the drift margin; it grows with each
        renewal.
        """
        if self._record.state is not LeaseState.HELD:
            return 0.0
        return max(0, self._protocol.safe_until_ms(self._record) - clock.now_ms()) / 1000

    def expire_time_unsafe(self) -> int:
        """Return the deadline in milliseconds since the epoch on *this machine's wall clock*.

        Unsafe, as the name says: the wall clock may be set at any time, and between looking at it and acting on it the
        process may stand still. (After TrexLock's call of this name.)
        """
        return wall_ms(self._protocol.safe_until_ms(self._record))

    def expire_time_with_safety_gap(self, gap: dt.timedelta) -> dt.datetime:
        """Return the deadline less `gap`: work while now is before it.

        An aware datetime, on purpose no number, so that it is not compared with a number from elsewhere. Choose the gap
        at least as long as the longest step of work between two looks. (After TrexLock's call of this name.)
        """
        return as_datetime(self.expire_time_unsafe()) - gap


@dataclass(frozen=True, slots=True)
class LeaseView:
    """Somebody's lease, as the service described it: for people and for those who wait, not for its holder.

    `expires_in` is in seconds from when the answer came, by the service's reckoning (0.0 for one who waits).
    """

    name: str
    namespace: str
    holder: str
    token: int
    waiting: bool
    claim: int
    session: int
    detached: bool
    ttl: float
    data: bytes
    held_for: float
    expires_in: float
    deadline_local_ms: int

    def expire_time_unsafe(self) -> int:
        """Return when it should be over, in milliseconds since the epoch on this machine's wall clock; see `Lease`."""
        return wall_ms(self.deadline_local_ms)

    def expire_time_with_safety_gap(self, gap: dt.timedelta) -> dt.datetime:
        """Return the deadline *plus* `gap`: it is over once now is after it - unless it was renewed meanwhile."""
        return as_datetime(self.expire_time_unsafe()) + gap


def view(info: ClaimInfo, clock_ms: int, over_after_ms: int) -> LeaseView:
    """Return a claim as the service tells it, in terms of this client's time."""
    held = info.phase == ClaimPhase.HELD
    return LeaseView(
        name="/".join(info.path),
        namespace=info.namespace,
        holder=info.holder,
        token=info.token,
        waiting=not held,
        claim=info.claim,
        session=info.session,
        detached=info.detached,
        ttl=info.ttl_ms / 1000,
        data=info.data,
        held_for=max(0, clock_ms - info.since_ms) / 1000,
        expires_in=max(0, info.expires_at_ms - clock_ms) / 1000 if held else 0.0,
        deadline_local_ms=over_after_ms if held else clock.now_ms(),
    )
