"""P5: every grant carries a token larger than any token granted before it in this cluster."""

from typing import TYPE_CHECKING

from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome

from .base import Checker

if TYPE_CHECKING:
    from ..history import Op
    from ..world import World


class TokensGrow(Checker):
    """Over the whole life of a world, as the log has it and as the programs are told."""

    promise = "P5"

    def __init__(self, world: "World") -> None:
        """Start below every token."""
        super().__init__(world)
        self.last = 0
        self.told: dict[int, str] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Look at every grant."""
        for event in outcome.events:
            if event.kind == "granted":
                if event.token <= self.last:
                    raise self.fail(f"token {event.token} is granted after token {self.last}")
                self.last = event.token

    def ended(self, op: "Op") -> None:
        """No two programs are told the same token."""
        if op.kind == "acquire" and op.token and self.told.setdefault(op.token, op.holder) != op.holder:
            raise self.fail(f"token {op.token} was given to {self.told[op.token]} and to {op.holder}")
