"""P4 for what a namespace rules: the ttl of its claims, the longest hold, and the grace of its sessions."""

from typing import TYPE_CHECKING

from lessor.core.commands import Claim
from lessor.core.entries import Entry, Lead
from lessor.core.lease_state import Outcome
from lessor.core.results import ClaimStatus

from .base import Checker
from .wide_view import Once, View, look

if TYPE_CHECKING:
    from ..world import World


class WideConfigured(Checker):
    """Compares each claim and each session with what was asked for, and with the config of its namespace."""

    promise = "P4"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with nothing asked."""
        super().__init__(world)
        self.once = Once()

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Look at what came, at what is held, and at the sessions after a change of leader."""
        before, after = look(self.world)
        for command, result in self.once.carried_out(self.world.ledger.commands, outcome):
            if isinstance(command.operation, Claim) and isinstance(result, ClaimStatus):
                self._look_at_claim(command.operation, result.claim, before, after)
        for claim in after.claims.values():
            if claim.token and claim.max_hold_ms:
                until_ms = claim.since_ms + claim.max_hold_ms
                if claim.hold_until_ms != until_ms or claim.ends_at_ms > until_ms:
                    raise self.fail(
                        f"claim {claim.claim} may be held until {until_ms} ms, and is by {claim.ends_at_ms}"
                    )
            old = before.claims.get(claim.claim)
            if old is not None and old.token and claim.ends_at_ms < old.ends_at_ms and claim.ttl_ms:
                raise self.fail(f"claim {claim.claim} was held until {old.ends_at_ms} ms, now {claim.ends_at_ms} ms")
        state = self.world.referee.state
        if isinstance(entry, Lead) and entry.ballot == state.header.term:
            for session in state.sessions_open.every():
                record = session.record
                config = after.configs.get(record.namespace)
                grace_ms = config.session_grace_ms if config is not None else 0
                if grace_ms and record.expires_at_ms < after.clock_ms + record.timeout_ms + grace_ms:
                    raise self.fail(f"session {record.session} got no grace after a change of leader")
                if grace_ms:
                    self.world.mark("a session with grace")

    def _look_at_claim(self, asked: Claim, number: int, before: View, after: View) -> None:
        claim = after.claims.get(number)
        configs = [view.configs.get(asked.namespace) for view in (before, after)]
        if configs[0] != configs[1]:
            return  # altered in the same slot
        config = configs[0]
        if claim is not None:
            wanted = asked.ttl_ms or (config.default_ttl_ms if config is not None else 0)
            if claim.ttl_ms != wanted:
                raise self.fail(f"claim {number} has a ttl of {claim.ttl_ms} ms, not of {wanted} ms")
            if not asked.ttl_ms and wanted:
                self.world.mark("a ttl that the namespace gave")
        if config is not None and config.ttl_max_ms and asked.ttl_ms > config.ttl_max_ms:
            raise self.fail(f"claim {number} asked for {asked.ttl_ms} ms, and {config.ttl_max_ms} ms are allowed")
        closed = [one.namespace for one in after.lapses if one.closed_until_ms]  # counted until their names open
        there = [*(one.namespace for one in after.claims.values()), *closed].count(asked.namespace)
        if claim is not None and config is not None and 0 < config.claims_max < there:
            raise self.fail(f"there are {there} claims in {asked.namespace!r}, and {config.claims_max} are allowed")
