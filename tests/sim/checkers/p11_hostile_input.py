"""P11: no bytes from any socket stop a node or change its state; they become one counted, typed error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .base import Checker

if TYPE_CHECKING:
    from ..node import Node


class HostileInput(Checker):
    """Whatever comes, a node reads on; nothing that nobody said in good faith reaches a role; and it is counted."""

    promise = "P11"

    def hostile(self, node: "Node", what: str, reached: Sequence[Any], counted: int, error: Exception | None) -> None:
        """Look at what became of one packet."""
        if error is not None:
            raise self.fail(f"node {node.number} raises on {what}: {error!r}") from error
        if what == "flipped bits":
            return  # what was said beside them is good, and they may say that nothing was said
        if reached:
            raise self.fail(f"node {node.number} is told by {what}: {reached}")
        if not counted:
            raise self.fail(f"node {node.number} does not count {what}")
