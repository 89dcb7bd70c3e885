"""The acceptor's shell: one transaction of the journal for everything that has arrived."""

from collections.abc import Sequence
from typing import Any

from ..core.acceptor import Acceptor
from ..core.effects import Role
from ..storage.directory import DataDirectory
from ..storage.journal import Journal
from ..transport.sockets import Socket
from .links import Links
from .shell import Fate, Shell


class AcceptorShell(Shell):
    """Owns the journal."""

    role_name = "acceptor"

    def __init__(
        self,
        fate: Fate,
        links: Links,
        port: Socket,
        members: tuple[int, ...],
        directory: DataDirectory,
        learnt: tuple[int, int],
    ) -> None:
        """Take over the bound port; the journal is opened in the actor's thread.

        `learnt` is up to which slot the lease tables are applied, and the snapshot that they last began with.
        """
        super().__init__(fate, links)
        self.port = port
        self.members = members
        self.directory = directory
        self.applied, self.snapshot = learnt
        self.journal: Journal | None = None

    def set_up(self) -> Any:
        """Open the journal and build the core from it."""
        self.journal = self.directory.open_journal()
        kept = self.journal.reconcile(self.journal.load(), self.applied, self.snapshot)
        self.core = Acceptor(
            self.links.sender.node,
            self.members,
            promised=kept.promised,
            votes=kept.votes,
            truncated_upto=kept.truncated_upto,
            watermark=kept.watermark,
            applied_upto=self.applied,
        )
        self.links.connect(Role.PROPOSER, Role.ACCEPTOR, Role.LEARNER)
        self.inbox.read_from(self.port, self.links.reader(self.port, Role.ACCEPTOR, self.guard(self.port)))
        self.speak(self.core.recover().sends)
        return self.core.promised

    def commit(self, writes: Sequence[Any]) -> None:
        """Write and sync, all in one transaction."""
        assert self.journal is not None
        self.journal.commit(writes)
        self.links.tallies.count("journal_commits")
        self.links.tallies.count("journal_writes", len(writes))

    def tear_down(self) -> None:
        """Close the journal and the port."""
        if self.journal is not None:
            self.journal.close()
        self.port.close()
