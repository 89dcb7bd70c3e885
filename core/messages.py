"""The messages between the roles: those of Multi-Paxos, of leadership, of catch-up, and the local ones."""

from dataclasses import dataclass
from typing import Annotated

from . import limits
from .ballot import NO_BALLOT, Ballot
from .encoding import MaxBytes, MaxItems, wire

EntryBytes = Annotated[bytes, MaxBytes(limits.PACKET_BYTES_MAX)]
"""A log entry as its leader encoded it. Consensus never looks inside; only the learner decodes it."""


# --- phase 1 and phase 2 (Paxos Made Simple, §2.2; over many slots as in §3) -----------------------------------------


@wire(1)
@dataclass(frozen=True, slots=True)
class Prepare:
    """Phase 1a, for every slot from `from_slot` on. Repeated with a later `from_slot` to fetch the next page."""

    ballot: Ballot
    from_slot: int


@wire(2)
@dataclass(frozen=True, slots=True)
class Vote:
    """What an acceptor last accepted in a slot."""

    slot: int
    ballot: Ballot
    entry: EntryBytes


@wire(3)
@dataclass(frozen=True, slots=True)
class Promise:
    """Phase 1b: `node` will accept nothing below `ballot`, and this is what it has accepted from `from_slot` on.

    `next_page` is the slot at which the next page starts, 0 when this was the last one. Slots up to `truncated_upto`
    are chosen and forgotten: a candidate that has not applied them must not lead.
    """

    ballot: Ballot
    node: int
    from_slot: int
    votes: Annotated[tuple[Vote, ...], MaxItems(limits.PAGE_SLOTS)]
    next_page: int
    truncated_upto: int


@wire(4)
@dataclass(frozen=True, slots=True)
class Accept:
    """Phase 2a: accept `entry` in `slot` under `ballot`. Every slot up to `chosen_upto` is chosen."""

    ballot: Ballot
    slot: int
    entry: EntryBytes
    chosen_upto: int


@wire(5)
@dataclass(frozen=True, slots=True)
class Accepted:
    """Phase 2b, to the learner of the ballot's node: `node` has durably accepted in `slot` under `ballot`."""

    ballot: Ballot
    node: int
    slot: int


@wire(6)
@dataclass(frozen=True, slots=True)
class Refuse:
    """The answer to a Prepare, an Accept or a Heartbeat of an outdated ballot: `node` has promised `promised`."""

    ballot: Ballot
    node: int
    promised: Ballot


# --- leadership ------------------------------------------------------------------------------------------------------


@wire(7)
@dataclass(frozen=True, slots=True)
class PreVote:
    """Would you let `node` stand under `ballot`? Asked before any promise is disturbed (Ongaro's thesis, §9.6)."""

    ballot: Ballot
    node: int


@wire(8)
@dataclass(frozen=True, slots=True)
class PreVoteAnswer:
    """`node` hears no leader either (granted), or still does; `highest` is the highest ballot that it has seen."""

    ballot: Ballot
    node: int
    granted: bool
    highest: Ballot


