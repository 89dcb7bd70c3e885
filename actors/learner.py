"""The learner's shell: keeps the lease tables, and publishes the feed from its own thread."""

from collections.abc import Sequence
from typing import Any

from ..core import limits
from ..core.effects import Role
from ..core.learner import Events, Learner
from ..core.messages import ReplaceState, SaveState
from ..storage.directory import DataDirectory
from ..storage.lease_tables import LeaseTables
from ..transport.feed import FeedPublisher
from ..transport.sockets import Socket
from .inbox import Batch
from .links import Links
from .shell import Fate, Shell


class FeedRef:
    """The feed, told like any other role; it is published in the thread of the learner."""

    def __init__(self, feed: FeedPublisher) -> None:
        """Wrap the publisher."""
        self.feed = feed

    def tell(self, message: Events) -> None:
        """Publish events."""
        self.feed.publish(message.events)


class LearnerShell(Shell):
    """Owns the lease tables. They are written behind the answers: the journal can replay what they lack."""

    role_name = "learner"

    def __init__(
        self,
        fate: Fate,
        links: Links,
        port: Socket,
        feed: FeedPublisher,
        members: tuple[int, ...],
        directory: DataDirectory,
    ) -> None:
        """Take over the bound ports; the tables are opened in the actor's thread."""
        super().__init__(fate, links)
        self.port = port
        self.feed = feed
        self.members = members
        self.directory = directory
        self.tables: LeaseTables | None = None

    def set_up(self) -> Any:
        """Open the tables and build the core from them."""
        self.tables = self.directory.open_lease_tables()
        self.core = Learner(self.links.sender.node, self.members, self.tables.load())
        self.links.locals[Role.FEED] = FeedRef(self.feed)
        self.links.connect(Role.ACCEPTOR, Role.LEARNER)
        self.inbox.read_from(self.port, self.links.reader(self.port, Role.LEARNER, self.guard(self.port)))
        self.guard(self.feed.socket, in_all=limits.FEED_READER_BYTES_MAX)
        self.links.tallies.put("state_bytes", self.core.state.book.room.taken)
        return self.core.applied_upto, self.tables.snapshot_upto

    def on_receive(self, batch: Batch) -> None:
        """Do what every shell does, and tell the operator what the core complains of."""
        super().on_receive(batch)
        if self.core.complaint:
            self.links.tallies.complain("snapshots_refused", self.core.complaint)
            self.core.complaint = ""

    def commit(self, writes: Sequence[Any]) -> None:
        """Write the lease state down as of now; several requests of one batch are one."""
        assert self.tables is not None
        self.directory.check()
        state = self.core.state
        if any(isinstance(write, ReplaceState) for write in writes):
            self.tables.replace(state)
        elif any(isinstance(write, SaveState) for write in writes):
            self.tables.save(state)
        self.links.tallies.put("state_bytes", state.book.room.taken)

    def finish(self) -> None:
        """Write the lease state down, so that the next start has nothing to replay."""
        assert self.tables is not None
        self.tables.save(self.core.state)

    def tear_down(self) -> None:
        """Close the tables and the ports."""
        if self.tables is not None:
            self.tables.close()
        self.port.close()
        self.feed.socket.close()
