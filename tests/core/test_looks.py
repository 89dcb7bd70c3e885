"""What can be asked without changing anything: descriptions, listings, events by revision; and observers."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import (
    ANY_VERSION,
    FOREVER,
    LOOKS,
    Claim,
    CreateNamespace,
    CreateSemaphore,
    Describe,
    EraseRegister,
    ListRecords,
    NamespaceConfig,
    Pin,
    PutRegister,
    ReadEvents,
    Validate,
)
from lessor.core.lease_state import LeaseState
from lessor.core.resources import Mode, Resource
from lessor.core.results import ClaimPhase, ClaimStatus, EventPage, NotHeld, RecordPage, Valid

from ..support.leases import Leases, a_full_listing, check_consistent


class Desk(Leases):
    """Leases of one session, and what can be asked of them."""

    def __init__(self) -> None:
        super().__init__()
        self.anna, self.ben = self.session(timeout_ms=600_000), self.session(timeout_ms=600_000)

    def take(self, *resources: Resource, session: int = 0, wait_ms: int = FOREVER, ttl_ms: int = 0) -> Any:
        answer = self.ask(session or self.anna, Claim("n", resources, "h", b"", ttl_ms, wait_ms, detached=False))
        check_consistent(self.state)
        return answer

    def observe(self, *path: str, wait_ms: int = FOREVER) -> Any:
        return self.take(Resource(path, Mode.OBSERVE), session=self.ben, wait_ms=wait_ms)

    def read_events(self, *path: str, below: bool = False, after: int = 0, limit: int = 100) -> EventPage:
        page = self.ask(0, ReadEvents("n", path, below, after, limit))
        assert isinstance(page, EventPage)
        return page

    def freed(self) -> list[int]:
        """The observers that were told since the last call that it is free."""
        return [status.claim for status in self.told(self.ben) if status.why == "it is free"]


# --- descriptions ----------------------------------------------------------------------------------------------------


def test_describe_shows_what_overlaps_with_what_stands_on_the_path_first() -> None:
    desk = Desk()
    for path in ((), ("a", "b"), ("a",), ("c",), ("a", "b", "c")):
        desk.take(Resource(path))
    page: Any = desk.ask(0, Describe("n", ("a", "b")))
    assert [info.claim for info in page.claims] == [2, 3, 1, 5], "itself, what is above, what is below"
    assert page.waiting == 1
    assert page.revision == desk.state.revision


def test_describe_shows_a_claim_on_several_paths_once() -> None:
    desk = Desk()
    desk.take(Resource(("a", "b")), Resource(("a", "c")))
    page: Any = desk.ask(0, Describe("n", ("a",)))
    assert [info.resources for info in page.claims] == [(Resource(("a", "b")), Resource(("a", "c")))]


def test_describe_tells_all_that_is_known_of_a_path() -> None:
    desk = Desk()
    desk.ask(desk.anna, CreateSemaphore("n", ("s",), 5, b"data"))
    desk.take(Resource(("s",), Mode.COUNT, 3))
    desk.take(Resource(("s",), Mode.READ))
    desk.ask(desk.anna, Pin("n", ("s",), "e"))
    [about] = desk.describe("s", "n").about
    assert (about.limit, about.ephemeral, about.units, about.data, about.pins) == (5, False, 4, b"data", ("e",))
    desk.take(Resource(("e",), Mode.COUNT, 1, 4))
    [about] = desk.describe("e", "n").about
    assert (about.limit, about.ephemeral, about.units) == (4, True, 1)


def test_a_token_is_valid_while_its_grant_is_held() -> None:  # Chubby's CheckSequencer
    desk = Desk()
    held = desk.take(Resource(("x",)))
    valid = desk.ask(0, Validate(held.token))
    assert isinstance(valid, Valid)
    assert (valid.claim.claim, valid.claim.path) == (held.claim, ("x",))
    desk.release(desk.anna, held.token)
    assert desk.ask(0, Validate(held.token)) == desk.ask(0, Validate(99)) == desk.ask(0, Validate(0)) == NotHeld()


# --- listings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("kind", ["sessions", "semaphores", "pins", "registers", "namespaces"])
def test_a_listing_page_by_page_shows_every_record_once(kind: str, limit: int) -> None:
    desk = a_full_listing()
    seen: list[Any] = []
    after = 0
    while True:
        page = desk.ask(0, ListRecords(kind, "", after, limit))
        assert isinstance(page, RecordPage)
        assert len(page.records) <= limit
        seen += page.records
        after = page.upto
        if not after:
            break
    assert len(seen) == 5
    assert [info.number for info in seen] == sorted({info.number for info in seen})
    one = desk.ask(0, ListRecords(kind, "odd", 0, 100))
    assert isinstance(one, RecordPage)
    odd = [info for info in seen if "odd" in (getattr(info, "namespace", ""), getattr(info, "name", ""))]
    assert list(one.records) == odd
    assert odd


@pytest.mark.parametrize("kind", ["sessions", "semaphores", "pins", "registers", "namespaces"])
def test_a_listing_looks_at_a_bounded_number_of_records_and_comes_to_its_end_all_the_same(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    desk = a_full_listing()
    whole: dict[str, Any] = {name: desk.ask(0, ListRecords(kind, name, 0, 100)) for name in ("", "odd", "nowhere")}
    monkeypatch.setattr(limits, "LIST_LOOK_MAX", 2)
    for name, expected in whole.items():
        pages: list[Any] = [desk.ask(0, ListRecords(kind, name, 0, 100))]
        while pages[-1].upto:
            pages.append(desk.ask(0, ListRecords(kind, name, pages[-1].upto, 100)))
        assert [info for page in pages for info in page.records] == list(expected.records)
        assert len(pages) == 3, "two of the five at a time"


def test_what_is_gone_is_not_listed_and_leaves_nothing_behind() -> None:  # P10
    desk = Desk()
    held = desk.take(Resource(()))
    desk.ask(desk.anna, PutRegister("n", ("kept",), held.token, ANY_VERSION, b""))
    for number in range(1010):
        desk.ask(
            desk.anna, PutRegister("n", (str(number),), held.token, ANY_VERSION, b""), acked_below=desk.last_number
        )
        desk.ask(desk.anna, EraseRegister("n", (str(number),), held.token, ANY_VERSION))
        desk.close(desk.session())
    for kind, count in (("registers", 1), ("sessions", 2)):
        page: Any = desk.ask(0, ListRecords(kind, "", 0, 100))
        assert (len(page.records), page.upto) == (count, 0)
    assert len(desk.state.registers.shelf._numbers) < 1010
    assert len(desk.state.sessions_open._numbers) < 1010
    check_consistent(desk.state)


def test_a_page_of_large_records_is_cut_by_its_size() -> None:  # P10
    desk = Desk()
    for number in range(12):
        desk.ask(desk.anna, CreateSemaphore("n", (str(number),), 1, b"x" * limits.DATA_BYTES_MAX))
    page = desk.ask(0, ListRecords("semaphores", "", 0, 100))
    assert isinstance(page, RecordPage)
    assert 1 < len(page.records) < 8
    assert page.upto == page.records[-1].number


def test_who_only_looks_changes_nothing() -> None:
    desk = a_full_listing()
    before = desk.state.header.revision, list(desk.state.tables["claims"].records())
    desk.state.forget_changes()
    looks: list[Any] = [Describe("n", ("x",)), ListRecords("pins", "", 0, 9), Validate(1)]
    looks.append(ReadEvents("n", (), below=True, after=0, limit=9))
    assert all(isinstance(look, LOOKS) for look in looks)
    for look in looks:
        desk.ask(0, look)
    assert (desk.state.header.revision, desk.state.tables["claims"].records()) == before
    assert not any(table.changed for table in desk.state.tables.values())


# --- events ----------------------------------------------------------------------------------------------------------


def test_events_of_a_path_are_those_of_each_claim_that_asks_for_it() -> None:
    desk = Desk()
    held = desk.take(Resource(("a",)), Resource(("b", "c")))
    desk.take(Resource(("d",)))
    desk.release(desk.anna, held.token)
    for path in (("a",), ("b", "c")):
        assert [event.kind for event in desk.read_events(*path).events] == ["granted", "released"]
    assert desk.read_events("b").events == ()
    assert [event.kind for event in desk.read_events("b", below=True).events] == ["granted", "released"]
    assert len(desk.read_events(below=True).events) == 3
    everything = desk.ask(0, ReadEvents("", (), True, 0, 100))
    assert isinstance(everything, EventPage)
    assert len(everything.events) == desk.state.revision


def test_events_are_read_on_from_where_the_last_page_ended() -> None:
    desk = Desk()
    for _ in range(7):
        desk.release(desk.anna, desk.take(Resource(("a",))).token)
    seen: list[int] = []
    upto = 0
    while upto < desk.state.revision:
        page = desk.read_events("a", after=upto, limit=3)
        assert (len(page.events) <= 3, page.missed_upto) == (True, 0)
        seen += [event.revision for event in page.events]
        assert page.upto > upto, "each page brings the reader further"
        upto = page.upto
    assert seen == [event.revision for event in desk.events if event.path == ("a",)]
    assert desk.read_events("a", after=upto) == EventPage((), upto, 0)


def test_whoever_comes_too_late_is_told_up_to_where_he_may_have_missed_events() -> None:
    desk = Desk()
    for _ in range(5):
        desk.release(desk.anna, desk.take(Resource(("a",))).token)
    revision = desk.state.revision
    restarted = Desk.__new__(Desk)
    Leases.__init__(restarted, LeaseState.restore(desk.state.snapshot()))
    restarted.anna, restarted.ben = desk.anna, desk.ben
    assert restarted.read_events("a", after=3) == EventPage((), revision, revision), "a restart remembers none"
    assert restarted.read_events("a", after=revision) == EventPage((), revision, 0), "nothing was missed"
    restarted.last_number = 500
    restarted.take(Resource(("a",)))
    page = restarted.read_events("a", after=3)
    assert ([event.kind for event in page.events], page.missed_upto) == (["granted"], revision)


# --- observers -------------------------------------------------------------------------------------------------------


def test_who_observes_what_is_free_is_told_so_at_once_and_leaves_nothing_behind() -> None:  # P10
    desk = Desk()
    assert desk.observe("x") == ClaimStatus(0, ClaimPhase.GONE, 0, 0, 0, why="it is free")
    desk.take(Resource(("x",)))
    assert desk.observe("x", wait_ms=0).why == "it is held"
    assert desk.state.waiting == 0


def test_an_observer_is_told_when_the_grant_that_it_found_has_ended_even_if_the_next_one_has_begun() -> None:
    desk = Desk()
    held = desk.take(Resource(("x",)))
    desk.take(Resource(("x",)))
    one = desk.observe("x")
    assert one.phase == ClaimPhase.WAITING
    desk.release(desk.anna, held.token)
    assert desk.freed() == [one.claim], "no wake-up is lost to the next holder (Juju)"


def test_an_observer_is_in_nobodys_way() -> None:
    desk = Desk()
    held = desk.take(Resource(("x",)))
    desk.observe("x")
    second = desk.take(Resource(("x",)))
    assert second.waiters_ahead == 0
    desk.release(desk.anna, held.token)
    assert [status.phase for status in desk.told(desk.anna)] == [ClaimPhase.HELD]


def test_an_observer_sees_the_end_of_what_is_above_and_below() -> None:
    desk = Desk()
    above, below = desk.take(Resource(("a",), Mode.READ)), desk.take(Resource(("a", "b", "c"), Mode.READ))
    one = desk.observe("a", "b")
    desk.release(desk.anna, above.token)
    assert desk.freed() == []
    desk.release(desk.anna, below.token)
    assert desk.freed() == [one.claim]


def test_an_observer_sees_expiry_and_waits_until_a_closed_name_opens() -> None:
    desk = Desk()
    desk.ask(desk.anna, CreateNamespace("n", NamespaceConfig(lock_delay_ms=500)))
    desk.take(Resource(("x",)), ttl_ms=1000)
    one = desk.observe("x")
    desk.after(1000)
    assert desk.freed() == []
    desk.after(500)
    assert desk.freed() == [one.claim]


def test_an_observer_leaves_when_its_patience_ends_or_it_is_cancelled_or_its_session_ends() -> None:
    desk = Desk()
    desk.take(Resource(("x",)))
    desk.observe("x", wait_ms=500)
    second = desk.observe("x")
    desk.observe("x")
    desk.after(500)
    assert [status.why for status in desk.told(desk.ben)] == ["timed_out"]
    desk.cancel(desk.ben, second.claim)
    desk.close(desk.ben)
    assert desk.state.waiting == 0
    check_consistent(desk.state)


def test_a_register_and_a_pin_are_no_grants_to_an_observer() -> None:
    desk = Desk()
    held = desk.take(Resource(("x",)))
    desk.ask(desk.anna, PutRegister("n", ("x",), held.token, 0, b""))
    desk.ask(desk.anna, Pin("n", ("x",), "e"))
    desk.release(desk.anna, held.token)
    assert desk.observe("x").why == "it is free"
