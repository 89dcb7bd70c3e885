"""The expiry timer's shell: it only waits, and nudges."""

from ..core.expiry_timer import ExpiryTimer
from .shell import Shell


class ExpiryTimerShell(Shell):
    """Wakes when a lease is due."""

    role_name = "expiry timer"

    def set_up(self) -> None:
        """Build the core."""
        self.core = ExpiryTimer(self.links.sender.node)
