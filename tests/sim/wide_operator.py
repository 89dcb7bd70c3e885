"""The operator of a wide world, who empties it when it heals: else a pin, say, would keep others waiting for ever."""

from typing import TYPE_CHECKING, Any

from lessor.core.commands import CreateNamespace, DropNamespace, NamespaceConfig

from .application import Application
from .client import SimClient
from .clock import MS
from .history import Op
from .wide_board import NAMESPACES

if TYPE_CHECKING:
    from .world import World


class Operator(Application):
    """A program that drops every namespace, until it is done."""

    def _think(self) -> None:
        """Do nothing of itself."""

    def sweep(self) -> None:
        """Make each namespace, if need be, and drop it with all that is in it."""
        for name in dict.fromkeys(NAMESPACES):
            self._insist(self._begin("sweep", name), CreateNamespace(name, NamespaceConfig()))

    def _insist(self, op: Op, operation: CreateNamespace | DropNamespace) -> None:
        client = self.client
        client.protocol.now_ms = client.now_ms

        def done(outcome: Any) -> None:
            if isinstance(operation, CreateNamespace):
                self._insist(op, DropNamespace(operation.name, force=True))  # it may exist
            elif isinstance(outcome, BaseException):
                after_us = self.world.now_us + 20 * MS
                self.world.at(after_us, self._insist, op, CreateNamespace(operation.name, NamespaceConfig()))
            else:
                self._end(op, outcome)

        client.protocol.call(operation, done, self._deadline())
        client.wake()


class Sweeper:
    """Has an operator come when a wide world heals, and stay until all is empty."""

    def __init__(self, world: "World", number: int) -> None:
        """Have the operator begin."""
        self.world = world
        program, world.program = world.program, Operator
        self.client = SimClient(world, number)
        world.program = program
        self.app = self.client.app
        assert isinstance(self.app, Operator)
        self.app.sweep()

    def finish(self, patience_ms: int) -> None:
        """Empty everything once more when nobody can add to it any more."""
        app, world = self.app, self.world
        world._demand("every other session ends", lambda: world.referee.state.sessions <= 1, patience_ms)
        world._demand("the operator is done", lambda: not app.open_calls, patience_ms)
        assert isinstance(app, Operator)
        app.sweep()
        world._demand("the operator is done again", lambda: not app.open_calls, patience_ms)
        lapses = world.referee.state.lapses
        opened = lambda: not any(record.closed_until_ms for record in lapses.records())  # noqa: E731
        world._demand("no name is closed any more", opened, patience_ms)
        app.close()
        world._demand("the operator has closed", lambda: not app.open_calls, patience_ms)
