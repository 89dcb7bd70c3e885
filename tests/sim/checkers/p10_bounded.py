"""P10: every queue, window and table has its limit, and what is not held or waited for leaves nothing behind."""

from typing import TYPE_CHECKING, Any

from lessor.core import limits
from lessor.core.commands import CloseSession
from lessor.core.encoding import dumps, to_list
from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome
from lessor.core.results import Failed

from ..history import Verdict
from .base import Checker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lessor.core.effects import Send

    from ..client import SimClient
    from ..history import Op
    from ..node import Node
    from ..world import World

EMPTY_BYTES_MAX = 100
"""A snapshot in which there is nothing but the header."""

APPLIED_AT_ONCE = 60
"""Slots that a learner may apply in one batch, before it says so; with room, since what grows without end passes it."""


DOUBT_US = 3_000_000
"""For so long after a client's last answer what it gave up before may still be under way."""


class Bounded(Checker):
    """Measures the tables of every role while a world runs, and finds them empty at its end."""

    promise = "P10"

    def __init__(self, world: "World") -> None:
        """Start with no call ended."""
        super().__init__(world)
        self._answered_us: dict[int, int] = {}
        self._doubts_us: dict[int, list[int]] = {}

    def ended(self, op: "Op") -> None:
        """Note when a client was last answered, and what it has given up since: that goes on until it is answered."""
        doubts = self._doubts_us.setdefault(op.client, [])
        if op.verdict is Verdict.UNKNOWN:
            doubts.append(op.end_us)
        elif op.verdict is Verdict.DONE:
            self._answered_us[op.client] = op.end_us
        since_us = self._answered_us.get(op.client, 0) - DOUBT_US
        self._doubts_us[op.client] = [end_us for end_us in doubts if end_us >= since_us]

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Measure the replicated state."""
        state = self.world.referee.state
        claims, sessions = state.claims.all, state.sessions_open._sessions
        self._most("claims", len(claims), limits.CLAIMS_MAX)
        self._most("sessions", len(sessions), limits.SESSIONS_MAX)
        self._most("deadlines", len(state._deadlines), 2 * (len(claims) + len(sessions) + len(state.lapses)) + 1000)
        # a name may stay closed, or be a semaphore that nobody has
        others = len(state.lapses) + len(state.semaphores.shelf)
        self._most("queues", len(state.claims.queues), len(claims) + others)
        most_replies = max((len(session.replies) for session in sessions.values()), default=0)
        self._most("kept answers", most_replies, limits.REPLIES_PER_SESSION_MAX)
        for claim in claims.values():
            if not claim.token and claim.session not in sessions:
                raise self.fail(f"claim {claim.claim} waits, and its session has ended")
        for command, (_, result) in zip(self.world.ledger.commands, outcome.answers, strict=False):
            if isinstance(result, Failed):
                continue
            if isinstance(command.operation, CloseSession) and command.session in sessions:
                raise self.fail(f"session {command.session} was closed and is there")

    def acceptor_sends(self, node: "Node", sends: "Sequence[Send]") -> None:
        """Measure an acceptor, and the other roles of its node."""
        if not node.up:
            return
        acceptor, learner = node.acceptor, node.learner
        retained = limits.JOURNAL_RETAIN_SLOTS * 5 // 4 + limits.SAVE_EVERY_SLOTS + APPLIED_AT_ONCE
        if len(acceptor.votes) > retained:  # those that are not applied yet, after a restart, do not count
            applied = sum(slot <= acceptor.applied_upto for slot in acceptor.votes)
            self._most(f"applied votes in the journal of node {node.number}", applied, retained)
        ahead = max(learner.watermark[1], self.world.referee.state.applied_upto) - learner.applied_upto + 20
        most = ahead + len(acceptor.votes)
        self._most("open votes", len(learner._open), most)
        self._most("counted slots", len(learner._counts), most)
        self._most("chosen", len(learner._chosen), most)

    def client_turn(self, client: "SimClient") -> None:
        """Measure a client."""
        protocol = client.protocol
        under_way = len(protocol._calls.under_way())
        if under_way > 40:
            asked = len(client.app.open_calls) + len(protocol.leases)
            doubts = len(self._doubts_us.get(client.number, ()))
            self._most(f"calls of client {client.number}", under_way, 40 + 4 * asked + doubts)

    def finished(self) -> None:
        """Nothing is held or waited for any more, so nothing may be left."""
        for node in self.world.nodes.values():
            state = node.learner.state
            left: dict[str, Any] = {
                "queues": state.claims.queues,
                "keys": state.sessions_open._by_key,
                "tokens": state.claims.by_token,
            }
            for what, table in left.items():
                if table:
                    raise self.fail(f"node {node.number} is left with {what}: {table}")
            lapses = state.lapses.records()
            late = [record for record in lapses if record.ended_at_ms + limits.LAPSED_KEPT_MS < state.clock_ms]
            if late:
                raise self.fail(f"node {node.number} remembers too long: {late[0]}")
            lapsed = sum(len(dumps(to_list(record))) for record in lapses)
            self._most("bytes of an empty state", len(state.snapshot()) - lapsed, EMPTY_BYTES_MAX)

    def _most(self, what: str, count: int, most: int) -> None:
        if count > most:
            raise self.fail(f"{count} {what}, more than {most}")
