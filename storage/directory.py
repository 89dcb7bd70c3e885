"""The data directory of one node: whose it is, who uses it, which peers it has met, and that all of it is there.

It holds `lock`, `node.db`, `journal.db` and `leases.db`. All three databases carry the incarnation, a random number
drawn when the directory was made: a part that was lost, or put back from a copy of another directory, is noticed. So
is a peer that lost its directory and came back empty under its old number: its incarnation is a new one.
"""

import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import sqlite_utils

from ..core.encoding import INT_MAX
from ..core.errors import ForeignDatabase
from .database import Database, Owner, checksum, lost, new_schema
from .failures import StorageFailed, damaged, unusable
from .journal import Journal
from .lease_tables import LeaseTables

SCHEMA: Final = new_schema("node", irreplaceable=True)


@SCHEMA.migrations()
def m001_cluster(db: sqlite_utils.Database) -> None:
    """Make the row that says of which members the cluster is, and the roster of the node itself and the peers met."""
    cluster = {"id": int, "members": str, "roster_sum": int, "checksum": int}
    db.table("cluster").create(cluster, pk="id", not_null=cluster.keys() - {"id"})
    roster = {"node": int, "incarnation": int, "checksum": int}
    db.table("roster").create(roster, pk="node", not_null=roster.keys() - {"node"})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is: its number, its cluster's name, and the numbers of all members, itself among them."""

    cluster: str
    node: int
    members: tuple[int, ...]


