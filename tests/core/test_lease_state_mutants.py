"""Known bugs of lease services, put in one at a time: the random histories must find every one of them."""

from collections.abc import Callable
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.book import Book
from lessor.core.claims import Claims
from lessor.core.deadlocks import Deadlocks
from lessor.core.entries import Batch, Lead
from lessor.core.lapses import Lapses
from lessor.core.lease_state import LeaseState
from lessor.core.pins import Pins
from lessor.core.queues import Queues
from lessor.core.registers import Registers
from lessor.core.resources import Mode
from lessor.core.results import SESSION_STOLEN
from lessor.core.sessions import Session, Sessions
from lessor.core.transactions import Transactions

from ..support.lease_histories import failure, run_beside_others, run_beside_the_model
from ..support.lease_tales import Tale

pytestmark = pytest.mark.mutants

Around = Callable[..., Any]
"""What takes the place of a method: it is given the method itself, and then what that is given."""

MUTANTS: dict[str, tuple[type, str, Around]] = {}


def mutant(cls: type, method: str) -> Callable[[Around], Around]:
    """Register a function as the bug that takes the place of a method."""

    def register(around: Around) -> Around:
        MUTANTS[around.__name__] = (cls, method, around)
        return around

    return register


@mutant(Claims, "renew")
def a_renewal_shortens(renew: Around, self: Claims, token: int, ttl_ms: int) -> Any:  # Juju's rewrite in SQL
    claim = self.granted(token)
    if claim is not None and claim.ttl_ms:
        claim.ends_at_ms = 1
    return renew(self, token, ttl_ms)


@mutant(Claims, "due")
def an_old_deadline_counts(due: Around, self: Claims, number: int, kind: int, deadline_ms: int) -> Any:  # TrexLock
    claim = self.all.get(number)
    due(self, number, kind, max(deadline_ms, claim.ends_at_ms) if claim is not None else deadline_ms)


@mutant(Claims, "granted")
def a_token_stands_for_whoever_came_later(granted: Around, self: Claims, token: int) -> Any:  # YDB's release by name
    later = max(self.by_token, default=0)
    return granted(self, token) or (granted(self, later) if 0 < token < later else None)


@mutant(Claims, "serve")
def an_end_serves_nobody(serve: Around, self: Claims, namespace: str, resources: Any, **how: Any) -> Any:
    if len(resources) == 1:
        serve(self, namespace, resources, **how)


@mutant(Claims, "_free_observers")
def an_observer_sleeps_on(_: Around, *__: Any) -> None:
    return None


@mutant(Claims, "_join_chain")
def flows_are_forgotten(_: Around, *__: Any) -> None:
    return None


@mutant(Claims, "_smaller")
def a_claim_may_grow(smaller: Around, self: Claims, claim: Any, operation: Any) -> Any:
    found = smaller(self, claim, operation)
    return claim.resources if type(found).__name__ == "Failed" else found


@mutant(Claims, "end_of_session")
def the_end_of_a_session_is_always_an_expiry(end: Around, self: Claims, session: Session, _: str) -> Any:
    return end(self, session, "session_expired")


@mutant(Claims, "adopt")
def who_had_an_adopted_grant_keeps_it(adopt: Around, self: Claims, token: int, session: Session) -> Any:
    claim = self.granted(token)
    before = self._sessions.get(claim.session) if claim is not None else None
    done = adopt(self, token, session)
    if claim is not None and before is not None:
        before.claims[claim.claim] = None
    return done


@mutant(Queues, "ready")
def the_head_of_the_line_is_overtaken(ready: Around, self: Queues, claim: int, resources: Any) -> bool:
    return ready(self, 0, resources) if claim % 3 == 0 else bool(ready(self, claim, resources))


@mutant(Queues, "_passes")
def what_lies_below_is_not_seen(passes: Around, self: Queues, claim: int, resource: Any) -> bool:
    node = self._find(resource.path)
    if node is None or node.held or node.waiting or not node.below_held:
        return bool(passes(self, claim, resource))
    before, node.below_held = node.below_held, 0
    try:
        return bool(passes(self, claim, resource))
    finally:
        node.below_held = before


@mutant(Queues, "_passes")
def readers_shut_each_other_out(passes: Around, self: Queues, claim: int, resource: Any) -> bool:
    node = self._find(resource.path)
    shut = node is not None and node.held and resource.mode == Mode.READ
    return not shut and bool(passes(self, claim, resource))


@mutant(Queues, "_units_for")
def there_is_a_unit_too_many(units: Around, self: Queues, node: Any, resource: Any) -> Any:
    return units(self, node, resource) + 1


@mutant(Queues, "ahead")
def a_place_is_one_too_far_back(ahead: Around, self: Queues, *asked: Any) -> Any:
    return ahead(self, *asked) + 1


@mutant(Sessions, "attach")
def a_wrong_key_opens(attach: Around, self: Sessions, operation: Any) -> Any:
    session = self.get(operation.session)
    if session is not None:
        session.record.key, key = operation.key, session.record.key
        done = attach(self, operation)
        session.record.key = key
        return done
    return attach(self, operation)