@wire(9)
@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The leader of `ballot` is alive, and every slot up to `chosen_upto` is chosen."""

    ballot: Ballot
    chosen_upto: int


@wire(10)
@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """`node` follows the leader of `ballot` and has applied every slot up to `applied_upto`."""

    ballot: Ballot
    node: int
    applied_upto: int


# --- catch-up --------------------------------------------------------------------------------------------------------


@wire(11)
@dataclass(frozen=True, slots=True)
class Fetch:
    """To an acceptor: send `node` the chosen values from `from_slot` on."""

    node: int
    from_slot: int


@wire(12)
@dataclass(frozen=True, slots=True)
class Fetched:
    """To the acceptor of the one who asked: chosen values in slot order without a gap.

    Empty with `truncated_upto` at or above the slot asked for: only a snapshot from `node` can help.
    """

    node: int
    votes: Annotated[tuple[Vote, ...], MaxItems(limits.PAGE_SLOTS)]
    truncated_upto: int


@wire(13)
@dataclass(frozen=True, slots=True)
class FetchSnapshot:
    """To a learner: send `node` the piece at `offset` of the snapshot at `slot`.

    With `slot` 0, the first piece of any snapshot beyond slot `offset`, up to which `node` has applied everything.
    """

    node: int
    slot: int
    offset: int


@wire(14)
@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """A piece of the state after `slot`, `total` bytes long in all."""

    node: int
    slot: int
    offset: int
    total: int
    data: Annotated[bytes, MaxBytes(limits.SNAPSHOT_CHUNK_BYTES)]


# --- identity --------------------------------------------------------------------------------------------------------


@wire(15)
@dataclass(frozen=True, slots=True)
class Stranger:
    """To a node that is known here with another incarnation: it has lost its journal and must not come back as `node`.

    Heeded only by a node that has just begun with an empty directory, so that no forged packet stops a healthy one.
    """

    node: int
    incarnation: int


# --- local: between the roles of one node, never on the wire ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """The end of every batch of messages, and the wake-up of an idle role: `now` on the node's monotonic clock.

    What came before it in the batch arrived before `now`. `luck` is a random number in [0, 1): a core has no
    randomness of its own, as it has no clock.
    """

    now_ms: int
    luck: float = 0.5


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The connection to `node` broke. A hint, no more: a killed process closes its sockets at once."""

    node: int


@dataclass(frozen=True, slots=True)
class Submit:
    """From the gateway to the proposer: commands (encoded) to be chosen, if `ballot` still leads."""

    ballot: Ballot
    commands: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Nudge:
    """From the expiry timer to the proposer: a deadline is due, let a stamped batch follow soon."""


@dataclass(frozen=True, slots=True)
class Leadership:
    """From the proposer to the roles that must know: this node's role, and who leads under which ballot."""

    role: str  # "leader", "candidate", "follower"
    ballot: Ballot  # of the leader known, NO_BALLOT when none is
    leader: int  # 0: nobody is known to lead


@dataclass(frozen=True, slots=True)
class Learn:
    """From the acceptor to its own learner: this node has durably accepted this vote."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class Chosen:
    """From the acceptor to its own learner: this value is chosen and in the journal."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class Watermark:
    """To a learner: under `ballot`, every slot up to `chosen_upto` is chosen."""

    ballot: Ballot
    chosen_upto: int


@dataclass(frozen=True, slots=True)
class Behind:
    """From the proposer to its own learner: `node` knows every slot up to `chosen_upto` as chosen; catch up there."""

    node: int
    chosen_upto: int


@dataclass(frozen=True, slots=True)
class SnapshotNeeded:
    """From the acceptor to its own learner: `node` no longer has the slots that were asked for."""

    node: int


@dataclass(frozen=True, slots=True)
class Installed:
    """From the learner to its own acceptor: the lease state is durably at `slot` by a snapshot."""

    slot: int


@dataclass(frozen=True, slots=True)
class Progress:
    """From the learner: applied up to here; what is saved is durable in the lease tables."""

    applied_upto: int
    saved_upto: int
    ballot: Ballot = NO_BALLOT  # the highest under which anything applied was known as chosen


@dataclass(frozen=True, slots=True)
class NextDeadline:
    """From the learner to the expiry timer: the lease clock, and when on it the next thing is due (0: nothing)."""

    clock_ms: int
    deadline_ms: int


# --- writes: what a core asks to be made durable ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WritePromise:
    """Journal: promise nothing below `ballot`."""

    ballot: Ballot


@dataclass(frozen=True, slots=True)
class WriteVote:
    """Journal: this vote replaces whatever was accepted in its slot before."""

    vote: Vote


@dataclass(frozen=True, slots=True)
class WriteWatermark:
    """Journal: as far as `chosen_upto`, the votes under `ballot` are chosen (read again after a restart)."""

    ballot: Ballot
    chosen_upto: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Journal: forget every slot up to and including `upto`."""

    upto: int


@dataclass(frozen=True, slots=True)
class SaveState:
    """Lease state: write down what changed since the last time, with the slot and clock it belongs to."""


@dataclass(frozen=True, slots=True)
class ReplaceState:
    """Lease state: replace everything by the state just restored from a snapshot."""
