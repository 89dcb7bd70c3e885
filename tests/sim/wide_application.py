"""What a simulated client's program does in a wide world: every operation of the lease model, on a few names."""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from lessor.client.errors import Unavailable
from lessor.client.records import Acquire, LeaseRecord
from lessor.client.refusals import SessionStolen
from lessor.core.checks import touched_by
from lessor.core.commands import (
    ANY_VERSION,
    FOREVER,
    Adopt,
    AlterNamespace,
    Amend,
    AttachSession,
    Break,
    Claim,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    Describe,
    DescribeNamespace,
    DropNamespace,
    EraseRegister,
    GetRegister,
    HeldBy,
    ListClaims,
    ListRecords,
    NamespaceConfig,
    Pin,
    PutRegister,
    ReadEvents,
    RegisterIs,
    Release,
    Renew,
    TokenHeld,
    Transact,
    Unheld,
    Unpin,
    UpdateSemaphore,
    Validate,
)
from lessor.core.resources import Mode, Resource
from lessor.core.results import (
    LISTED,
    ClaimStatus,
    DeadlockDetected,
    Denied,
    Transacted,
)

from .application import Application
from .clock import MS
from .history import Op, Verdict
from .wide_board import ACTIONS, NAMESPACES, PATHS, SEMAPHORES, Board, Ticket
from .wide_intruder import come_too_late, intrude

if TYPE_CHECKING:
    from .client import SimClient

PENDING_MAX = 4
SOME = b"0123456789abcdef"
NEVER = 10**9
"""A token that is never granted."""


@dataclass(slots=True)
class _Chain:
    """Two claims that are taken one after another."""

    number: int
    first: int = 0  # its token
    ended: bool = False


@dataclass(slots=True)
class _Grant:
    """What this program knows of a lease of its own."""

    op: Op
    claim: Claim
    record: LeaseRecord
    chain: _Chain | None = field(default=None)


