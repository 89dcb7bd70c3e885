"""The journal of one node: what its acceptor has promised and accepted, on the disk before anybody hears of it (P2).

A disk may lose the write of one page, or put one page in the place of another, and what it then gives back was good
once: rows with right checksums, in a tree in good order. So no page is trusted for itself. The state holds the sum of
the checksums of all votes; and a commit that changes the state alone is numbered, there and in a table of its own,
which lies in another page.
"""

import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, Final, Self

import sqlite_utils

from ..core.ballot import NO_BALLOT, Ballot
from ..core.messages import Truncate, Vote, WritePromise, WriteVote, WriteWatermark
from .database import PAGE_BYTES, Database, Owner, checksum, new_schema
from .failures import damaged

JournalWrite = WritePromise | WriteVote | WriteWatermark | Truncate

SCHEMA: Final = new_schema("journal", irreplaceable=True)

ROW_BYTES: Final = 32
"""What a vote takes up on disk beside its entry, about."""

DELETED_ROW_BYTES: Final = 256
"""What the deletion of a vote adds to the log, about: it rewrites pages that are then free, but not what overflowed."""

_STATE: Final = (
    "id", "promised_counter", "promised_node", "truncated_upto", "watermark_counter", "watermark_node", "chosen_upto",
    "votes_sum", "turn",
)  # fmt: skip
_PUT_STATE: Final = f"INSERT OR REPLACE INTO state ({', '.join(_STATE)}, checksum) VALUES ({'?, ' * len(_STATE)}?)"  # noqa: S608
_PUT_WITNESS: Final = "INSERT OR REPLACE INTO witness (id, turn, checksum) VALUES (1, ?, ?)"
_PUT_VOTE: Final = "INSERT OR REPLACE INTO votes (slot, counter, node, entry, checksum) VALUES (?, ?, ?, ?, ?)"
_SUM_OF_ONE: Final = "SELECT checksum FROM votes WHERE slot = ?"
_SUM_UPTO: Final = "SELECT coalesce(sum(checksum), 0) FROM votes WHERE slot <= ?"
_LAST: Final = "SELECT coalesce(max(slot), 0) FROM votes"
_FORGET: Final = "DELETE FROM votes WHERE slot <= ?"
_ALL_VOTES: Final = "SELECT slot, counter, node, entry, checksum FROM votes ORDER BY slot"
_HEAD: Final = Struct(">QQQ")


@SCHEMA.migrations()
def m001_votes(db: sqlite_utils.Database) -> None:
    """Make the votes, whose rows lie in the order of their slots, the one row of everything else, and its witness."""
    # the checksum before the entry: it can be read without the pages into which a long entry overflows
    votes = {"slot": int, "counter": int, "node": int, "checksum": int, "entry": bytes}
    db.table("votes").create(votes, pk="slot", not_null=votes.keys() - {"slot"})
    db.table("state").create(dict.fromkeys((*_STATE, "checksum"), int), pk="id", not_null={*_STATE[1:], "checksum"})
    witness = {"id": int, "turn": int, "checksum": int}
    db.table("witness").create(witness, pk="id", not_null={"turn", "checksum"})


@dataclass(frozen=True, slots=True)
class JournalContents:
    """What an acceptor starts from. The votes are in the order of their slots."""

    promised: Ballot
    votes: list[Vote]
    truncated_upto: int
    watermark: tuple[Ballot, int]


