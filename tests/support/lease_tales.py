"""Random histories of the whole lease model, each from one seed: every operation, often on what is there to be hit."""

from random import Random
from typing import Any

from lessor.core.ballot import Ballot
from lessor.core.checks import check
from lessor.core.commands import (
    ANY_VERSION,
    ATTACH_STEP,
    FOREVER,
    KEEP,
    Adopt,
    AlterNamespace,
    Amend,
    AttachSession,
    Break,
    Cancel,
    Claim,
    CloseSession,
    Command,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    Describe,
    DescribeNamespace,
    DropNamespace,
    EndSession,
    EraseRegister,
    GetRegister,
    HeldBy,
    KeepAlive,
    ListClaims,
    ListRecords,
    NamespaceConfig,
    OpenSession,
    Operation,
    Pin,
    Ping,
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
    proof_of,
)
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Entry, Lead, NoOp
from lessor.core.errors import BadRequest
from lessor.core.lease_state import LeaseState
from lessor.core.resources import Mode, Resource
from lessor.core.results import LISTED

KEYS = [bytes([letter]) * 16 for letter in b"abcd"]
PATHS = ((), ("x",), ("x",), ("y",), ("y",), ("x", "1"), ("x", "1"), ("x", "2"), ("y", "1"), ("x", "1", "a"))
TTLS_MS = (0, 0, 0, 100, 250, 1000, 4000, 20_000)
WAITS_MS = (0, FOREVER, FOREVER, FOREVER, 200, 1000)
TIMEOUTS_MS = (500, 1500, 6000, 60_000, 60_000)
NAMESPACES = ("n", "n", "n", "o")


