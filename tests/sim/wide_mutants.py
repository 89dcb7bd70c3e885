"""Known bugs of the whole lease model, each put in for the time of a test: wide worlds must show every one of them."""

import dataclasses
import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final
from unittest import mock

from lessor.client.protocol import Protocol
from lessor.core import queues as queues_module
from lessor.core.book import failed
from lessor.core.claims import Claims
from lessor.core.commands import ATTACH_STEP, AttachSession, Operation, Transact, proof_of
from lessor.core.deadlocks import Deadlocks
from lessor.core.lapses import Lapses
from lessor.core.lease_state import LeaseState
from lessor.core.namespaces import Namespaces
from lessor.core.queues import Queues
from lessor.core.registers import Registers
from lessor.core.resources import ALL_UNITS, Mode, Resource
from lessor.core.results import (
    NOT_COVERED,
    SESSION_STOLEN,
    DeadlockDetected,
    Declined,
    Failed,
    NotHeld,
    Register,
    Released,
    Transacted,
)
from lessor.core.sessions import Session, Sessions
from lessor.core.transactions import Transactions, _said

from .checkers.base import Checker
from .checkers.p1_agreement import Agreement
from .checkers.p10_bounded import Bounded
from .checkers.wide_p1_restored import WideRestored
from .checkers.wide_p3_exclusion import WideClosed, WideExclusion
from .checkers.wide_p4_configured import WideConfigured
from .checkers.wide_p4_pinned import WidePinned
from .checkers.wide_p5_registers import WideRegisters
from .checkers.wide_p6_named import WideNamed, WideStolen, WideTransactions
from .checkers.wide_p7_fair import WideDeadlocks, WideFair
from .checkers.wide_p10_bounded import WideBounded
from .mutants import MUTANTS, Mutant, _replacing

LIVELY: Final[dict[str, Any]] = {"duration_ms": 4000, "think_ms": 60, "clients": 4}
"""In these worlds much is asked for: what these bugs need is that several things are there at once."""