class Journal:
    """The open journal, for the one thread that opened it. No other process can even read it meanwhile.

    The space of forgotten votes is used again by later ones, so the file stays as large as it ever was, which the
    limits on what is retained bound. Giving the space back would mean to move pages about with every truncation.
    """

    def __init__(self, path: Path, owner: Owner) -> None:
        """Open the journal of `owner`.

        Raises:
            ForeignDatabase: it belongs to somebody else, or was written by a newer version of lessor.
            Corrupt: it is damaged.
            StorageFailed: it cannot be opened, read or written.
        """
        self._database = Database(path, SCHEMA, owner.node, exclusive=True)
        try:
            self._database.require(owner)
            self._state = self._read_state()
            with self._database.reading():  # no vote is replaced in a slot behind it
                (self._last_slot,) = self._database.connection.execute(_LAST).fetchone()
        except BaseException:
            self._database.close()
            raise

    @classmethod
    def create(cls, path: Path, owner: Owner) -> None:
        """Make an empty journal for `owner`, durably.

        Raises:
            StorageFailed: it cannot be written.
        """
        database = Database(path, SCHEMA, owner.node, create=True, exclusive=True)
        try:
            with database.transaction as connection:
                database.write_owner(owner)
                state = (1, *NO_BALLOT, 0, *NO_BALLOT, 0, 0, 0)
                connection.execute(_PUT_STATE, (*state, checksum(*state)))
                connection.execute(_PUT_WITNESS, (0, checksum(1, 0)))
            database.checkpoint("TRUNCATE")
        finally:
            database.close()

    def load(self) -> JournalContents:
        """Check the file and return what it holds.

        Raises:
            Corrupt: the file is damaged; nothing of it can be trusted.
            StorageFailed: it cannot be read, or the journal has failed before.
        """
        database = self._database
        database.check()
        self._state = self._read_state()
        _, counter, node, truncated_upto, watermark_counter, watermark_node, chosen_upto, votes_sum, turn = self._state
        if database.read_row("witness", ("id", "turn")) != (1, turn):
            raise damaged(database.path, database.node, "what it has promised is not what was written last")
        found = 0
        votes = []
        with database.reading(), closing(database.connection.execute(_ALL_VOTES)) as rows:
            for row in rows:
                votes.append(self._vote(row))
                found += row[-1]
        if found != votes_sum:
            raise damaged(database.path, database.node, "its votes are not those that were written last")
        if votes and votes[0].slot <= truncated_upto:
            raise damaged(database.path, database.node, f"slot {votes[0].slot} is there, although it was forgotten")
        return JournalContents(
            promised=Ballot(counter, node),
            votes=votes,
            truncated_upto=truncated_upto,
            watermark=(Ballot(watermark_counter, watermark_node), chosen_upto),
        )

    def commit(self, writes: Sequence[JournalWrite]) -> None:
        """Make all of these durable, in this order, in one transaction: when it returns, they are on the disk.

        After a failure every later call fails, too: what a failed sync has left on the disk is not known.

        Raises:
            StorageFailed: it may or may not have been written; the node must stop.
            Corrupt: the file was found to be damaged; the node must stop.
        """
        if not writes:
            return
        _, *promised, truncated_upto, watermark_counter, watermark_node, chosen_upto, votes_sum, turn = self._state
        watermark = (watermark_counter, watermark_node)
        forget_upto = size = 0
        rows: dict[int, tuple[int, int, int, bytes, int]] = {}
        for write in writes:
            match write:
                case WriteVote(vote):
                    slot, (counter, node), entry = vote.slot, vote.ballot, vote.entry
                    rows[slot] = (slot, counter, node, entry, _checksum_of_vote(slot, counter, node, entry))
                    size += len(entry) + ROW_BYTES
                case WriteWatermark(ballot, chosen_upto):
                    watermark = ballot
                case WritePromise(ballot):
                    promised = [*ballot]
                case Truncate(upto):
                    # what was accepted before goes, what is accepted after stays: so the deletion may come first
                    rows = {slot: row for slot, row in rows.items() if slot > upto}
                    forget_upto = max(forget_upto, upto)
        truncated_upto = max(truncated_upto, forget_upto)
        with self._database.transaction as connection:
            execute = connection.execute
            if forget_upto:
                votes_sum -= execute(_SUM_UPTO, (forget_upto,)).fetchone()[0]
                size += execute(_FORGET, (forget_upto,)).rowcount * DELETED_ROW_BYTES
            for slot, row in rows.items():
                if slot <= self._last_slot:
                    votes_sum -= sum(execute(_SUM_OF_ONE, (slot,)).fetchone() or ())
                execute(_PUT_VOTE, row)
                votes_sum += row[-1]
                self._last_slot = max(self._last_slot, slot)
            state = (1, *promised, truncated_upto, *watermark, chosen_upto, votes_sum, turn)
            if state != self._state:
                if votes_sum == self._state[-2]:  # nothing in the votes would tell if the page of the state were lost
                    state = (*state[:-1], turn + 1)
                    execute(_PUT_WITNESS, (turn + 1, checksum(1, turn + 1)))
                execute(_PUT_STATE, (*state, checksum(*state)))
        self._state = state
        self._database.wrote(size + 2 * PAGE_BYTES)

    def reconcile(self, contents: JournalContents, applied_upto: int, snapshot_upto: int) -> JournalContents:
        """Return what the acceptor starts from, given up to which slot the lease tables are applied.

        A node that died between installing a snapshot, which ended at `snapshot_upto`, and truncating its journal
        still has votes below it that never were chosen, and would serve them as chosen: they are forgotten now.

        Raises:
            Corrupt: the lease tables and the journal do not meet: one of them has lost something.
            StorageFailed: the truncation may or may not have been written.
        """
        database = self._database
        if snapshot_upto > contents.truncated_upto:
            self.commit([Truncate(snapshot_upto)])
            votes = [vote for vote in contents.votes if vote.slot > snapshot_upto]
            contents = JournalContents(contents.promised, votes, snapshot_upto, contents.watermark)
        truncated_upto = contents.truncated_upto
        if applied_upto < truncated_upto:
            raise damaged(
                database.path,
                database.node,
                f"it begins after slot {truncated_upto}, and the lease tables beside it end with slot {applied_upto}",
            )
        # a slot is applied after it is in the journal, and forgotten after what it did is in the lease tables
        held = sum(vote.slot <= applied_upto for vote in contents.votes)
        if held < applied_upto - truncated_upto:
            raise damaged(
                database.path,
                database.node,
                f"the lease tables beside it hold slots up to {applied_upto} of which it has no trace",
            )
        return contents

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._database.close()

    def __enter__(self) -> Self:
        """Return the journal, to be closed after the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the journal."""
        self.close()

    def _read_state(self) -> tuple[Any, ...]:
        row = self._database.read_row("state", _STATE)
        if row is None:
            raise damaged(self._database.path, self._database.node, "what it has promised is not there")
        return row

    def _vote(self, row: tuple[Any, ...]) -> Vote:
        slot, counter, node, entry, stored = row
        whole = type(entry) is bytes and all(type(number) is int and number >= 0 for number in (slot, counter, node))
        if not whole or stored != _checksum_of_vote(slot, counter, node, entry):
            raise damaged(self._database.path, self._database.node, f"the vote in slot {slot} is wrong")
        return Vote(slot, Ballot(counter, node), entry)


def _checksum_of_vote(slot: int, counter: int, node: int, entry: bytes) -> int:
    return zlib.crc32(entry, zlib.crc32(_HEAD.pack(slot, counter, node)))
