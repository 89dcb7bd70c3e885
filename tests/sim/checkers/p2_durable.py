"""P2: whatever a message claims was on disk before the message left."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lessor.core.effects import Address, Send
from lessor.core.messages import Accept, Accepted, Chosen, Fetched, Learn, Prepare, Promise, Refuse, Vote, Watermark

from ..disk import Disk
from .base import Checker

if TYPE_CHECKING:
    from ..node import Node


class Durable(Checker):
    """Holds each word of an acceptor, and each ballot of a proposer, against the node's own disk."""

    promise = "P2"

    def acceptor_sends(self, node: "Node", sends: Sequence[Send]) -> None:
        """Look at what is claimed, when it leaves."""
        disk = node.disk
        for send in sends:
            match send.message:
                case Promise(ballot, _, _, votes, _, truncated_upto):
                    held = all(_known(disk, vote) for vote in votes)
                    held = held and disk.promised >= ballot and disk.truncated_upto >= truncated_upto
                case Accepted(ballot, _, slot):
                    vote = disk.votes.get(slot)
                    held = disk.promised >= ballot and (
                        slot <= disk.truncated_upto or (vote is not None and vote.ballot >= ballot)
                    )
                case Learn(vote):
                    held = _known(disk, vote)
                case Chosen(vote):
                    mine = disk.votes.get(vote.slot)
                    held = (mine is not None and mine.entry == vote.entry) or vote.slot <= disk.truncated_upto
                case Refuse(_, _, promised):
                    held = disk.promised >= promised
                case Fetched(_, votes, _):
                    held = all(_known(disk, vote) for vote in votes)
                case Watermark(ballot, _):
                    held = disk.promised >= ballot
                case _:
                    held = True
            if not held:
                raise self.fail(f"acceptor {node.number} says what is not on its disk: {send.message}")

    def proposer_sends(self, node: "Node", sends: Sequence[Send]) -> None:
        """A ballot that others hear of was promised by the node's own acceptor first: a restart cannot use it twice."""
        for send in sends:
            message = send.message
            if type(message) not in (Prepare, Accept) or type(send.to) is not Address or send.to.node == node.number:
                continue
            if node.disk.promised < message.ballot:
                raise self.fail(
                    f"proposer {node.number} uses ballot {message.ballot}, which its own disk does not know"
                )


def _known(disk: Disk, vote: Vote) -> bool:
    """Return whether a vote is on the disk; the same transaction may have replaced it, or forgotten it as chosen."""
    mine = disk.votes.get(vote.slot)
    return vote.slot <= disk.truncated_upto or (mine is not None and (mine == vote or mine.ballot > vote.ballot))
