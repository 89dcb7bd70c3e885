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
            op = self._begin("sweep", name)
            self._insist(op, (CreateNamespace(name, NamespaceConfig()), DropNamespace(name, force=True)))

    def _insist(self, op: Op, operations: tuple[Any, ...]) -> None:
        client = self.client
        client.protocol.now_ms = client.now_ms

        def done(outcome: Any) -> None:
            exists = isinstance(operations[0], CreateNamespace) and not getattr(outcome, "indefinite", False)
            if isinstance(outcome, BaseException) and not exists:
                self.world.at(self.world.now_us + 20 * MS, self._insist, op, operations)
            elif operations[1:]:
                self._insist(op, operations[1:])
            else:
                self._end(op, outcome)

        client.protocol.call(operations[0], done, self._deadline())
        client.wake()


class Sweeper:
    """Has an operator come when a wide world heals, and stay until all is empty."""

    def __init__(self, world: "World", number: int) -> None:
        """Have the operator begin."""
        self.world = world
        program, world.program = world.program, Operator
        self.client = SimClient(world, number)
        world.program = program
        self.app: Any = self.client.app
        self.app.sweep()

    def finish(self, patience_ms: int) -> None:
        """Empty everything once more when nobody can add to it any more."""
        app, world = self.app, self.world
        world._demand("every other session ends", lambda: world.referee.state.sessions <= 1, patience_ms)
        world._demand("the operator is done", lambda: not app.open_calls, patience_ms)
        app.sweep()
        world._demand("the operator is done again", lambda: not app.open_calls, patience_ms)
        app.close()
        world._demand("the operator has closed", lambda: not app.open_calls, patience_ms)