@mutant(Session, "refuses")
def a_thief_is_not_told(refuses: Around, self: Session, number: int, proof: int) -> str:
    return str(refuses(self, number, proof)).replace(SESSION_STOLEN, "")


@mutant(Sessions, "kept")
def a_retry_is_carried_out_again(kept: Around, self: Sessions, session: Session, number: int) -> Any:
    session.replies.pop(number, None)
    return kept(self, session, number)


@mutant(Sessions, "kept")
def a_refusal_is_forgotten(kept: Around, self: Sessions, session: Session, number: int) -> Any:
    session.record.refused_below = 0
    return kept(self, session, number)


@mutant(Sessions, "give_grace")
def there_is_no_grace(_: Around, *__: Any) -> None:
    return None


@mutant(Pins, "pinned")
def a_pin_holds_nothing(_: Around, *__: Any) -> bool:
    return False


@mutant(Lapses, "opened")
def a_closed_name_never_opens(_: Around, *__: Any) -> None:
    return None


@mutant(Lapses, "forget")
def what_lapsed_is_shown_though_it_is_held_again(_: Around, *__: Any) -> None:
    return None


@mutant(Registers, "refusal")
def any_token_may_write(refusal: Around, self: Registers, operation: Any, added: int = 0) -> Any:
    found = refusal(self, operation, added)
    return None if type(found).__name__ == "NotHeld" and operation.token else found


@mutant(Transactions, "look")
def a_check_is_left_out(look: Around, self: Transactions, operation: Any) -> Any:
    found = look(self, operation)
    return None if found is not None and found.part == "check" and not operation.steps else found


@mutant(Deadlocks, "find")
def no_circle_is_found(_: Around, *__: Any) -> None:
    return None


@mutant(LeaseState, "_give_grace")
def the_clock_starts_again(_: Around, self: LeaseState) -> None:
    self.header.base_ms = 0


@mutant(LeaseState, "apply")
def a_straggler_counts(apply: Around, self: LeaseState, slot: int, entry: Any, **how: Any) -> Any:
    if isinstance(entry, Batch) and entry.term != self.header.term:
        elapsed_ms = max(entry.elapsed_ms, self.header.clock_ms - self.header.base_ms)
        entry = Batch(self.header.term, elapsed_ms, entry.commands)
    return apply(self, slot, entry, **how)


@mutant(LeaseState, "apply")
def any_leader_counts(apply: Around, self: LeaseState, slot: int, entry: Any, **how: Any) -> Any:
    if isinstance(entry, Lead) and entry.ballot != self.header.term:
        self.header.term = entry.ballot._replace(counter=0)
    return apply(self, slot, entry, **how)


@mutant(LeaseState, "_execute")
def answering_has_an_effect(execute: Around, self: LeaseState, command: Any, answering: bool) -> Any:  # noqa: FBT001
    session = self.sessions_open.get(command.session)
    if answering and session is not None:
        session.record.description = "answered"
    return execute(self, command, answering)


@mutant(LeaseState, "_restore_claims")
def a_restart_begins_the_tokens_again(restore: Around, self: LeaseState, claims: Any, lapses: Any) -> None:
    self.header.last_token = max((record.token for record in (*claims, *lapses)), default=0)
    restore(self, claims, lapses)


@mutant(LeaseState, "_restore_claims")
def a_restart_holds_in_another_order(restore: Around, self: LeaseState, claims: Any, lapses: Any) -> None:
    restore(self, claims, lapses)
    for queues in self.claims.queues.values():
        for child in queues._root.children.values():
            for number in reversed(list(child.held)):
                child.held.move_to_end(number)


@mutant(LeaseState, "_restore_claims")
def a_restart_forgets_the_answers(restore: Around, self: LeaseState, claims: Any, lapses: Any) -> None:
    restore(self, claims, lapses)
    for session in self.sessions_open.every():
        session.replies.clear()


@mutant(Book, "notify")
def nobody_is_told(_: Around, *__: Any) -> None:
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_known_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLIES_PER_SESSION_MAX", 20)
    monkeypatch.setattr(limits, "LAPSED_KEPT_MS", 3000)
    cls, method, around = MUTANTS[name]
    right = getattr(cls, method)
    histories = [Tale(seed).whole(60) for seed in range(12)]
    monkeypatch.setattr(cls, method, lambda self, *asked, **how: around(right, self, *asked, **how))
    more = (Tale(seed) for seed in range(12, 250))
    for entries in histories:
        if failure(entries, run_beside_the_model) or failure(entries, run_beside_others):
            return
    for tale in more:
        monkeypatch.setattr(cls, method, right)
        entries = tale.whole(60)
        monkeypatch.setattr(cls, method, lambda self, *asked, **how: around(right, self, *asked, **how))
        if failure(entries, run_beside_the_model) or failure(entries, run_beside_others):
            return
    pytest.fail("no history finds this bug")
