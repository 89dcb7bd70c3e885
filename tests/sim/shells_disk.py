"""The real data directory of a simulated node, watched: each commit is the world's to fail, and no commit is lost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lessor.core.effects import Role
from lessor.core.lease_state import LeaseState
from lessor.storage.directory import DataDirectory, Identity
from lessor.storage.journal import Journal, JournalContents
from lessor.storage.lease_tables import LeaseTables

if TYPE_CHECKING:
    from .shells import ShellNode


class WatchedJournal(Journal):
    """The journal; after a crash it must hold just what it held."""

    node: "ShellNode"

    def load(self) -> JournalContents:
        """Return what it holds, which must be what was committed."""
        contents, disk = super().load(), self.node.disk
        found = (contents.promised, contents.votes, contents.truncated_upto, contents.watermark)
        votes = [disk.votes[slot] for slot in sorted(disk.votes)]
        if found != (disk.promised, votes, disk.truncated_upto, disk.watermark):
            raise self.node.world.violated("P2", f"the journal of node {self.node.number} is not as it was left")
        return contents

    def commit(self, writes: Sequence[Any]) -> None:
        """Commit, if the world lets it."""
        commit = super().commit
        self.node.commit(Role.ACCEPTOR, writes, lambda: commit(writes))


class WatchedTables(LeaseTables):
    """The lease tables."""

    node: "ShellNode"

    def save(self, state: LeaseState) -> None:
        """Save, if the world lets it."""
        save = super().save
        self.node.commit(Role.LEARNER, (), lambda: save(state))

    def replace(self, state: LeaseState) -> None:
        """Replace what they hold, if the world lets it."""
        replace = super().replace
        self.node.commit(Role.LEARNER, (), lambda: replace(state), replaced=True)


class WatchedDirectory(DataDirectory):
    """A data directory whose journal and lease tables are watched."""

    def __init__(self, path: Path | str, identity: Identity, node: "ShellNode") -> None:
        """Open it for `node`."""
        self.node = node
        super().__init__(path, identity)

    def open_journal(self) -> Journal:
        """Return the journal, watched."""
        journal = WatchedJournal(self._journal_db, self._owner)
        journal.node = self.node
        return journal

    def open_lease_tables(self) -> LeaseTables:
        """Return the lease tables, watched."""
        tables = WatchedTables(self._leases_db, self._owner)
        tables.node = self.node
        return tables
