"""What the programs of a wide world share beside the service: their taste, tokens, and the files of their sessions."""

import random
from dataclasses import dataclass, field
from typing import Any, Final

from lessor.client.heritage import SessionTicket
from lessor.core.resources import Resource

NAMESPACES: Final = ("default", "default", "n")
PATHS: Final[tuple[tuple[str, ...], ...]] = (
    (),
    ("x",),
    ("x",),
    ("x", "1"),
    ("x", "2"),
    ("y",),
    ("y",),
    ("y", "1"),
    ("s",),
)
SEMAPHORES: Final[tuple[tuple[str, ...], ...]] = (("s",), ("e",))
"""One that must be created, and one that comes and goes with its claims."""

WEIGHTS: Final[dict[str, tuple[int, ...]]] = {
    "acquire": (8, 16),
    "chain": (0, 3, 8),
    "observe": (0, 1, 3),
    "amend": (0, 3, 8),
    "renew": (0, 2),
    "cancel": (0, 2),
    "ticket": (0, 1, 3),
    "break": (0, 0, 1, 3),
    "adopt": (0, 1, 4),
    "steal": (0, 0, 1),
    "wrong_key": (0, 0, 1),
    "pin": (0, 2, 5),
    "register": (0, 2, 6),
    "transact": (0, 1, 4),
    "semaphore": (1, 3),
    "namespace": (0, 0, 1, 3),
    "look": (1, 3),
    "close": (0, 0, 0, 1),
}
ACTIONS: Final = tuple(WEIGHTS)


@dataclass(frozen=True)
class Taste:
    """What the programs of a world like to do: a few things often, many never."""

    actions: tuple[str, ...]
    counts: float  # how many of the resources are units of a semaphore
    reads: float
    reattach: float  # processes that go on with the session of the one before

    @classmethod
    def draw(cls, rng: random.Random) -> "Taste":
        """Draw the taste of a world."""
        weights = {name: rng.choice(choices) for name, choices in WEIGHTS.items()}
        actions = tuple([name for name, weight in weights.items() for _ in range(weight)])
        return cls(actions, rng.choice((0, 0.2, 0.6)), rng.choice((0, 0.4, 0.7)), rng.choice((0, 0.7, 1)))


@dataclass(frozen=True, slots=True)
class Ticket:
    """A lease, as any program may name it."""

    namespace: str
    resources: tuple[Resource, ...]
    token: int
    claim: int
    holder: str


@dataclass(slots=True)
class Board:
    """What every program of the world knows."""

    taste: Taste
    tickets: list[Ticket] = field(default_factory=list)
    files: dict[int, SessionTicket] = field(default_factory=dict)
    """What each process writes down of its session, for the one that comes after it."""
    robbed: dict[int, SessionTicket] = field(default_factory=dict)
    """What was written down of a session by whoever had it before it was taken over."""
    adopted: dict[int, None] = field(default_factory=dict)
    """Tokens of leases that changed hands, or may have: whoever had them before may not have been told."""
    pinned: list[tuple[str, tuple[str, ...], str]] = field(default_factory=list)
    seen: Any = None
    """What the checkers have seen of the records; see checkers/wide_view.py."""