def _mutant(
    what: str, checker: type[Checker], worlds: int, *also: type[Checker]
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    def register(patch: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        name = patch.__name__.strip("_")
        patched = contextmanager(patch)
        MUTANTS[name] = Mutant(name, what, checker, worlds, patched, wide=True, changes=LIVELY, also=also)
        return patch

    return register


def _nobody(_: Any) -> int:
    """Say of every queue that nobody stands in it."""
    return ALL_UNITS


# --- queues ----------------------------------------------------------------------------------------------------------


@_mutant("whoever waits at the head of a line lets everybody pass", WideFair, 40)
def _head_of_line_broken() -> Iterator[None]:
    with mock.patch.object(queues_module, "_first", _nobody):
        yield


@_mutant("a path is granted although something below it is held", WideExclusion, 60, WideClosed)
def _prefix_below_missed() -> Iterator[None]:
    def make(original: Any) -> Any:
        def passes(self: Queues, claim: int, resource: Resource) -> bool:
            node: Any = self._find(resource.path)
            if node is None:
                return bool(original(self, claim, resource))
            counted = node.below_held, node.below_shared, node.below_waiting
            node.below_held, node.below_shared, node.below_waiting = 0, 0, OrderedDict()
            passed = bool(original(self, claim, resource))
            node.below_held, node.below_shared, node.below_waiting = counted
            return passed

        return passes

    with _replacing(Queues, "_passes", make):
        yield


@_mutant("whoever has the root path, the whole namespace, is forgotten", WideExclusion, 60, WideClosed)
def _root_path_forgotten() -> Iterator[None]:
    def make(original: Any) -> Any:
        def passes(self: Queues, claim: int, resource: Resource) -> bool:
            root: Any = self._root
            if not resource.path:
                return bool(original(self, claim, resource))
            held, root.held = root.held, OrderedDict()
            passed = bool(original(self, claim, resource))
            root.held = held
            return passed

        return passes

    with _replacing(Queues, "_passes", make):
        yield


@_mutant("readers overtake a writer who waits", WideFair, 60)
def _reader_overtakes_writer() -> Iterator[None]:
    def make(original: Any) -> Any:
        def passes(self: Queues, claim: int, resource: Resource) -> bool:
            reads = resource.mode == Mode.READ
            with mock.patch.object(queues_module, "_first", _nobody) if reads else nullcontext():
                return bool(original(self, claim, resource))

        return passes

    with _replacing(Queues, "_passes", make):
        yield


@_mutant("a set is granted as soon as the first of its resources is free", WideExclusion, 40, WideClosed)
def _set_granted_in_part() -> Iterator[None]:
    def ready(self: Queues, claim: int, resources: tuple[Resource, ...]) -> bool:
        return self._passes(claim, resources[0])

    with mock.patch.object(Queues, "ready", ready):
        yield


@_mutant("a semaphore gives one unit more than it has", WideExclusion, 100)
def _count_over_the_limit() -> Iterator[None]:
    def make(original: Any) -> Any:
        def units_for(self: Queues, node: Any, resource: Resource) -> int:
            return int(original(self, node, resource)) + 1

        return units_for

    with _replacing(Queues, "_units_for", make):
        yield


@_mutant("who shrinks what he holds does not wake those who wait for it", WideFair, 100)
def _shrink_serves_nobody() -> Iterator[None]:
    def make(original: Any) -> Any:
        def amend(self: Claims, operation: Any, session: Any) -> Any:
            with mock.patch.object(Claims, "serve", return_value=None):
                return original(self, operation, session)

        return amend

    with _replacing(Claims, "amend", make):
        yield


@_mutant("a dead waiter is left on all of his paths but the first", WideBounded, 60, Bounded)
def _ghost_on_the_other_path() -> Iterator[None]:
    def make(original: Any) -> Any:
        def leave(self: Queues, claim: int, resources: tuple[Resource, ...]) -> None:
            original(self, claim, resources[:1])

        return leave

    def serve(self: Claims, namespace: str, resources: tuple[Resource, ...], **_: Any) -> None:
        queues = self.queues_of(namespace)
        heads = list(queues.may_be_ready(resources))
        heapq.heapify(heads)
        while heads:
            claim = self.all.get(heapq.heappop(heads))
            if claim is None or claim.token or not queues.ready(claim.claim, claim.resources):
                continue
            self._grant(claim, waited=True)
            self._book.notify(claim.session, self.status(claim))

    with _replacing(Queues, "leave", make), mock.patch.object(Claims, "serve", serve):
        yield


@_mutant("observers are not told when what they look at is free", WideFair, 150)
def _observer_not_woken() -> Iterator[None]:
    with mock.patch.object(Claims, "_free_observers", return_value=None):
        yield


@_mutant("a circle of claims is not found", WideDeadlocks, 200)
def _deadlock_not_found() -> Iterator[None]:
    with mock.patch.object(Deadlocks, "find", return_value=None):
        yield


@_mutant("whoever holds one thing and waits for another is called a deadlock", WideDeadlocks, 60)
def _deadlock_invented() -> Iterator[None]:
    def find(self: Deadlocks, claim: Any) -> DeadlockDetected | None:
        own = self._claims.chains.get((claim.session, claim.chain), {})
        return DeadlockDetected(()) if any(self._claims.all[number].token for number in own) else None

    with mock.patch.object(Deadlocks, "find", find):
        yield


# --- sessions --------------------------------------------------------------------------------------------------------


@_mutant("a session is handed over whatever the key", WideStolen, 150)
def _wrong_key_accepted() -> Iterator[None]:
    def make(original: Any) -> Any:
        def attach(self: Sessions, operation: AttachSession) -> Any:
            session = self.get(operation.session)
            key = operation.key if session is None else session.record.key
            taken = AttachSession(operation.session, key, operation.attach, operation.timeout_ms, operation.description)
            return original(self, taken)

        return attach

    with _replacing(Sessions, "attach", make):
        yield


@_mutant("the key that a session had before still opens it", WideStolen, 150)
def _old_key_works() -> Iterator[None]:
    old: dict[bytes, int] = {}

    def make(original: Any) -> Any:
        def attach(self: Sessions, operation: AttachSession) -> Any:
            session = self.get(operation.session)
            if session is not None and old.get(operation.key) == operation.session:
                operation = dataclasses.replace(operation, key=session.record.key)
            before = b"" if session is None else session.record.key
            result = original(self, operation)
            if session is not None and session.record.key != before:
                old[before] = operation.session
            return result

        return attach

    with _replacing(Sessions, "attach", make):
        yield


@_mutant("whoever had a session before it was stolen is still served", WideStolen, 150)
def _old_owner_served() -> Iterator[None]:
    def make(original: Any) -> Any:
        def refuses(self: Session, number: int, proof: int) -> str:
            code = original(self, number, proof)
            return "" if code == SESSION_STOLEN else str(code)

        return refuses

    with _replacing(Session, "refuses", make):
        yield


@_mutant("whoever names a session is served in it", WideStolen, 150)
def _stranger_served() -> Iterator[None]:
    def refuses(self: Session, number: int, proof: int) -> str:
        return SESSION_STOLEN if number < self.record.attach * ATTACH_STEP else ""

    with mock.patch.object(Session, "refuses", refuses):
        yield


@_mutant("a folded ping keeps the session of another alive", WideStolen, 300)
def _stranger_keeps_alive() -> Iterator[None]:
    def make(original: Any) -> Any:
        def keep_alive(self: Sessions, session: int, number: int, acked_below: int, proof: int) -> int:
            found = self.get(session)
            mine = proof if found is None else proof_of(found.record.key)
            return int(original(self, session, number, acked_below, mine))

        return keep_alive

    with _replacing(Sessions, "keep_alive", make):
        yield


# --- pins and closed names -------------------------------------------------------------------------------------------


@_mutant("a pin is lost when the name changes hands", WidePinned, 150)
def _pin_lost() -> Iterator[None]:
    def make(original: Any) -> Any:
        def grant(self: Claims, claim: Any, *, waited: bool) -> None:
            original(self, claim, waited=waited)
            for resource in claim.resources:
                if waited and self._pins.of(claim.namespace, resource.path):
                    self._pins.shelf.drop((claim.namespace, resource.path))

        return grant

    with _replacing(Claims, "_grant", make):
        yield


@_mutant("the last pin goes, and the overdue lease that it kept stays", WidePinned, 150)
def _unpin_ends_nothing() -> Iterator[None]:
    with mock.patch.object(Claims, "unpinned", return_value=None):
        yield


@_mutant("a name that is to stay closed for a while is open after a restart", WideRestored, 300, Agreement)
def _delay_lost_at_restart() -> Iterator[None]:
    def make(original: Any) -> Any:
        def restore(self: LeaseState, claims: Any, lapses: Any) -> None:
            for record in lapses:
                record.closed_until_ms = 0
            original(self, claims, lapses)

        return restore

    with _replacing(LeaseState, "_restore_claims", make):
        yield


@_mutant("the delay of a namespace is not kept at all", WideClosed, 300)
def _no_delay() -> Iterator[None]:
    def make(original: Any) -> Any:
        def add(self: Lapses, claim: Any, why: str, delay_ms: int) -> int:
            return int(original(self, claim, why, min(delay_ms, 1)))

        return add

    def end_grant(self: Claims, claim: Any, kind: str, why: str) -> None:
        if kind in ("expired", "broken"):
            self._lapses.add(claim, why or kind, 0)
        self.open(claim.claim, claim.namespace, claim.resources)

    with _replacing(Lapses, "add", make), mock.patch.object(Claims, "_end_grant", end_grant):
        yield


# --- registers and transactions --------------------------------------------------------------------------------------


@_mutant("a register is written under a token that is held no more", WideRegisters, 150)
def _written_under_an_old_token() -> Iterator[None]:
    def make(original: Any) -> Any:
        def refusal(self: Registers, operation: Any, added: int = 0) -> Any:
            refused = original(self, operation, added)
            old = operation.token <= self._book.header.last_token
            return None if isinstance(refused, NotHeld) and old else refused

        return refusal

    with _replacing(Registers, "refusal", make):
        yield


@_mutant("a register is written by whoever reads what it belongs to", WideRegisters, 150)
def _written_by_a_reader() -> Iterator[None]:
    def make(original: Any) -> Any:
        def refusal(self: Registers, operation: Any, added: int = 0) -> Any:
            refused = original(self, operation, added)
            return None if refused == failed(NOT_COVERED, getattr(refused, "detail", "")) else refused

        return refusal

    with _replacing(Registers, "refusal", make):
        yield


@_mutant("the versions of a register begin anew after it was erased", WideRegisters, 600)
def _version_begins_anew() -> Iterator[None]:
    def make(original: Any) -> Any:
        def put(self: Registers, operation: Any) -> Any:
            before = self.version(operation.namespace, operation.path)
            result = original(self, operation)
            if isinstance(result, Register):
                record = self.shelf.of((operation.namespace, operation.path))
                assert record is not None
                record.version = before + 1
                return Register(record.version, record.token, b"")
            return result

        return put

    with _replacing(Registers, "put", make):
        yield


@_mutant("a transaction is carried out up to the first step that is not possible", WideTransactions, 100)
def _transaction_in_part() -> Iterator[None]:
    def transact(self: LeaseState, operation: Transact, session: Any) -> Any:
        declined = self._transactions.look(Transact(operation.checks, ()))
        if declined is not None:
            return declined
        results: list[Any] = []
        for index, step in enumerate(operation.steps):
            refusal = self._transactions._refusal(step, operation.steps[:index])
            if refusal is not None:
                return Declined("step", index, _said(refusal))
            results.append(self._carry_out(step, session))
        return Transacted(tuple(results))

    with mock.patch.object(LeaseState, "_transact", transact):
        yield


@_mutant("a break by name: whoever has the name now loses it", WideNamed, 150)
def _break_by_name() -> Iterator[None]:
    names: dict[tuple[int, int], Any] = {}

    def make(original: Any) -> Any:
        def do_break(self: LeaseState, operation: Any, session: Any) -> Any:
            for claim in self.claims.all.values():
                if claim.token:
                    names[id(self), claim.token] = claim.resources
            for claim in list(self.claims.all.values()):
                if claim.token and claim.resources == names.get((id(self), operation.token)):
                    self.claims.end(claim, "broken", notify=True, why=operation.reason)
                    return Released()
            return original(self, operation, session)

        return do_break

    with _replacing(LeaseState, "_break", make):
        yield


@_mutant("a transaction is carried out whatever its checks say", WideTransactions, 100)
def _checks_not_looked_at() -> Iterator[None]:
    with mock.patch.object(Transactions, "_unmet", return_value=""):
        yield


# --- what is asked for, and what a namespace rules -------------------------------------------------------------------


@_mutant("who asks for less may also ask for more", WideNamed, 150)
def _claim_that_grows() -> Iterator[None]:
    def make(original: Any) -> Any:
        def smaller(self: Claims, claim: Any, operation: Any) -> Any:
            less = original(self, claim, operation)
            if not isinstance(less, Failed):
                return less
            counted = [
                Resource(each.path, each.mode, operation.count, max(each.limit, operation.count * bool(each.limit)))
                if each.mode == Mode.COUNT
                else each
                for each in claim.resources
            ]
            return tuple(counted) if counted != list(claim.resources) else less

        return smaller

    with _replacing(Claims, "_smaller", make):
        yield


@_mutant("renewals go past the longest hold", WideConfigured, 150)
def _hold_without_end() -> Iterator[None]:
    def make(original: Any) -> Any:
        def renew(self: Claims, token: int, ttl_ms: int) -> Any:
            claim = self.granted(token)
            until_ms = claim.hold_until_ms if claim is not None else 0
            if claim is not None:
                claim.hold_until_ms = 0
            result = original(self, token, ttl_ms)
            if claim is not None:
                claim.hold_until_ms = until_ms
            return result

        return renew

    with _replacing(Claims, "renew", make):
        yield


@_mutant("a renewal makes a lease shorter", WideConfigured, 150)
def _renewal_that_shortens() -> Iterator[None]:
    def make(original: Any) -> Any:
        def renew(self: Claims, token: int, ttl_ms: int) -> Any:
            claim = self.granted(token)
            if claim is not None and claim.ends_at_ms > self._book.clock_ms + 2:
                claim.ends_at_ms = self._book.clock_ms + 1
            return original(self, token, ttl_ms // 2)

        return renew

    with _replacing(Claims, "renew", make):
        yield


@_mutant("the ttl of a namespace is forgotten", WideConfigured, 200)
def _no_default_ttl() -> Iterator[None]:
    def make(original: Any) -> Any:
        def config(self: Namespaces, name: str) -> Any:
            return dataclasses.replace(original(self, name), default_ttl_ms=0)

        return config

    with _replacing(Namespaces, "config", make):
        yield


@_mutant("a change of leader gives sessions no grace", WideConfigured, 200)
def _no_grace() -> Iterator[None]:
    with mock.patch.object(LeaseState, "_give_grace", return_value=None):
        yield


@_mutant("what a client ends by a token or by force it goes on to believe in", WideExclusion, 40)
def _own_lease_forgotten() -> Iterator[None]:
    def ask(self: Protocol, operation: Operation, on_done: Callable[[Any], None], deadline_ms: int | None) -> None:
        self.call(operation, on_done, deadline_ms)

    with mock.patch.object(Protocol, "ask", ask):
        yield


# --- what a restart must not change ----------------------------------------------------------------------------------


@_mutant("who is in the way is told in an order that a restored state does not have", WideRestored, 300)
def _order_of_a_tree() -> Iterator[None]:
    def first_in_the_way(self: Queues, claim: int, resources: tuple[Resource, ...]) -> int:
        found = [other for resource in resources for other in self._conflicts(claim, resource)]
        return found[0] if found else 0

    with mock.patch.object(Queues, "first_in_the_way", first_in_the_way):
        yield