class WideApplication(Application):
    """The program of one client of a wide world."""

    def __init__(self, client: "SimClient") -> None:
        """Start to act soon, with a taste that the whole world shares."""
        self.mine = 0  # the session that this program has written into its file
        self.attached: dict[int, int] = {}  # for which time it attached each session
        self.last_chain = 0
        self._forget_all()
        super().__init__(client)

    @property
    def board(self) -> Board:
        """What programs know of each other."""
        board: Board = self.world.board
        return board

    def _forget_all(self) -> None:
        self.grants: dict[int, _Grant] = {}
        self.observing: dict[int, tuple[Op, Acquire]] = {}
        self.adopted: dict[int, None] = {}
        self.versions: dict[tuple[str, tuple[str, ...]], int] = {}

    def start_again(self) -> None:
        """Be a new process, which finds the session of the old one in a file, and often goes on with it."""
        self.acquiring, self.open_calls, self.holding = {}, {}, {}
        self._forget_all()
        self.attached = {}
        self.closed = False
        if self.mine in self.board.files and not self.quiet and self.world.random() < self.board.taste.reattach:
            self._take_over(self.mine, "a re-attach after a crash")
        self._think()

    def _think(self) -> None:
        """Act twice as often as in a narrow world: there is more to do."""
        world = self.world
        after_us = int(world.options.think_ms * MS * (0.05 + 0.9 * world.random()))
        world.at(world.now_us + after_us, self._act, self.client.life)

    # --- what it does ------------------------------------------------------------------------------------------------

    def _act(self, life: int) -> None:
        client, world = self.client, self.world
        if not client.alive or life != client.life or self.quiet or self.closed:
            return
        if world.now_us < client.paused_until_us:
            world.at(client.paused_until_us + 1, self._act, life)
            return
        client.protocol.now_ms = client.now_ms
        self._write_file()
        board = self.board
        action = world.rng.choice(board.taste.actions)
        assert action in ACTIONS
        getattr(self, f"_do_{action}")()
        if life != client.life:
            return  # it is another process by now
        client.wake()
        if not self.closed:
            self._think()

    def _write_file(self) -> None:
        session = self.client.protocol.session
        if session is not None:
            self.mine = session.number
            self.attached[self.mine] = session.ticket.attach
            self.board.files[self.mine] = session.ticket

    def _ask(self, kind: str, operation: Any, then: Any = None, *, token: int = 0, ttl_ms: int = 0) -> None:
        op = self._begin(kind, "", token=token, ttl_ms=ttl_ms)

        def done(outcome: Any) -> None:
            self._end(op, outcome)
            if then is not None and not isinstance(outcome, BaseException):
                then(outcome)

        self.client.protocol.ask(operation, done, self._deadline())

    def _end(self, op: Op, outcome: Any, verdict: Verdict | None = None) -> None:
        super()._end(op, outcome, verdict)
        if isinstance(outcome, SessionStolen) and not self.closed:
            # it may not go on: a new process begins, without its session
            self.closed = True
            self.world.mark("a stolen session told")
            self.world.at(self.world.now_us + 1 * MS, self._give_way, self.client.life)

    def _give_way(self, life: int) -> None:
        if self.client.alive and self.client.life == life:
            self.client.die()
            self.mine = 0
            self.client.start_again()

    def _some(self) -> tuple[str, tuple[str, ...]]:
        rng = self.world.rng
        return rng.choice(NAMESPACES), rng.choice(PATHS)

    def _token(self) -> Ticket | None:
        """Return a lease of somebody, of late or of long ago."""
        tickets = self.board.tickets
        return self.world.rng.choice(tickets[-6:]) if tickets else None

    # --- claims ------------------------------------------------------------------------------------------------------

    def _resources(self) -> tuple[Resource, ...]:
        rng = self.world.rng
        found: dict[tuple[str, ...], Resource] = {}
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            if rng.random() < self.board.taste.counts:
                path = rng.choice(SEMAPHORES)
                limit = 3 if path == ("e",) else 0
                found[path] = Resource(path, Mode.COUNT, rng.randint(1, 3), limit)
            else:
                path = rng.choice(PATHS)
                found[path] = Resource(path, Mode.READ if rng.random() < self.board.taste.reads else Mode.WRITE)
        return tuple(found.values())

    def _do_acquire(self) -> None:
        if len(self.acquiring) < PENDING_MAX:
            self._take(self._resources(), self.world.rng.choice(NAMESPACES))

    def _do_chain(self) -> None:
        """Take one name, and then another one while it has the first."""
        if len(self.acquiring) < PENDING_MAX:
            self.last_chain += 1
            path = self.world.rng.choice((("x",), ("y",), ("x", "1")))
            self._take((Resource(path),), NAMESPACES[0], _Chain(self.last_chain))

    def _take(self, resources: tuple[Resource, ...], namespace: str, chain: _Chain | None = None) -> None:
        client, world = self.client, self.world
        options, rng, now = world.options, world.rng, client.now_ms
        wait_ms = 0 if chain is None and rng.random() < options.try_share else rng.choice(options.waits_ms)
        ttl_ms = rng.choice(options.ttls_ms)
        hold_ms = rng.choice((0, 0, 0, 0, 250, 1000))
        op = self._begin("acquire", "", ttl_ms=min(ttl_ms, hold_ms) if hold_ms else ttl_ms, wait_ms=wait_ms)
        op.holder = f"c{client.number}#{op.number}"
        world.history.acquires[op.holder] = op
        claim = Claim(
            namespace,
            resources,
            op.holder,
            b"",
            ttl_ms,
            FOREVER if wait_ms < 0 else wait_ms,
            bool(ttl_ms) and rng.random() < options.detached_share,
            hold_ms,
            chain.number if chain is not None else 0,
        )
        deadline = None if wait_ms < 0 else now + (wait_ms or options.request_timeout_ms)
        acquire = client.protocol.acquire(
            claim,
            lambda outcome: self._got(op, claim, chain, outcome),
            deadline,
            auto_renew=chain is not None or rng.random() < options.renew_share,
        )
        if op.verdict is Verdict.PENDING:
            self.acquiring[op.number] = (op, acquire)

    def _got(self, op: Op, claim: Claim, chain: _Chain | None, outcome: Any) -> None:
        self.acquiring.pop(op.number, None)
        world = self.world
        if isinstance(outcome, DeadlockDetected):
            world.mark("a deadlock found")
        if chain is not None and chain.first and not isinstance(outcome, LeaseRecord):
            self._later(0, chain.first)  # what it has is of no use without the rest
        if not isinstance(outcome, LeaseRecord):
            self._end(op, outcome, Verdict.NOT_DONE if isinstance(outcome, Denied | DeadlockDetected) else None)
            return
        op.token = outcome.token
        self._end(op, outcome, Verdict.DONE)
        outcome.on_change = self._changed
        self.holding[outcome.token] = (op, outcome)
        self.grants[outcome.token] = _Grant(op, claim, outcome, chain)
        self.board.tickets.append(Ticket(claim.namespace, claim.resources, outcome.token, outcome.claim, op.holder))
        hold_us = int(world.options.hold_ms * MS * 2 * world.random())
        if self.quiet or self.closed:
            self._later(0, outcome.token)
        elif chain is None:
            self._later(hold_us, outcome.token)
        elif not chain.first:
            chain.first = outcome.token
            path = world.rng.choice((("x", "2"), ("y",), ("y", "1"), ("x",)))
            mode = world.rng.choice((Mode.WRITE, Mode.WRITE, Mode.READ))
            life = self.client.life
            world.at(world.now_us + hold_us // 4, self._go_on, (Resource(path, mode),), chain, life)
        else:
            self._later(hold_us, outcome.token)
            self._later(hold_us, chain.first)

    def _go_on(self, resources: tuple[Resource, ...], chain: _Chain, life: int) -> None:
        client = self.client
        if not client.alive or life != client.life or self.closed:
            return
        if self.quiet or chain.first not in self.holding or self.world.now_us < client.paused_until_us:
            self._later(0, chain.first)
            return
        client.protocol.now_ms = client.now_ms
        self._take(resources, NAMESPACES[0], chain)
        client.wake()

    def _changed(self, record: LeaseRecord) -> None:
        self.grants.pop(record.token, None)
        super()._changed(record)

    def _do_cancel(self) -> None:
        if self.acquiring:
            self._cancel(self.world.rng.choice(list(self.acquiring)))

    def _do_renew(self) -> None:
        if self.grants:
            grant = self.world.rng.choice(list(self.grants.values()))
            if grant.claim.ttl_ms and grant.record.token in self.holding:
                bounded = bool(grant.claim.max_hold_ms)  # then no renewal promises anything
                op = self._begin("renew", "", token=grant.record.token, ttl_ms=0 if bounded else grant.claim.ttl_ms)
                ttl_ms = self.world.rng.choice((0, grant.claim.ttl_ms))
                self.client.protocol.renew(
                    grant.record, ttl_ms, lambda outcome: self._end(op, outcome), self._deadline()
                )

    def _do_amend(self) -> None:
        """Have less of something: fewer units, or to read what was written; or have other data with it."""
        rng = self.world.rng
        claims = [(grant.record.claim, grant.claim.resources) for grant in self.grants.values()]
        claims += [(one.claim, one.operation.resources) for _, one in self.acquiring.values() if one.claim]
        if claims:
            claim, resources = rng.choice(claims)
            data = rng.random() < 0.3
            counts = any(resource.mode == Mode.COUNT for resource in resources)
            if counts and rng.random() < 0.7:
                self._ask("amend", Amend(claim, count=rng.randint(1, 3)))
            else:
                self._ask("amend", Amend(claim, to_read=True, new_data=data, data=b"d" * data))

    def _do_observe(self) -> None:
        """Wait until what is held is free."""
        namespace, path = self._some()
        wait_ms = self.world.rng.choice((0, 400, 2000, FOREVER))
        holder = f"o{self.client.number}"
        claim = Claim(namespace, (Resource(path, Mode.OBSERVE),), holder, b"", 0, wait_ms, detached=False)
        op = self._begin("observe", "")

        def seen(outcome: Any) -> None:
            waited = self.observing.pop(op.number, None) is not None
            if waited and isinstance(outcome, ClaimStatus):
                self.world.mark("an observer that saw the end")
            self._end(op, outcome)

        deadline = (
            None if wait_ms == FOREVER else self.client.now_ms + (wait_ms or self.world.options.request_timeout_ms)
        )
        acquire = self.client.protocol.acquire(claim, seen, deadline)
        if op.verdict is Verdict.PENDING:
            self.observing[op.number] = (op, acquire)

    def _look_away(self) -> None:
        for op, acquire in list(self.observing.values()):
            op.abandoned = True
            self.client.protocol.abandon(acquire)
            if op.verdict is Verdict.PENDING:
                self._end(op, None, Verdict.UNKNOWN)
        self.observing = {}

    # --- what others have --------------------------------------------------------------------------------------------

    def _do_ticket(self) -> None:
        ticket = self._token()
        if ticket is not None:
            self.world.mark("an old token used")
            if self.world.random() < 0.5:
                self._ask("renew", Renew(ticket.token, 0), token=ticket.token)
            else:
                self._give_back(ticket.token)

    def _give_back(self, token: int) -> None:
        if token not in self.holding:
            self.world.released_by_others[token] = None
        op = self._begin("release", "", token=token)
        self.client.protocol.ask(Release(token), lambda outcome: self._end(op, outcome), self._deadline())

    def _do_break(self) -> None:
        ticket = self._token()
        if ticket is not None:
            self.world.released_by_others[ticket.token] = None
            self._ask("break", Break(ticket.token, "it was in the way"), token=ticket.token)

    def _do_adopt(self) -> None:
        """Take over what somebody has; more often than not something pinned, which may be overdue."""
        pinned = {(namespace, path): None for namespace, path, _ in self.board.pinned}
        kept = [
            ticket
            for ticket in self.board.tickets[-20:]
            if any((ticket.namespace, resource.path) in pinned for resource in ticket.resources)
        ]
        ticket = self.world.rng.choice(kept) if kept and self.world.random() < 0.7 else self._token()
        if ticket is None:
            return
        self.board.adopted[ticket.token] = None

        def done(outcome: Any) -> None:
            if isinstance(outcome, ClaimStatus):
                self.adopted[ticket.token] = None
                after_us = 0 if self.quiet else int(self.world.options.hold_ms * MS * 2 * self.world.random())
                self.world.at(self.world.now_us + after_us, self._give_up, ticket.token, self.client.life)

        self._ask("adopt", Adopt(ticket.token), done, token=ticket.token)

    def _give_up(self, token: int, life: int) -> None:
        client = self.client
        if client.alive and life == client.life and not self.closed and self.adopted.pop(token, 0) is None:
            client.protocol.now_ms = client.now_ms
            self._give_back(token)
            client.wake()

    # --- sessions ----------------------------------------------------------------------------------------------------

    def _do_steal(self) -> None:
        """Be a new process that has found the session of another one, which may still be at work."""
        files = [session for session in self.board.files if session != self.mine]
        if files:
            session = self.world.rng.choice(files[-4:])
            self.client.die()
            self.mine = 0
            self.client.start_again()
            self.client.protocol.now_ms = self.client.now_ms
            self._take_over(session, "a session stolen")
            self.client.wake()

    def _do_wrong_key(self) -> None:
        if self.board.files:
            ticket = self.world.rng.choice(list(self.board.files.values())[-4:])
            timeout_ms = self.world.options.session_timeout_ms
            self._ask("attach", AttachSession(ticket.session, SOME, ticket.attach + 1, timeout_ms, "a thief"))
            intrude(self.client, ticket.session)

    def _take_over(self, session: int, mark: str) -> None:
        protocol = self.client.protocol
        protocol._ticket = before = self.board.files[session]
        op = self._begin("attach", "")

        def done(outcome: Any) -> None:
            if op.verdict is Verdict.PENDING:
                self._end(op, outcome)
            if isinstance(outcome, Unavailable):
                protocol.recover(done, None)  # it may be attached all the same: what it holds is to be given back then
                return
            if isinstance(outcome, BaseException):
                protocol._ticket = None  # it is another one's by now, or has ended: open one of its own
                return
            self._write_file()
            if self.mine == session:
                self.board.robbed[session] = before
                self.world.mark(mark)
                late = come_too_late(self.world, before)
                if late is not None:
                    self._ask("attach", late)
            for lease in outcome:
                self._inherit(lease)

        protocol.recover(done, self._deadline())

    def _inherit(self, lease: LeaseRecord) -> None:
        """Hold what the process before has left in the session."""
        self.world.mark("a lease inherited with its session")
        op = Op(-1, self.client.number, "inherit", "", self.world.now_us, token=lease.token, verdict=Verdict.DONE)
        lease.on_change = self._changed
        self.holding[lease.token] = (op, lease)
        after_us = 0 if self.quiet or self.closed else int(self.world.options.hold_ms * MS * self.world.random())
        self._later(after_us, lease.token)

    # --- pins, registers, semaphores, namespaces ---------------------------------------------------------------------

    def _do_pin(self) -> None:
        """Pin what somebody holds, or take a pin away again, more often than not one that is there."""
        rng, pinned, ticket = self.world.rng, self.board.pinned, self._token()
        if pinned and rng.random() < 0.5:
            self._ask("pin", Unpin(*pinned.pop(rng.randrange(len(pinned)))))
            return
        namespace, path = self._some()
        if ticket is not None and rng.random() < 0.7:
            namespace, path = ticket.namespace, rng.choice(ticket.resources).path
        place = (namespace, path, rng.choice("pq"))
        pinned.append(place)
        self._ask("pin", Pin(*place))

    def _do_register(self) -> None:
        namespace, path, token, version = self._register()
        if self.world.random() < 0.15:
            self._ask("register", EraseRegister(namespace, path, token, version), token=token)
        else:
            data = b"%d" % self.world.rng.randrange(100)
            put = PutRegister(namespace, path, token, version, data)
            learn = partial(self.versions.__setitem__, (namespace, path))
            self._ask("register", put, lambda told: learn(getattr(told, "version", 0)), token=token)

    def _register(self) -> tuple[str, tuple[str, ...], int, int]:
        """Return namespace, path, token and version of something to write: mostly what may be written."""
        rng = self.world.rng
        namespace, path = self._some()
        ticket = self._token()
        token = ticket.token if ticket is not None else NEVER
        if self.grants and rng.random() < 0.8:
            grant = rng.choice(list(self.grants.values()))
            namespace, token = grant.claim.namespace, grant.record.token
            path = rng.choice(grant.claim.resources).path if rng.random() < 0.8 else path
        known = self.versions.get((namespace, path), 1)
        return namespace, path, token, rng.choice((ANY_VERSION, ANY_VERSION, 0, known, known))

    def _do_transact(self) -> None:
        rng = self.world.rng
        checks: list[Any] = []
        for _ in range(rng.randint(0, 2)):
            namespace, path, token, version = self._register()
            ticket = self._token()
            checks.append(
                rng.choice(
                    (
                        HeldBy(namespace, path, ticket.holder if ticket is not None else "nobody"),
                        TokenHeld(token),
                        Unheld(namespace, path),
                        RegisterIs(namespace, path, version if version != ANY_VERSION else 0),
                    )
                )
            )
        steps: dict[Any, Any] = {}
        for _ in range(rng.randint(1, 3)):
            namespace, path, token, version = self._register()
            step: Any = rng.choice(
                (
                    PutRegister(namespace, path, token, version, b"t"),
                    PutRegister(namespace, path, token, ANY_VERSION, b"t"),
                    EraseRegister(namespace, path, token, version),
                    Release(token),
                    Renew(token, 0),
                    Pin(namespace, path, "p"),
                    Unpin(namespace, path, "p"),
                    UpdateSemaphore(namespace, ("s",), b"t%d" % rng.randrange(9)),
                )
            )
            steps[touched_by(step)] = step
        for step in steps.values():
            if isinstance(step, Release) and step.token not in self.holding:
                self.world.released_by_others[step.token] = None
        op = self._begin("transact", "")

        def done(outcome: Any) -> None:
            if isinstance(outcome, Transacted):
                self.world.mark("a transaction carried out")
            self._end(op, outcome)

        operation = Transact(tuple(checks), tuple(steps.values()))
        self.client.protocol.transact(operation, done, self._deadline())

    def _do_semaphore(self) -> None:
        rng = self.world.rng
        namespace, path = rng.choice(NAMESPACES), rng.choice((*SEMAPHORES, ("s",), ("x",)))
        taken = [one.namespace for one in self.board.tickets[-6:] if any(each.path == ("s",) for each in one.resources)]
        if taken and rng.random() < 0.3:
            self._ask("semaphore", DeleteSemaphore(taken[-1], ("s",), force=True))
            return
        operations = (
            CreateSemaphore(namespace, path, rng.randint(1, 3), b""),
            CreateSemaphore(namespace, path, 3, b""),
            UpdateSemaphore(namespace, path, b"%d" % rng.randrange(9)),
            DeleteSemaphore(namespace, path, force=rng.random() < 0.7),
        )
        self._ask("semaphore", rng.choice(operations))

    def _do_namespace(self) -> None:
        rng = self.world.rng
        name = rng.choice(NAMESPACES)
        ttl_max_ms = rng.choice((0, 0, 3000, 10_000))
        config = NamespaceConfig(
            rng.choice((0, 0, 600, 1500)),
            ttl_max_ms,
            rng.choice((0, 300, 1000)),
            rng.choice((0, 200, 800)),
            rng.choice((0, 0, 0, 4)),
        )
        operations = (
            CreateNamespace(name, config),
            CreateNamespace(name, config),
            AlterNamespace(name, config),
            DropNamespace(name, force=rng.random() < 0.6),
        )
        self._ask("namespace", rng.choice(operations))

    def _do_look(self) -> None:
        rng = self.world.rng
        namespace, path = self._some()
        ticket = self._token()
        token = ticket.token if ticket is not None else NEVER
        looks = (
            Describe(namespace, path),
            ListClaims(rng.choice(("", namespace)), 0, rng.choice((1, 100))),
            Validate(token),
            GetRegister(namespace, path),
            DescribeNamespace(namespace),
            ListRecords(rng.choice(LISTED), rng.choice(("", namespace)), 0, rng.choice((1, 50))),
            ReadEvents(namespace, path, rng.random() < 0.5, 0, 20),
        )
        self._ask("look", rng.choice(looks))

    def _do_close(self) -> None:
        self.close()

    # --- the end -----------------------------------------------------------------------------------------------------

    def hush(self) -> None:
        """Begin nothing new, and give back what is held: the world heals."""
        super().hush()
        if not self.closed:
            self.client.protocol.now_ms = self.client.now_ms
            self._look_away()
            for token in list(self.adopted):
                self._give_up(token, self.client.life)
