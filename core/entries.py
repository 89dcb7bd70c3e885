"""The entries of the log: what is chosen in a slot. (DESIGN §5, "terms in the log".)"""

from dataclasses import dataclass
from typing import Annotated

from . import limits
from .ballot import Ballot
from .encoding import MaxBytes, MaxItems, wire

CommandBytes = Annotated[bytes, MaxBytes(limits.BATCH_BYTES_MAX)]


@wire(30)
@dataclass(frozen=True, slots=True)
class Batch:
    """Commands of the leader of `term`, stamped with the milliseconds that it has led, by its monotonic clock.

    It has effect only while `term` is the latest `Lead` before it in the log: a straggler that a later leader finds
    and adopts was never chosen in its own time, and its stamp belongs to another line of time.
    """

    term: Ballot
    elapsed_ms: int
    commands: Annotated[tuple[CommandBytes, ...], MaxItems(limits.BATCH_COMMANDS_MAX)]


@wire(31)
@dataclass(frozen=True, slots=True)
class Lead:
    """The leader of `ballot` has re-proposed all that phase 1 found; its own batches follow."""

    ballot: Ballot


@wire(32)
@dataclass(frozen=True, slots=True)
class NoOp:
    """Fills a slot in which phase 1 found nothing, below one in which it found something."""


Entry = Batch | Lead | NoOp
