"""Listings, snapshots and saved rows of the lease state, and what it makes of wrong ones; P1 to P11 are promises."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.ballot import Ballot
from lessor.core.commands import (
    FOREVER,
    Break,
    Claim,
    CreateNamespace,
    CreateSemaphore,
    ListClaims,
    NamespaceConfig,
    Pin,
    PutRegister,
)
from lessor.core.encoding import dumps, encode, loads, to_list
from lessor.core.entries import Batch, Entry, Lead
from lessor.core.errors import Malformed
from lessor.core.lease_state import LeaseState
from lessor.core.records import StateHeader
from lessor.core.resources import Mode, Resource
from lessor.core.results import About, ClaimPage, ClaimPhase, ClaimStatus, NotHeld, Register

from ..support.leases import Leases, a_story, check_consistent, claim, replayed

HELD, WAITING = ClaimPhase.HELD, ClaimPhase.WAITING


# --- listings --------------------------------------------------------------------------------------------------------


def test_describe_shows_the_holder_first_and_then_the_waiters_in_their_order() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    for session in (anna, ben, anna):
        leases.claim(session, "x", ttl_ms=1000, wait_ms=FOREVER)
    page = leases.describe("x")
    assert [(info.claim, info.phase, info.session) for info in page.claims] == [
        (1, HELD, anna),
        (2, WAITING, ben),
        (3, WAITING, anna),
    ]
    assert (page.waiting, page.upto) == (2, 0)


def test_describe_of_a_free_name_is_empty() -> None:
    leases = Leases()
    leases.claim(leases.session(), "x")
    for page in (leases.describe("y"), leases.describe("x", "other")):
        nothing = About(0, ephemeral=False, units=0, data=b"", version=0, pins=(), lapsed=())
        assert page == ClaimPage((), 0, 0, leases.state.revision, (nothing,))


def test_describe_of_a_long_queue_counts_all_and_says_that_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIST_PAGE_MAX", 3)
    leases = Leases()
    anna = leases.session()
    for _ in range(5):
        leases.claim(anna, "x", wait_ms=FOREVER)
    page = leases.describe("x")
    assert (len(page.claims), page.waiting, page.upto) == (3, 4, 3)


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("namespace", ["", "even", "odd", "none"])
def test_a_listing_page_by_page_shows_every_claim_once(limit: int, namespace: str) -> None:
    leases = Leases()
    anna = leases.session()
    for number in range(1, 11):
        leases.claim(anna, f"x{number // 3}", wait_ms=FOREVER, namespace="odd" if number % 2 else "even")
    leases.cancel(anna, 4)
    seen: list[int] = []
    page = None
    while page is None or page.upto:
        page = leases.list_claims(namespace, after=seen[-1] if seen else 0, limit=limit)
        assert len(page.claims) <= limit
        assert page.claims or not page.upto
        seen += [info.claim for info in page.claims]
    wanted = {"": range(1, 11), "odd": range(1, 11, 2), "even": range(2, 11, 2), "none": range(0)}[namespace]
    assert seen == [number for number in wanted if number != 4]


# --- snapshots -------------------------------------------------------------------------------------------------------


def test_a_restored_state_has_the_same_bytes_and_the_same_future_at_every_slot() -> None:  # P1
    log: list[Entry] = a_story().log
    there = LeaseState()
    for slot, entry in enumerate(log, start=1):
        there.apply(slot, entry)
        here = LeaseState.restore(there.snapshot())
        assert here.snapshot() == there.snapshot()
        check_consistent(here)
        rest = list(enumerate(log[slot:], start=slot + 1))
        twin = replayed(log[:slot])
        for later, following in rest:
            assert here.apply(later, following) == twin.apply(later, following)
        assert here.snapshot() == twin.snapshot()


def test_a_retry_finds_its_answer_after_a_restore() -> None:  # P6
    leases = Leases()
    anna = leases.session()
    command = leases.command(anna, claim("x"))
    answer = leases.batch(command)
    restored = Leases(LeaseState.restore(leases.state.snapshot()))
    assert restored.batch(command) == answer
    assert restored.state.held == 1


def test_a_change_is_marked_for_saving_and_a_restored_state_has_none() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x")
    leases.claim(ben, "x", wait_ms=FOREVER)
    leases.state.sessions_open.changed.clear()
    leases.state.claims.changed.clear()
    leases.close(anna)
    assert list(leases.state.sessions_open.changed) == [anna]
    assert sorted(leases.state.claims.changed) == [1, 2]
    assert leases.state.sessions_open.record(anna) is None
    assert leases.state.claims.record(1) is None
    restored = LeaseState.restore(leases.state.snapshot())
    assert not restored.sessions_open.changed
    assert not restored.claims.changed


def test_what_is_saved_of_each_change_adds_up_to_the_state() -> None:  # the lease tables are written so
    sessions: dict[int, bytes] = {}
    claims: dict[int, bytes] = {}
    state = LeaseState()
    for slot, entry in enumerate(a_story().log, start=1):
        state.apply(slot, entry)
        for number in state.sessions_open.changed:
            session = state.sessions_open.record(number)
            sessions[number] = encode(session) if session else b""
        for number in state.claims.changed:
            record = state.claims.record(number)
            claims[number] = encode(record) if record else b""
        state.sessions_open.changed.clear()
        state.claims.changed.clear()
        assert [row for _, row in sorted(sessions.items()) if row] == [
            encode(row) for row in state.sessions_open.records()
        ]
        assert [row for _, row in sorted(claims.items()) if row] == [encode(row) for row in state.claims.records()]


# --- restoring what is no state --------------------------------------------------------------------------------------


def a_full_state() -> LeaseState:
    """A record of each kind: kept answers; what is held, waited for, closed, observed, pinned, overdue, detached."""
    leases = Leases()
    gone, anna, ben = leases.session(timeout_ms=500), leases.session(), leases.session(timeout_ms=90_000)
    leases.claim(gone, "left", ttl_ms=60_000)
    leases.claim(anna, "x", ttl_ms=30_000)
    leases.claim(ben, "x", wait_ms=70_000)
    leases.claim(anna, "x", ttl_ms=5000, wait_ms=FOREVER)
    leases.claim(ben, "detached", ttl_ms=40_000, detached=True)
    leases.claim(ben, "y")
    leases.claim(anna, "y")
    leases.ask(anna, CreateNamespace("n", NamespaceConfig(lock_delay_ms=20_000)))
    leases.ask(anna, CreateSemaphore("n", ("s",), 3, b"s"))
    several = (Resource(("s",), Mode.COUNT, 2), Resource(("e",), Mode.COUNT, 1, 4), Resource(("r",), Mode.READ))
    held = leases.ask(ben, Claim("n", several, "h", b"d", 0, 0, False, 50_000, 1))
    assert isinstance(held, ClaimStatus)
    leases.ask(ben, Claim("n", (Resource(("s",), Mode.COUNT, 2), Resource(("r", "w"))), "w", b"", 0, FOREVER, False))
    leases.ask(ben, Claim("n", (Resource(("s",), Mode.OBSERVE),), "o", b"", 0, FOREVER, False))
    leases.claim(anna, "broken", namespace="n")
    leases.ask(ben, Break(leases.state.header.last_token, "it hung"))
    leases.claim(anna, "short", ttl_ms=200)
    leases.ask(anna, Pin("default", ("short",), "e"))
    written = leases.ask(anna, PutRegister("default", ("x",), 2, 0, b"r"))
    assert isinstance(written, Register)
    leases.describe("x")
    leases.after(600)
    assert (leases.state.sessions, leases.state.held, leases.state.waiting) == (2, 6, 4)
    assert all(len(table) for table in leases.state.tables.values()), "a record of each kind"
    return leases.state


Records = list[Any]
"""The header, and the lists of records in the order of their kinds."""

SESSIONS, CLAIMS, LAPSES, SEMAPHORES, PINS, REGISTERS, NAMESPACES = range(1, 8)


def packed(records: Records) -> bytes:
    header, *rows = records
    return dumps([to_list(header), *([to_list(row) for row in part] for part in rows)])


def no_resource(records: Records) -> None:
    records[2][0].resources = ()


def two_of_one_token(records: Records) -> None:
    records[2][0].token = records[2][1].token


def two_that_hold_one_name(records: Records) -> None:
    records[2][2].token = records[0].last_token = 99


def one_that_waits_for_a_free_name(records: Records) -> None:
    del records[2][1]


def a_token_that_was_never_given(records: Records) -> None:
    records[0].last_token = 3


def a_claim_that_was_never_given(records: Records) -> None:
    records[0].last_claim = 5


def a_session_that_was_never_given(records: Records) -> None:
    records[0].last_session = 2


def two_sessions_of_one_key(records: Records) -> None:
    records[1][0].key = records[1][1].key


def a_key_of_another_size(records: Records) -> None:
    records[1][0].key = b""


def one_session_twice(records: Records) -> None:
    records[1].append(records[1][0])


def a_session_without_a_number(records: Records) -> None:
    records[1][0].session = 0


def one_claim_twice(records: Records) -> None:
    records[2].append(records[2][0])


def a_claim_of_a_session_that_is_not_there(records: Records) -> None:
    records[2][1].session = 9


def a_lease_of_nobody_without_an_end(records: Records) -> None:
    records[2][0].ends_at_ms = 0


def one_that_waits_for_nobody(records: Records) -> None:
    records[2][2].session = 0


def a_ttl_without_a_deadline(records: Records) -> None:
    records[2][1].ends_at_ms = 0


def a_detached_lease_without_a_ttl(records: Records) -> None:
    records[2][5].detached = True


def a_leader_that_took_over_in_the_future(records: Records) -> None:
    records[0].base_ms = records[0].clock_ms + 1


def the_same_path_twice(records: Records) -> None:
    claim = records[CLAIMS][6]
    claim.resources = (*claim.resources, Resource(("s",), Mode.READ))


def more_units_than_there_are(records: Records) -> None:
    records[SEMAPHORES][0].limit = 1


def an_observer_that_holds(records: Records) -> None:
    records[CLAIMS][8].token = records[0].last_token = 99


def an_observer_that_has_seen_nothing(records: Records) -> None:
    records[CLAIMS][8].watermark = 0


def one_that_is_overdue_and_not_pinned(records: Records) -> None:
    records[PINS][0].path = ("other",)


def one_that_is_held_for_longer_than_it_may_be(records: Records) -> None:
    records[CLAIMS][6].ends_at_ms += 1


def a_closed_name_that_is_held(records: Records) -> None:
    records[LAPSES][0].namespace, records[LAPSES][0].resources = "default", (Resource(("y",)),)


def a_lapse_of_a_claim_that_is_there(records: Records) -> None:
    records[LAPSES][0].claim = records[CLAIMS][0].claim


def a_record_that_was_never_given(records: Records) -> None:
    records[0].last_item = 1


def two_records_of_one_number(records: Records) -> None:
    records[PINS][0].number = records[REGISTERS][0].number


def two_records_of_one_thing(records: Records) -> None:
    records[PINS].append(replace(records[PINS][0], number=records[0].last_item + 1))
    records[0].last_item += 1


def a_namespace_twice(records: Records) -> None:
    records[NAMESPACES].append(replace(records[NAMESPACES][0], number=records[0].last_item + 1))
    records[0].last_item += 1


def a_pin_of_nobody(records: Records) -> None:
    records[PINS][0].entities = ()


def a_register_without_a_version(records: Records) -> None:
    records[REGISTERS][0].version = 0


def a_register_with_a_version_that_was_never_given(records: Records) -> None:
    records[REGISTERS][0].version = records[0].revision + 1


TAMPERED = [
    no_resource,
    two_of_one_token,
    two_that_hold_one_name,
    one_that_waits_for_a_free_name,
    a_token_that_was_never_given,
    a_claim_that_was_never_given,
    a_session_that_was_never_given,
    two_sessions_of_one_key,
    a_key_of_another_size,
    one_session_twice,
    a_session_without_a_number,
    one_claim_twice,
    a_claim_of_a_session_that_is_not_there,
    a_lease_of_nobody_without_an_end,
    one_that_waits_for_nobody,
    a_ttl_without_a_deadline,
    a_detached_lease_without_a_ttl,
    a_leader_that_took_over_in_the_future,
    the_same_path_twice,
    more_units_than_there_are,
    an_observer_that_holds,
    an_observer_that_has_seen_nothing,
    one_that_is_overdue_and_not_pinned,
    one_that_is_held_for_longer_than_it_may_be,
    a_closed_name_that_is_held,
    a_lapse_of_a_claim_that_is_there,
    a_record_that_was_never_given,
    two_records_of_one_number,
    two_records_of_one_thing,
    a_namespace_twice,
    a_pin_of_nobody,
    a_register_without_a_version,
    a_register_with_a_version_that_was_never_given,
]


@pytest.mark.parametrize("tamper", TAMPERED)
def test_records_that_do_not_fit_together_are_refused(tamper: Callable[[Records], None]) -> None:  # P11
    state = a_full_state()
    records = [state.header, *(table.records() for table in state.tables.values())]
    assert LeaseState.restore(packed(records)).snapshot() == state.snapshot()
    tamper(records)
    with pytest.raises(Malformed):
        LeaseState.restore(packed(records))


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [[]] * 7,
        [[]] * 9,
        [to_list(StateHeader()), *[[]] * 6],
        [1, *[[]] * 7],
        [[120], *[[]] * 7],
        [to_list(StateHeader()), [1], *[[]] * 6],
        [to_list(StateHeader()), [], [to_list(NotHeld())], *[[]] * 5],
        [to_list(StateHeader()), [to_list(StateHeader())], *[[]] * 6],
        [to_list(NotHeld()), *[[]] * 7],
        {},
        "snapshot",
        None,
    ],
    ids=str,
)
def test_what_is_no_snapshot_is_refused(parts: Any) -> None:  # P11
    with pytest.raises(Malformed):
        LeaseState.restore(dumps(parts))


def test_damaged_bytes_of_a_snapshot_are_malformed_or_another_state_and_nothing_else() -> None:  # P11
    data = a_full_state().snapshot()
    for seed in range(8000):
        chance = Random(seed)
        damaged = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            at = chance.randrange(len(damaged))
            match chance.randrange(5):
                case 0:
                    damaged[at] ^= 1 << chance.randrange(8)
                case 1:
                    damaged[at] = chance.randrange(256)
                case 2:
                    del damaged[at:]
                    damaged += b"\0"
                case 3:
                    del damaged[at : at + chance.randrange(1, 9)]
                    damaged += b"\0"
                case _:
                    damaged[at:at] = chance.randbytes(chance.randrange(1, 9))
        try:
            LeaseState.restore(bytes(damaged))
        except Malformed:
            pass
        except BaseException as error:  # noqa: BLE001 - a panic in the decoder is told with its bytes too
            pytest.fail(f"seed {seed}: LeaseState.restore(bytes.fromhex({damaged.hex()!r})) raised {error!r}")


def numbers_in(part: Any) -> list[tuple[list[Any], int]]:
    """Where in nested lists the whole numbers stand, the codes at their beginnings left out."""
    found = []
    for index, item in enumerate(part):
        if type(item) is list:
            found += numbers_in(item)
        elif type(item) is int and index:
            found.append((part, index))
    return found


@pytest.mark.deep
def test_what_is_restored_from_tampered_records_is_consistent_and_can_go_on() -> None:  # P11
    data = a_full_state().snapshot()
    restored = 0
    for seed in range(3000):
        chance = Random(seed)
        parts = loads(data)
        numbers = numbers_in(parts)
        for _ in range(chance.choice((1, 1, 2, 3))):
            where, index = chance.choice(numbers)
            other, at = chance.choice(numbers)
            where[index] = chance.choice((other[at], where[index] + 1, max(where[index] - 1, 0), 0))
        if chance.random() < 0.2:
            rows = chance.choice(parts[1:])
            del rows[chance.randrange(len(rows))]
        try:
            state = LeaseState.restore(dumps(parts))
        except Malformed:
            continue
        restored += 1
        try:
            check_consistent(state)
            go_on(state)
            check_consistent(state)
        except Exception as error:  # noqa: BLE001 - each kind of failure is told with the seed that leads to it
            pytest.fail(f"seed {seed}: LeaseState.restore(bytes.fromhex({dumps(parts).hex()!r})): {error!r}")
    assert restored > 200, "not all of it is refused"


def go_on(state: LeaseState) -> None:
    """A new leader lets the time pass in which everything ends."""
    term = Ballot(state.header.term.counter + 1, 1)
    leases = Leases(state)
    leases.apply(Lead(term))
    listing = leases.command(0, ListClaims("", 0, 100))
    for elapsed_ms in (0, 10_000, 50_000, 10**9):
        leases.apply(Batch(term, elapsed_ms, (encode(listing),)))
