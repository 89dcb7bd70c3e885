"""What a checker is: a promise, and what it looks at while a world runs. Each may be left out by its name."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from lessor.core.effects import Role, Send
from lessor.core.entries import Entry
from lessor.core.events import Event
from lessor.core.lease_state import LeaseState, Outcome

if TYPE_CHECKING:
    from ..client import SimClient
    from ..history import Op
    from ..node import Node
    from ..world import World


_as_json = json.JSONEncoder(default=lambda data: {"bytes": data.hex()}, check_circular=False).encode


def exactly(state: LeaseState) -> str:
    """Return a text that is the same for two states just if their snapshots are, in two thirds of the time."""
    return _as_json(state.plain())


class Violated(AssertionError):
    """A promise was broken; the text says which, when and how."""

    def __init__(self, promise: str, what: str) -> None:
        """Name the promise by its number, or what else was demanded."""
        super().__init__(f"{promise}: {what}")
        self.promise = promise


class Checker:
    """Looks at a world. A subclass defines the hooks that it needs; those that it does not define cost nothing."""

    promise = ""
    wide: ClassVar[bool | None] = None
    """True: it looks at wide worlds only. False: at narrow ones only, where claims are exclusive and of one name."""

    def __init__(self, world: "World") -> None:
        """Look at `world` from its beginning."""
        self.world = world

    def fail(self, what: str) -> Violated:
        """Return the failure, to be raised."""
        return self.world.violated(self.promise, what)

    def started(self, node: "Node") -> None:
        """A node started from its disk."""

    def committed(self, node: "Node", writes: Sequence[Any]) -> None:
        """A transaction of a journal is on the disk."""

    def acceptor_sends(self, node: "Node", sends: Sequence[Send]) -> None:
        """An acceptor speaks."""

    def proposer_sends(self, node: "Node", sends: Sequence[Send]) -> None:
        """A proposer speaks."""

    def applied(self, node: "Node", slot: int, entry: bytes) -> None:
        """A node applied a slot."""

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """A slot was applied for the first time anywhere; this is what it brought about."""

    def events(self, node: "Node", events: Sequence[Event]) -> None:
        """A node published events."""

    def client_turn(self, client: "SimClient") -> None:
        """A client's engine has run, at the time that its clock shows."""

    def began(self, op: "Op") -> None:
        """A client's program began a call."""

    def ended(self, op: "Op") -> None:
        """A call of a client's program ended."""

    def hostile(self, node: "Node", what: str, reached: Sequence[Any], counted: int, error: Exception | None) -> None:
        """A node has read a packet that nobody sent in good faith: what reached a role, and what it counted."""

    def role_failed(self, node: "Node", role: Role, error: Exception) -> None:
        """A core raised an error, and so the node ends."""

    def finished(self) -> None:
        """The world has converged and every client has closed."""


HOOKS = tuple(name for name in vars(Checker) if not name.startswith("_") and name not in ("promise", "fail", "wide"))


class Hooks:
    """For each hook, the checkers that define it."""

    started: list[Checker]
    committed: list[Checker]
    acceptor_sends: list[Checker]
    proposer_sends: list[Checker]
    applied: list[Checker]
    outcome: list[Checker]
    events: list[Checker]
    client_turn: list[Checker]
    began: list[Checker]
    ended: list[Checker]
    hostile: list[Checker]
    role_failed: list[Checker]
    finished: list[Checker]

    def __init__(self, checkers: Sequence[Checker]) -> None:
        """Sort the checkers by what they look at."""
        for name in HOOKS:
            using = [checker for checker in checkers if getattr(type(checker), name) is not getattr(Checker, name)]
            setattr(self, name, using)
