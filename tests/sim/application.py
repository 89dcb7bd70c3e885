"""What a simulated client's program does: takes leases, holds, renews, gives back, gives up, hands over."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lessor.client.records import Acquire, LeaseRecord, LeaseState
from lessor.core.commands import FOREVER, Claim, Describe, Release, Renew
from lessor.core.errors import LessorError
from lessor.core.resources import Resource
from lessor.core.results import Denied, NotHeld

from .clock import MS
from .history import Op, Verdict

if TYPE_CHECKING:
    from .client import SimClient

NAMESPACE = "default"
PENDING_MAX = 3
TICKETS_MAX = 8


class Application:
    """The program of one client."""

    def __init__(self, client: "SimClient") -> None:
        """Start to act soon."""
        self.client = client
        self.world = client.world
        self.acquiring: dict[int, tuple[Op, Acquire]] = {}
        self.open_calls: dict[int, Op] = {}  # every call whose outcome is still waited for
        self.holding: dict[int, tuple[Op, LeaseRecord]] = {}
        self.tickets: list[tuple[str, int, int]] = []  # tokens from long ago: name, token, ttl
        self.losses = 0
        self.quiet = False  # nothing new is begun, what is granted is given back
        self.closed = False
        self._think()

    def start_again(self) -> None:
        """Be a new process that has found the tokens of the old one in a file."""
        self.tickets += [(op.name, token, op.ttl_ms) for token, (op, _) in self.holding.items()]
        self.acquiring, self.open_calls, self.holding = {}, {}, {}
        self.closed = False
        self._think()

    # --- what it does ------------------------------------------------------------------------------------------------

    def _think(self) -> None:
        world = self.world
        after_us = int(world.options.think_ms * MS * (0.1 + 1.8 * world.random()))
        world.at(world.now_us + after_us, self._act, self.client.life)

    def _act(self, life: int) -> None:
        client, world = self.client, self.world
        if not client.alive or life != client.life or self.quiet or self.closed:
            return
        if world.now_us < client.paused_until_us:
            world.at(client.paused_until_us + 1, self._act, life)
            return
        options, chance = world.options, world.random()
        client.protocol.now_ms = client.now_ms
        if options.ticket_share and chance < options.ticket_share and (self.tickets or world.tickets):
            self._use_ticket()
        elif self.acquiring and world.random() < options.cancel_share:
            self._cancel(world.rng.choice(list(self.acquiring)))
        elif options.close_share and world.random() < options.close_share:
            self.close()
        elif self.holding and world.random() < 0.15:
            self._renew(*world.rng.choice(list(self.holding.values())))
        elif world.random() < 0.05:
            client.protocol.call(Describe(NAMESPACE, ("a",)), _ignore, client.now_ms + options.request_timeout_ms)
        elif len(self.acquiring) < PENDING_MAX:
            self._acquire()
        client.wake()
        if not self.closed:
            self._think()

    def _acquire(self) -> None:
        client, world = self.client, self.world
        options, rng, now = world.options, world.rng, client.now_ms
        tries = rng.random() < options.try_share
        ttl_ms = rng.choice(options.ttls_ms)
        wait_ms = 0 if tries else rng.choice(options.waits_ms)
        op = self._begin("acquire", "abc"[rng.randrange(options.names)], ttl_ms=ttl_ms, wait_ms=wait_ms)
        op.holder = f"c{client.number}#{op.number}"
        world.history.acquires[op.holder] = op
        claim = Claim(
            NAMESPACE,
            (Resource((op.name,)),),
            op.holder,
            b"",
            ttl_ms,
            FOREVER if wait_ms < 0 else wait_ms,
            bool(ttl_ms) and rng.random() < options.detached_share,
        )
        deadline = None if wait_ms < 0 else now + (wait_ms or options.request_timeout_ms)
        acquire = client.protocol.acquire(
            claim,
            lambda outcome: self._acquired(op, claim, outcome),
            deadline,
            auto_renew=rng.random() < options.renew_share,
        )
        if op.verdict is Verdict.PENDING:
            self.acquiring[op.number] = (op, acquire)

    def _acquired(self, op: Op, claim: Claim, outcome: Any) -> None:
        self.acquiring.pop(op.number, None)
        if not isinstance(outcome, LeaseRecord):
            self._end(op, outcome, Verdict.NOT_DONE if isinstance(outcome, Denied) else None)
            return
        op.token = outcome.token
        self._end(op, outcome, Verdict.DONE)
        world = self.world
        outcome.on_change = self._changed
        if self.quiet or self.closed:
            self._later(0, outcome.token)
            self.holding[outcome.token] = (op, outcome)
        elif claim.detached and world.random() < 0.4:
            # somebody else has the ticket from now on, and this program forgets the lease
            self.client.protocol.leases.pop(outcome.token, None)
            world.tickets.append((op.name, op.token, op.ttl_ms))
            world.mark("a ticket handed over")
        else:
            self.holding[outcome.token] = (op, outcome)
            self._later(int(world.options.hold_ms * MS * 2 * world.random()), outcome.token)

    def _changed(self, record: LeaseRecord) -> None:
        """Learn that a lease is lost or released, or in jeopardy or out of it."""
        if not record.over:
            self.world.mark("a lease in jeopardy")
            return
        found = self.holding.pop(record.token, None)
        if found is None:
            return
        op, _ = found
        if record.state is LeaseState.LOST:
            op.lost_us = self.world.now_us
            self.losses += 1
            self.world.mark("a lease called lost")
            if not record.reason:
                raise self.world.violated(
                    "P8", f"client {self.client.number} lost token {record.token} without a reason"
                )
        self.tickets.append((op.name, record.token, op.ttl_ms))
        del self.tickets[:-TICKETS_MAX]

    def _later(self, after_us: int, token: int) -> None:
        self.world.at(self.world.now_us + after_us, self._let_go, token, self.client.life)

    def _let_go(self, token: int, life: int) -> None:
        client, world = self.client, self.world
        found = self.holding.get(token)
        if found is None or life != client.life or not client.alive or self.closed:
            return
        if world.now_us < client.paused_until_us:
            world.at(client.paused_until_us + 1, self._let_go, token, life)
            return
        op, record = found
        if not self.quiet and not record.auto_renew and op.ttl_ms and world.random() < 0.5:
            return  # it is let expire
        client.protocol.now_ms = client.now_ms
        release = self._begin("release", op.name, token=token)
        client.protocol.release(record, lambda outcome: self._end(release, outcome), self._deadline())
        client.wake()

    def _renew(self, op: Op, record: LeaseRecord) -> None:
        if op.ttl_ms and not record.over:
            renew = self._begin("renew", op.name, token=record.token, ttl_ms=op.ttl_ms)
            self.client.protocol.renew(record, 0, lambda outcome: self._end(renew, outcome), self._deadline())

    def _cancel(self, number: int) -> None:
        op, acquire = self.acquiring.pop(number)
        op.abandoned = True
        self.client.protocol.abandon(acquire)
        self.world.mark("an acquire given up")
        if op.verdict is Verdict.PENDING:
            self._end(op, None, Verdict.UNKNOWN)

    def _use_ticket(self) -> None:
        """Renew or release a lease by a token from long ago, or one that was handed over."""
        world, rng = self.world, self.world.rng
        name, token, ttl_ms = rng.choice(self.tickets + world.tickets[-TICKETS_MAX:])
        self.world.mark("an old token used")
        if ttl_ms and rng.random() < 0.4:
            op = self._begin("renew", name, token=token, ttl_ms=ttl_ms)
            operation: Renew | Release = Renew(token, 0)
        else:
            op = self._begin("release", name, token=token)
            operation = Release(token)
            if token not in self.holding:
                world.released_by_others[token] = None
        self.client.protocol.ask(operation, lambda outcome: self._end(op, outcome), self._deadline())

    def close(self) -> None:
        """Close the client; while there are faults it soon opens again."""
        if self.closed:
            return
        client, world = self.client, self.world
        self.closed = True
        client.protocol.now_ms = client.now_ms
        op = self._begin("close", "")
        life = client.life

        def done(outcome: Any) -> None:
            self._end(op, outcome)
            if not self.quiet:
                world.at(world.now_us + 20 * MS, self._reopen, life)

        client.protocol.close(done, client.now_ms + world.options.request_timeout_ms)
        world.mark("a client closed")
        client.wake()

    def _reopen(self, life: int) -> None:
        client = self.client
        if client.alive and client.life == life and not self.quiet:
            client.die()
            client.start_again()

    def hush(self) -> None:
        """Begin nothing new, and give back what is held: the world heals."""
        self.quiet = True
        for token in list(self.holding):
            self._later(0, token)

    # --- the history -------------------------------------------------------------------------------------------------

    def _deadline(self) -> int:
        return self.client.now_ms + self.world.options.request_timeout_ms

    def _begin(self, kind: str, name: str, *, token: int = 0, ttl_ms: int = 0, wait_ms: int = 0) -> Op:
        world = self.world
        op = Op(len(world.history.ops), self.client.number, kind, name, world.now_us, "", ttl_ms, wait_ms, token)
        world.history.ops.append(op)
        self.open_calls[op.number] = op
        for checker in world.hooks.began:
            checker.began(op)
        return op

    def _end(self, op: Op, outcome: Any, verdict: Verdict | None = None) -> None:
        self.open_calls.pop(op.number, None)
        if op.verdict is not Verdict.PENDING:
            if op.abandoned:
                return
            raise self.world.violated("P6", f"a call was answered twice: {op}, then {outcome}")
        if verdict is None:
            if isinstance(outcome, LessorError):
                verdict = Verdict.UNKNOWN if outcome.indefinite else Verdict.NOT_DONE
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                verdict = Verdict.NOT_DONE if isinstance(outcome, NotHeld) else Verdict.DONE
        op.end_us, op.verdict, op.result = self.world.now_us, verdict, outcome
        if self.world.trace is not None:
            self.world.trace.append(f"{self.world.now_us / 1000:10.3f} {op}")
        for checker in self.world.hooks.ended:
            checker.ended(op)


def _ignore(_: Any) -> None:
    """Take an outcome that nobody waits for."""


Done = Callable[[Any], None]
