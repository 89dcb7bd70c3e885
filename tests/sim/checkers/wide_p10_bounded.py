"""P10 for the whole lease model: what is there is held, waited for, pinned, written, created, or lapsed of late."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lessor.core import limits
from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome

from ..ledger import ENDINGS
from .base import Checker
from .wide_view import View, look, observes

if TYPE_CHECKING:
    from ..world import World


class WideBounded(Checker):
    """Counts everything, and walks through every queue."""

    promise = "P10"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with nothing."""
        super().__init__(world)
        self.alive: dict[int, None] = {}
        self.semaphores: dict[tuple[str, tuple[str, ...]], None] = {}
        self.namespaces: dict[str, None] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Compare what is there with what has come and gone."""
        _, view = look(self.world)
        for event in outcome.events:
            match event.kind:
                case "queued" | "granted":
                    self.alive[event.claim] = None
                case "semaphore_created":
                    self.semaphores[event.namespace, event.path] = None
                case "semaphore_deleted":
                    del self.semaphores[event.namespace, event.path]
                case "namespace_created":
                    self.namespaces[event.namespace] = None
                case "namespace_dropped":
                    del self.namespaces[event.namespace]
                    self.semaphores = {place: None for place in self.semaphores if place[0] != event.namespace}
                case kind if kind in ENDINGS:
                    self.alive.pop(event.claim, None)
                case _:
                    pass
        self._same("claims", [one.claim for one in view.claims.values() if not observes(one)], self.alive)
        self._same("semaphores", view.limits, self.semaphores)
        self._same("namespaces", view.configs, self.namespaces)
        self._look_at_lapses(view)
        self._look_at_queues(view)
        self._look_at_indexes(view)

    def _same(self, what: str, found: Any, wanted: Any) -> None:
        if sorted(found) != sorted(wanted):
            raise self.fail(f"there are the {what} {sorted(found)}, and there should be {sorted(wanted)}")

    def _look_at_lapses(self, view: View) -> None:
        opened = [lapsed for lapsed in view.lapses if not lapsed.closed_until_ms]
        if len(opened) > limits.LAPSED_MAX:
            raise self.fail(f"{len(opened)} leases that lapsed are remembered, more than {limits.LAPSED_MAX}")
        for lapsed in view.lapses:
            late = not lapsed.closed_until_ms and lapsed.ended_at_ms + limits.LAPSED_KEPT_MS < view.clock_ms
            if late and self.world.ledger.commands:  # the last batch has swept
                raise self.fail(f"{lapsed} is remembered too long, at {view.clock_ms} ms")
            if lapsed.closed_until_ms and lapsed.closed_until_ms <= view.clock_ms:
                raise self.fail(f"{lapsed} keeps its names closed, at {view.clock_ms} ms")

    def _look_at_queues(self, view: View) -> None:
        """Everybody stands in every queue of his and in no other; what is counted at each path is what is there."""
        wanted: list[tuple[str, str, tuple[str, ...], int]] = []
        for claim in view.claims.values():
            kind = "observers" if observes(claim) else "held" if claim.token else "waiting"
            wanted += [(claim.namespace, kind, resource.path, claim.claim) for resource in claim.resources]
        for lapsed in view.lapses:
            if lapsed.closed_until_ms:
                wanted += [(lapsed.namespace, "held", resource.path, lapsed.claim) for resource in lapsed.resources]
        queues = self.world.referee.state.claims.queues
        found = [
            (namespace, kind, path, claim)
            for namespace, queue in queues.items()
            for path, node in _nodes(queue._root, ())
            for kind in ("held", "waiting", "observers")
            for claim in getattr(node, kind)
        ]
        self._same("places in queues", found, wanted)
        for namespace, queue in queues.items():
            if queue.empty():
                raise self.fail(f"namespace {namespace!r} has queues, and there is nothing in them")
            for path, node in _nodes(queue._root, ()):
                below = [other for where, other in _nodes(node, ()) if where]
                if path and not (node.held or node.waiting or node.observers or node.children):
                    raise self.fail(f"there is a queue for {path} in which nobody is")
                if node.below_held != sum(len(other.held) for other in below):
                    raise self.fail(f"{node.below_held} are counted that are held below {path}")

    def _look_at_indexes(self, view: View) -> None:
        state = self.world.referee.state
        claims = state.claims
        self._same("tokens", claims.by_token, [one.token for one in view.claims.values() if one.token])
        self._same("tokens of claims", claims._tokens, [one.claim for one in view.held])
        chains = [number for chain in claims.chains.values() for number in chain]
        self._same("claims of chains", chains, [one.claim for one in view.claims.values() if one.chain and one.session])
        for session in state.sessions_open.every():
            number = session.record.session
            own = [one.claim for one in view.claims.values() if one.session == number]
            self._same(f"claims of session {number}", session.claims, own)


def _nodes(node: Any, path: tuple[str, ...]) -> "Iterator[tuple[tuple[str, ...], Any]]":
    yield path, node
    for segment, child in node.children.items():
        yield from _nodes(child, (*path, segment))
