"""The disk of a simulated node, with the contracts of `storage/journal.py` and `storage/lease_tables.py`.

What was committed survives; a transaction that was torn by a crash is there whole or not at all; the lease tables lag
behind the journal; after a failed write the node must stop, and the write may be there or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lessor.core.acceptor import Acceptor
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.encoding import dumps
from lessor.core.lease_state import LeaseState
from lessor.core.messages import Truncate, Vote, WritePromise, WriteVote, WriteWatermark


class DiskFailed(Exception):
    """A write failed: the disk is full, or could not be synced."""


@dataclass(slots=True)
class Disk:
    """What one node has durably written."""

    promised: Ballot = NO_BALLOT
    votes: dict[int, Vote] = field(default_factory=dict)
    truncated_upto: int = 0
    watermark: tuple[Ballot, int] = (NO_BALLOT, 0)
    tables: list[Any] | None = None  # the lease state as it was last saved; it is made bytes when it is read
    saved_upto: int = 0
    snapshot_upto: int = 0  # where the snapshot ended that the tables last began with
    failing: bool = False

    def commit(self, writes: Sequence[Any]) -> None:
        """Carry out one transaction of the journal."""
        for write in writes:
            match write:
                case WriteVote(vote):
                    self.votes[vote.slot] = vote
                case WriteWatermark(ballot, chosen_upto):
                    self.watermark = (ballot, chosen_upto)
                case WritePromise(ballot):
                    self.promised = ballot
                case Truncate(upto):
                    self.votes = {slot: vote for slot, vote in self.votes.items() if slot > upto}
                    self.truncated_upto = max(self.truncated_upto, upto)
                case _:
                    raise AssertionError(f"the journal keeps no {type(write).__name__}")

    def save(self, state: LeaseState, *, replaced: bool) -> None:
        """Carry out one transaction of the lease tables."""
        self.tables = state.plain()
        self.saved_upto = state.applied_upto
        state.forget_changes()
        if replaced:
            self.snapshot_upto = state.applied_upto

    def lease_state(self) -> LeaseState:
        """Return the lease state as it was last saved."""
        return LeaseState() if self.tables is None else LeaseState.restore(dumps(self.tables))

    def reconcile(self) -> None:
        """Do what `Journal.reconcile` does: forget the votes below a snapshot that was installed before a crash."""
        if self.snapshot_upto > self.truncated_upto:
            self.commit([Truncate(self.snapshot_upto)])

    def acceptor(self, node: int, members: tuple[int, ...], applied_upto: int) -> Acceptor:
        """Return the acceptor that starts from this journal."""
        votes = [self.votes[slot] for slot in sorted(self.votes)]
        return Acceptor(node, members, self.promised, votes, self.truncated_upto, self.watermark, applied_upto)