class DataDirectory:
    """An open data directory. It is this process's alone until it is closed."""

    def __init__(self, path: Path | str, identity: Identity) -> None:
        """Open the directory, or make it.

        Raises:
            ForeignDatabase: another process uses it; or it belongs to another node, cluster or list of members, or to
                a newer version of lessor; or a part of it was lost. The text names the file and the remedy.
            Corrupt: `node.db` is damaged.
            StorageFailed: it cannot be made, read or written.
        """
        self.path: Final = Path(path)
        self.identity: Final = identity
        self.fresh = False
        """Whether this opening has made the directory, so that nothing was ever promised by it."""
        self._node_db = self.path / "node.db"
        self._journal_db = self.path / "journal.db"
        self._leases_db = self.path / "leases.db"
        self._meeting = threading.Lock()
        try:
            _make_directory(self.path)
            self._lock = _take_lock(self.path / "lock", identity.node)
        except OSError as error:
            raise unusable(error, self.path) from error
        try:
            self._database = self._open_node_db()
            try:
                self._owner = self._find_owner()
                self._require_members()
                self._roster = self._read_roster()
                if not self._roster:
                    self._complete()
                self._require_the_others()
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def incarnation(self) -> int:
        """A random number of 63 bits, drawn when the directory was made, never 0."""
        return self._owner.incarnation

    def _open_node_db(self) -> Database:
        others = self._journal_db.exists() or self._leases_db.exists()
        if others and not self._node_db.exists():
            raise lost(self._node_db, self.identity.node, "is not there")
        return Database(self._node_db, SCHEMA, self.identity.node, create=not others, any_thread=True)

    def _find_owner(self) -> Owner:
        self._database.check()
        found = self._database.owner()
        if found is None:
            return self._claim()
        owner = Owner(self.identity.cluster, self.identity.node, found.incarnation)
        self._database.require(owner)
        return owner

    def _require_the_others(self) -> None:
        for path in (self._journal_db, self._leases_db):
            if not path.exists():
                raise lost(path, self.identity.node, "is not there")
        self.open_journal().close()
        self.open_lease_tables().close()

    # --- the first opening -------------------------------------------------------------------------------------------

    def _claim(self) -> Owner:
        if self._journal_db.exists() or self._leases_db.exists():
            raise lost(self._node_db, self.identity.node, "is empty")
        owner = Owner(self.identity.cluster, self.identity.node, 1 + secrets.randbelow(INT_MAX))
        with self._database.transaction:
            self._database.write_owner(owner)
            self._write_cluster(roster_sum=0)
        return owner

    def _complete(self) -> None:
        """Make the databases beside `node.db`.

        As long as the node does not stand in its own roster, no opening has ever returned, so nothing was promised:
        what a first opening has left that was interrupted may be thrown away.
        """
        for path in (self._journal_db, self._leases_db):
            for part in ("", "-wal", "-shm", "-journal"):
                path.with_name(path.name + part).unlink(missing_ok=True)
        Journal.create(self._journal_db, self._owner)
        LeaseTables.create(self._leases_db, self._owner)
        _sync_directory(self.path)
        self._write_roster(self.identity.node, self.incarnation)
        self.fresh = True

    def _write_cluster(self, *, roster_sum: int) -> None:
        row = (1, json.dumps(sorted(self.identity.members)), roster_sum)
        self._database.connection.execute("INSERT OR REPLACE INTO cluster VALUES (?, ?, ?, ?)", (*row, checksum(*row)))

    def _read_cluster(self) -> tuple[str, int]:
        row = self._database.read_row("cluster", ("id", "members", "roster_sum"))
        if row is None:
            raise damaged(self._node_db, self.identity.node, "it does not say of which nodes the cluster is")
        _, text, roster_sum = row
        return text, roster_sum

    def _require_members(self) -> None:
        text, _ = self._read_cluster()
        members, ours = json.loads(text), sorted(self.identity.members)
        if members != ours:
            raise ForeignDatabase(
                f"{self._node_db} belongs to a cluster of the nodes {_listed(members)}, this is one of {_listed(ours)}:"
                " start the node with the members it was made with, or give --data another directory"
            )

    # --- the roster --------------------------------------------------------------------------------------------------

    def meet(self, node: int, incarnation: int) -> bool:
        """Return whether `node` may be talked to: it is a member, and its incarnation is the one first met.

        The first meeting is on the disk before it is answered. May be called by any thread, and for each packet.

        Raises:
            StorageFailed: the first meeting may or may not have been written; the node must stop.
        """
        known = self._roster.get(node)
        if known is not None:
            return known == incarnation
        if node not in self.identity.members or not 0 < incarnation <= INT_MAX:
            return False
        with self._meeting:
            known = self._roster.get(node)  # another thread may have met it meanwhile
            if known is None:
                self._write_roster(node, incarnation)
                known = incarnation
        return known == incarnation

    def known_incarnation(self, node: int) -> int | None:
        """Return the incarnation that `node` was first met with, None if it was not met yet."""
        return self._roster.get(node)

    def _read_roster(self) -> dict[int, int]:
        """Return the incarnations of all who were met, none as long as the first opening has not come to its end.

        A page that went back to what it was is noticed, as in the journal: a directory that took itself for one never
        completed would throw its journal away, and with it all that the node has promised.
        """
        roster: dict[int, int] = {}
        found = 0
        with self._database.reading():
            rows = self._database.connection.execute("SELECT node, incarnation, checksum FROM roster").fetchall()
        for node, incarnation, stored in rows:
            if checksum(node, incarnation) != stored:
                raise damaged(self._node_db, self.identity.node, f"the row of node {node} in its roster is wrong")
            roster[node] = incarnation
            found += stored
        if found != self._read_cluster()[1]:
            raise damaged(self._node_db, self.identity.node, "its roster is not the one that was written last")
        return roster

    def _write_roster(self, node: int, incarnation: int) -> None:
        row = (node, incarnation)
        row_sum = checksum(*row)
        with self._database.transaction as connection:
            connection.execute("INSERT INTO roster VALUES (?, ?, ?)", (*row, row_sum))
            self._write_cluster(roster_sum=self._read_cluster()[1] + row_sum)
        self._roster[node] = incarnation

    # --- the databases beside ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise if the directory is not there any more: what is written goes to files that nobody will find again.

        Raises:
            StorageFailed: it was removed, or replaced by another.
        """
        try:
            there = (self.path / "lock").stat().st_ino == os.fstat(self._lock).st_ino
        except OSError:
            there = False
        if not there:
            raise StorageFailed(
                f"the data directory {self.path} was removed or replaced while the node was using it; "
                "put it back and start the node again"
            )

    def open_journal(self) -> Journal:
        """Return the journal, opened for the calling thread, which must also close it.

        Raises:
            ForeignDatabase: it is not the journal that was made with this directory.
            Corrupt: it is damaged.
            StorageFailed: it cannot be opened, read or written.
        """
        return Journal(self._journal_db, self._owner)

    def open_lease_tables(self) -> LeaseTables:
        """Return the lease tables, opened for the calling thread, which must also close them.

        Raises:
            ForeignDatabase: they are not the lease tables that were made with this directory.
            Corrupt: they are damaged.
            StorageFailed: they cannot be opened, read or written.
        """
        return LeaseTables(self._leases_db, self._owner)

    def close(self) -> None:
        """Let go of the directory, after its journal and lease tables were closed; may be called twice."""
        if self._lock >= 0:
            self._database.close()
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        """Return the directory, to be closed after the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the directory."""
        self.close()


def _listed(nodes: Iterable[int]) -> str:
    return ", ".join(map(str, nodes))


def _make_directory(path: Path) -> None:
    """Make the directory and those above it, durably; nobody but its user may read the session keys in it."""
    made = []
    while not path.exists():
        made.append(path)
        path = path.parent
    for directory in reversed(made):
        directory.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(directory.parent)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _take_lock(path: Path, node: int) -> int:
    """Return the descriptor of the lock file; the lock is held until it is closed.

    A lock of `flock` belongs to the open file: unlike one of `fcntl`, it also keeps out a second opening in the same
    process, and is not lost when that closes the file.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).decode("ascii", "replace").strip() or "unknown"
            raise ForeignDatabase(
                f"{path.parent} is in use by process {holder}: end that process, or give --data of node {node} "
                "another directory"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    except BaseException:
        os.close(lock)
        raise
    return lock
