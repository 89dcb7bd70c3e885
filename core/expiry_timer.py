"""The expiry timer: makes sure that a stamped batch follows soon after a deadline; it never decides that one passed."""

from .effects import Address, Effects, Role
from .messages import Leadership, NextDeadline, Nudge, Tick

Message = NextDeadline | Leadership | Tick

RENUDGE_MS = 50
"""A deadline whose batch has not come by then is nudged again: the lease clock may run slower than this node's."""


class ExpiryTimer:
    """The pure core of one node's expiry timer; it is armed only while this node leads."""

    def __init__(self, node: int) -> None:
        """Start unarmed."""
        self.node = node
        self.leads = False
        self.remaining_ms: int | None = None  # told since the last tick
        self.due_at_ms: int | None = None

    def step(self, message: Message) -> Effects:
        """Decide on one message."""
        effects = Effects()
        match message:
            case NextDeadline(clock_ms, deadline_ms):
                self.remaining_ms = max(deadline_ms - clock_ms, 0) if deadline_ms else None
                self.due_at_ms = None
            case Leadership():
                self.leads = message.leader == self.node
                if not self.leads:
                    self.remaining_ms = self.due_at_ms = None
            case Tick(now_ms):
                if self.remaining_ms is not None:
                    self.due_at_ms = now_ms + self.remaining_ms
                    self.remaining_ms = None
                if self.leads and self.due_at_ms is not None and now_ms >= self.due_at_ms:
                    self.due_at_ms = now_ms + RENUDGE_MS
                    effects.send(Address(self.node, Role.PROPOSER), Nudge())
        return effects

    @property
    def wake_at_ms(self) -> int | None:
        """When on the node's monotonic clock this core wants its next tick, if no message comes before."""
        return self.due_at_ms if self.leads else None
