"""P8: a holder's client calls the lease lost no later than its deadline, reachable cluster or not."""

from typing import TYPE_CHECKING

from .base import Checker

if TYPE_CHECKING:
    from ..client import SimClient


class LossTold(Checker):
    """After each turn of its engine nothing held is past its deadline, and the engine will wake for the next one."""

    promise = "P8"

    def client_turn(self, client: "SimClient") -> None:
        """Look at everything that a client holds."""
        protocol = client.protocol
        if not protocol.leases:
            return
        now_ms, wake_at_ms = client.now_ms, protocol.wake_at_ms()
        for record in protocol.leases.values():
            until_ms = protocol.safe_until_ms(record)
            if protocol.closed and record.detached:
                continue  # whoever has the token has the lease; the client told nobody anything any more
            if wake_at_ms is None or wake_at_ms > max(until_ms, now_ms):
                raise self.fail(
                    f"client {client.number} sleeps until {wake_at_ms} ms, past {until_ms} ms, when token "
                    f"{record.token} is over"
                )
            if now_ms >= until_ms:
                raise self.fail(f"client {client.number} still holds token {record.token}, over since {until_ms} ms")
