"""What a client's program asked and what it was told, in true time: the history that the checkers judge."""

import enum
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.Enum):
    """How a call ended, for its caller."""

    PENDING = "pending"
    DONE = "done"  # what was asked for happened
    NOT_DONE = "not done"  # it certainly did not, and will not
    UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Op:
    """One call. `holder` is unique to each acquire, so that every claim in the log can be traced to its call."""

    number: int
    client: int
    kind: str  # acquire, release, renew, close
    name: str
    start_us: int
    holder: str = ""
    ttl_ms: int = 0
    wait_ms: int = 0
    token: int = 0  # that was granted, or that the call names
    end_us: int = 0
    verdict: Verdict = Verdict.PENDING
    result: Any = None
    abandoned: bool = False
    lost_us: int = 0  # when its client called the lease lost, which it may then give back by itself

    def __str__(self) -> str:
        """Print one line."""
        what = f"{self.kind} {self.name} token={self.token} holder={self.holder} ttl={self.ttl_ms} wait={self.wait_ms}"
        return f"#{self.number} c{self.client} {what} {self.start_us}-{self.end_us} {self.verdict.value} {self.result}"


@dataclass(slots=True)
class History:
    """All calls of a world, in the order in which they began."""

    ops: list[Op] = field(default_factory=list)
    acquires: dict[str, Op] = field(default_factory=dict)  # by holder
