"""What is known of a name: who holds it, who waits, and whatever else may explain why it is not free."""

from dataclasses import dataclass

from ..core.results import About, Lapsed
from .lease import LeaseView


@dataclass(frozen=True, slots=True)
class Lapse:
    """A lease that ended of late, otherwise than by its holder; for how many seconds its name stays closed since."""

    holder: str
    token: int
    ended_ago: float
    held_for: float
    closed_for: float
    why: str


@dataclass(frozen=True, slots=True)
class Description:
    """All that is known of a name.

    `leases` are those who hold it, then who waits, in order; then whoever overlaps it. `limit` 0: it is no semaphore.
    `created`: the semaphore stays until it is deleted, with its `data`. `version` 0: it has no register.
    """

    leases: tuple[LeaseView, ...]
    limit: int
    created: bool
    units: int
    data: bytes
    pins: tuple[str, ...]
    version: int
    lapse: Lapse | None

    @property
    def closed_for(self) -> float:
        """For how many seconds the name stays closed because its last lease lapsed."""
        return self.lapse.closed_for if self.lapse is not None else 0.0


def description(leases: list[LeaseView], about: About, clock_ms: int) -> Description:
    """Return what the service knows of a name, when its lease clock was at `clock_ms`."""
    return Description(
        leases=tuple(leases),
        limit=about.limit,
        created=about.limit > 0 and not about.ephemeral,
        units=about.units,
        data=about.data,
        pins=about.pins,
        version=about.version,
        lapse=_lapse(about.lapsed[0], clock_ms) if about.lapsed else None,
    )


def _lapse(lapsed: Lapsed, clock_ms: int) -> Lapse:
    return Lapse(
        holder=lapsed.holder,
        token=lapsed.token,
        ended_ago=max(0, clock_ms - lapsed.ended_at_ms) / 1000,
        held_for=max(0, lapsed.ended_at_ms - lapsed.since_ms) / 1000,
        closed_for=max(0, lapsed.closed_until_ms - clock_ms) / 1000,
        why=lapsed.why,
    )