class Tale:
    """Makes up one history; it looks at a state of its own, so that what it makes up often hits something."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.state = LeaseState()
        self.term, self.elapsed_ms, self.number = Ballot(0, 1), 0, 0
        self.told: list[Command] = []
        self.entries: list[Entry] = []

    def whole(self, length: int) -> list[Entry]:
        """The entries of the history."""
        self.tell(self.lead())
        self.tell(self.batch([OpenSession(key, self.chance.choice(TIMEOUTS_MS), "", "n") for key in KEYS[:3]]))
        for _ in range(self.chance.randrange(length // 3, length)):
            self.tell(self.entry())
        return self.entries

    def tell(self, entry: Entry) -> None:
        self.state.apply(self.state.applied_upto + 1, entry)
        self.entries.append(entry)

    def entry(self) -> Entry:
        dice = self.chance.random()
        if dice < 0.05:
            return self.lead()
        if dice < 0.07:
            return self.chance.choice((NoOp(), Lead(Ballot(self.term.counter - 1, 9))))
        if dice < 0.09:
            return Batch(Ballot(self.term.counter, 9), self.elapsed_ms + 5000, self.commands([CloseSession()]))
        self.elapsed_ms += self.some_ms()
        return self.batch([self.operation() for _ in range(self.chance.choice((0, 1, 1, 2, 3, 6)))])

    def lead(self) -> Lead:
        self.term, self.elapsed_ms = Ballot(self.term.counter + 1, self.chance.randrange(1, 4)), 0
        return Lead(self.term)

    def some_ms(self) -> int:
        due = [claim.ends_at_ms - self.state.clock_ms for claim in self.state.claims.records()]
        due += [session.expires_at_ms - self.state.clock_ms for session in self.state.sessions_open.records()]
        due += [lapse.closed_until_ms - self.state.clock_ms for lapse in self.state.lapses.records()]
        near = [ms for ms in due if 0 < ms < 5000] or [0]
        return self.chance.choice((0, 0, 0, 0, 1, 70, 300, min(near), min(near), self.chance.choice(near), 2000))

    def batch(self, operations: list[Operation]) -> Batch:
        return Batch(self.term, self.elapsed_ms, self.commands(operations))

    def commands(self, operations: list[Operation]) -> tuple[bytes, ...]:
        return tuple(encode(self.command(operation)) for operation in operations)

    def command(self, operation: Operation) -> Command:
        if self.told and self.chance.random() < 0.06:
            return self.chance.choice(self.told)  # a retry
        self.number += 1
        live = self.state.sessions_open.records()
        session = self.chance.choice(live).session if live and self.chance.random() < 0.97 else self.chance.randrange(9)
        found = self.state.sessions_open.get(session)
        attach = found.record.attach if found is not None and self.chance.random() < 0.97 else self.chance.randrange(3)
        proof = proof_of(found.record.key) if found is not None and self.chance.random() < 0.97 else 1
        number = attach * ATTACH_STEP + self.number
        acked_below = max(number - self.chance.choice((2, 5, 10, 50)), 0) if self.chance.random() < 0.5 else 0
        strict = self.chance.random() < 0.02
        command = Command(self.number, session, number, acked_below, operation, strict, proof)
        self.told.append(command)
        return command

    # --- operations --------------------------------------------------------------------------------------------------

    def operation(self) -> Operation:
        while True:
            operation = self.any_operation()
            try:
                if not isinstance(operation, KeepAlive):
                    check(operation)
            except BadRequest:
                continue
            return operation

    def any_operation(self) -> Operation:
        dice = self.chance.random()
        if dice < 0.36:
            return self.claim()
        if dice < 0.7:
            return self.about_a_claim()
        if dice < 0.78:
            return self.about_a_session()
        if dice < 0.94:
            return self.about_a_place()
        if dice < 0.955:
            return self.look()
        return self.about_a_namespace()

    def claim(self) -> Claim:
        pick, dice = self.chance.choice, self.chance.random()
        if dice < 0.06:
            resources: tuple[Resource, ...] = (Resource(pick(PATHS), Mode.OBSERVE),)
        else:
            resources = tuple(self.resource() for _ in range(pick((1, 1, 1, 2, 3))))
        ttl_ms = pick(TTLS_MS)
        detached = bool(ttl_ms) and self.chance.random() < 0.2
        hold_ms = pick((0, 0, 0, 0, 300, 3000))
        chain = pick((0, 0, 1, 1, 1, 2))
        holder, data = pick(("ann", "ben")), pick((b"", b"d"))
        return Claim(pick(NAMESPACES), resources, holder, data, ttl_ms, pick(WAITS_MS), detached, hold_ms, chain)

    def resource(self) -> Resource:
        mode = self.chance.choice((Mode.WRITE, Mode.WRITE, Mode.READ, Mode.READ, Mode.COUNT))
        if mode != Mode.COUNT:
            return Resource(self.chance.choice(PATHS), mode)
        count, limit = self.chance.choice((1, 1, 2, 3, 5)), self.chance.choice((0, 0, 3, 3, 3, 4))
        made = [record.path for record in self.state.semaphores.shelf.records()]
        if made and self.chance.random() < 0.5:
            return Resource(self.chance.choice(made), mode, count)
        return Resource(self.chance.choice(PATHS), mode, count, limit)

    def token(self) -> int:
        held = [claim.token for claim in self.state.claims.records() if claim.token]
        return self.chance.choice(held) if held and self.chance.random() < 0.95 else self.chance.randrange(12)

    def number_of_claim(self) -> int:
        numbers = list(self.state.claims.all)
        return self.chance.choice(numbers) if numbers and self.chance.random() < 0.95 else self.chance.randrange(12)

    def about_a_claim(self) -> Operation:
        pick, dice = self.chance.choice, self.chance.random()
        if dice < 0.36:
            return Release(self.token())
        if dice < 0.5:
            return Renew(self.token(), pick((0, 100, 250, 4000)))
        if dice < 0.66:
            return Cancel(self.number_of_claim())
        if dice < 0.86:
            count, to_read = pick((KEEP, KEEP, 1, 2)), self.chance.random() < 0.5
            wait_ms = pick((KEEP, KEEP, KEEP, 0, 300, FOREVER))
            return Amend(self.number_of_claim(), count, to_read, wait_ms, self.chance.random() < 0.3, b"new")
        if dice < 0.93:
            return Break(self.token(), "it stood in the way")
        return Adopt(self.token())

    def about_a_session(self) -> Operation:
        pick, dice = self.chance.choice, self.chance.random()
        if dice < 0.3 or not len(self.state.sessions_open):
            return OpenSession(pick(KEYS), pick(TIMEOUTS_MS), "", pick(NAMESPACES))
        if dice < 0.6:
            record = max(self.state.sessions_open.records(), key=lambda one: one.attach + self.chance.random())
            attach = max(1, record.attach + pick((-1, -1, 0, 1, 1, 1)))
            key = record.key if self.chance.random() < 0.9 else pick(KEYS)
            new_key = pick((b"", b"", *KEYS, self.chance.randbytes(16)))
            return AttachSession(record.session, key, attach, pick(TIMEOUTS_MS), "again", new_key)
        if dice < 0.7:
            return Ping(tuple(self.number_of_claim() for _ in range(pick((0, 1, 3)))))
        if dice < 0.85:
            pings = [
                (one.session, one.attach * ATTACH_STEP + 1, 0, proof_of(one.key) ^ (self.chance.random() < 0.1))
                for one in self.state.sessions_open.records()
            ]
            return KeepAlive(tuple(part for ping in (*pings, (99, 1, 0, 0)) for part in ping))
        return CloseSession() if dice < 0.95 else EndSession(self.chance.randrange(9))

    def about_a_place(self) -> Operation:
        pick = self.chance.choice
        place: tuple[str, tuple[str, ...]] = (pick(NAMESPACES), pick(PATHS))
        dice = self.chance.random()
        if dice < 0.12:
            return CreateSemaphore(*place, pick((1, 3, 4)), b"s")
        if dice < 0.23:
            created = self.state.semaphores.shelf.records()
            if created and self.chance.random() < 0.9:
                place = (created[-1].namespace, created[-1].path)
            if self.chance.random() < 0.5:
                return UpdateSemaphore(*place, pick((b"s", b"t")))
            return DeleteSemaphore(*place, force=self.chance.random() < 0.5)
        if dice < 0.4:
            return Pin(*place, pick(("e", "f")))
        if dice < 0.6:
            return Unpin(*place, pick(("e", "f")))
        if dice < 0.8:
            return self.about_a_register()
        return self.transaction()

    def about_a_register(self) -> Operation:
        """Most often of the path that a claim holds to write, under its token."""
        writing = [one for one in self.state.claims.records() if one.token and one.resources[0].mode == Mode.WRITE]
        version = self.chance.choice((0, 1, 2, ANY_VERSION, ANY_VERSION))
        writing = writing[:1] if self.chance.random() < 0.5 else writing  # the longest held is written to most
        claim = self.chance.choice(writing) if writing else None
        place = (claim.namespace, claim.resources[0].path) if claim else ("n", ("x",))
        token = claim.token if claim and self.chance.random() < 0.9 else self.token()
        written = [one for one in self.state.registers.shelf.records() if (one.namespace, one.path) == place]
        if self.chance.random() < (0.7 if written else 0.2):
            return EraseRegister(*place, token, version)
        return PutRegister(*place, token, version, b"r")

    def held_place(self) -> tuple[str, tuple[str, ...]]:
        claims = [claim for claim in self.state.claims.records() if claim.token]
        if not claims:
            return "n", ("x",)
        claim = self.chance.choice(claims)
        return claim.namespace, claim.resources[0].path

    def transaction(self) -> Transact:
        pick = self.chance.choice
        checks: list[Any] = []
        steps: list[Any] = []
        place = self.held_place()
        for _ in range(pick((0, 0, 1, 2))):
            version = RegisterIs(*place, pick((0, 1)))
            checks.append(pick((HeldBy(*place, "ann"), TokenHeld(self.token()), Unheld(*place), version)))
        for _ in range(pick((1, 1, 2, 3, 4))):
            about = self.chance.choice((self.about_a_place, self.about_a_register, self.about_a_claim))
            one = about()
            if isinstance(one, PutRegister | EraseRegister | Release | Renew | Pin | Unpin | UpdateSemaphore):
                steps.append(one)
        return Transact(tuple(checks), tuple(steps))

    def about_a_namespace(self) -> Operation:
        pick, dice = self.chance.choice, self.chance.random()
        config = NamespaceConfig(
            default_ttl_ms=pick((KEEP, KEEP, 1000)),
            ttl_max_ms=pick((0, KEEP, 10_000, 500)),
            session_grace_ms=pick((0, 1000)),
            lock_delay_ms=pick((0, 500, 500, 3000)),
            claims_max=pick((0, 0, 0, 20, 2)),
        )
        if dice < 0.4:
            return CreateNamespace(pick(NAMESPACES), config)
        if dice < 0.8:
            created = [one.name for one in self.state.namespaces.shelf.records()]
            return AlterNamespace(pick(created or NAMESPACES), config)
        return DropNamespace(pick(NAMESPACES), force=self.chance.random() < 0.6)

    def look(self) -> Operation:
        pick, place = self.chance.choice, (self.chance.choice(NAMESPACES), self.chance.choice(PATHS))
        return pick(
            (
                Describe(*place),
                Describe(*place),
                ListClaims(pick(("", "n", "o")), pick((0, 3)), pick((2, 100))),
                Validate(self.token()),
                GetRegister(*place),
                DescribeNamespace(place[0]),
                ListRecords(pick(LISTED), pick(("", "n", "o")), pick((0, 3)), pick((2, 100))),
                ReadEvents("n", place[1], self.chance.random() < 0.5, 0, 100),
            )
        )
