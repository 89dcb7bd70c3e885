"""Pins: no lease on a pinned path expires, whoever holds it, now or later (Juju's stable leadership)."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import Adopt, Claim, ListRecords, Pin, Unpin
from lessor.core.lease_state import LeaseState
from lessor.core.resources import Resource
from lessor.core.results import Done, Failed, RecordPage

from ..support.leases import Leases, check_consistent


class Desk(Leases):
    """Leases whose `x` can be pinned."""

    def __init__(self) -> None:
        super().__init__()
        self.anna, self.ben = self.session(timeout_ms=600_000), self.session(timeout_ms=600_000)

    def pin(self, entity: str, name: str = "x") -> Any:
        return self.ask(self.anna, Pin("default", (name,), entity))

    def unpin(self, entity: str, name: str = "x") -> Any:
        done = self.ask(self.anna, Unpin("default", (name,), entity))
        check_consistent(self.state)
        return done

    def after(self, ms: int) -> None:
        super().after(ms)
        check_consistent(self.state)


def test_a_pinned_lease_does_not_expire_until_its_last_pin_is_gone() -> None:
    desk = Desk()
    desk.claim(desk.ben, "x", ttl_ms=1000)
    assert desk.pin("machine-1") == desk.pin("machine-2") == Done(changed=True)
    assert desk.pin("machine-1") == Done(changed=False)
    desk.after(5000)
    desk.unpin("machine-1")
    assert desk.holding_token("x") == 1
    desk.unpin("machine-2")
    assert desk.holder("x") is None
    assert [status.why for status in desk.told(desk.ben)] == ["it was overdue, and its last pin is gone"]


def test_a_lease_whose_pin_goes_in_time_lives_on_to_its_deadline() -> None:  # P4
    desk = Desk()
    desk.claim(desk.ben, "x", ttl_ms=1000)
    desk.pin("e")
    desk.after(900)
    desk.unpin("e")
    assert desk.holding_token("x") == 1
    desk.after(100)
    assert desk.holder("x") is None


def test_a_pin_on_a_free_name_applies_to_whoever_claims_it_next_and_after_him() -> None:
    desk = Desk()
    desk.pin("e")
    for _ in range(2):
        token = desk.claim(desk.ben, "x", ttl_ms=1000).token
        desk.after(2000)
        assert desk.holding_token("x") == token
        desk.release(desk.ben, token)


def test_an_overdue_lease_can_be_renewed_and_then_ends_at_its_new_deadline() -> None:
    desk = Desk()
    desk.claim(desk.ben, "x", ttl_ms=1000)
    desk.pin("e")
    desk.after(3000)
    desk.renew(desk.ben, 1)
    desk.unpin("e")
    desk.after(999)
    assert desk.holding_token("x") == 1
    desk.after(1)
    assert desk.holder("x") is None


def test_a_pinned_lease_survives_its_session_and_can_be_adopted() -> None:
    desk = Desk()
    gone = desk.session(timeout_ms=1000)
    desk.claim(gone, "x")
    desk.pin("e")
    desk.after(1000)
    assert desk.holding_token("x") == 1
    adopted: Any = desk.ask(desk.ben, Adopt(1))
    assert adopted.expires_at_ms == desk.state.clock_ms + 600_000, "as long as its new session"
    desk.unpin("e")
    assert desk.holding_token("x") == 1, "it is overdue no longer"
    desk.close(desk.ben)
    assert desk.holder("x") is None


def test_a_pinned_lease_of_a_session_that_is_gone_ends_with_its_pin() -> None:
    desk = Desk()
    gone = desk.session(timeout_ms=1000)
    desk.claim(gone, "x")
    desk.pin("e")
    desk.after(1000)
    desk.unpin("e")
    assert desk.holder("x") is None


def held_for_long_by_one_whose_session_is_gone() -> Desk:
    """`x` may be held for an hour, by nobody's leave but that of a session that has expired, and of a pin."""
    desk = Desk()
    gone = desk.session(timeout_ms=1000)
    desk.ask(gone, Claim("default", (Resource(("x",)),), "carl", b"", 0, 0, detached=False, max_hold_ms=3_600_000))
    desk.pin("machine-1")
    desk.after(5000)
    assert desk.holding_token("x") == 1
    return desk


def test_a_pinned_lease_without_a_ttl_whose_session_is_gone_ends_with_its_pin_though_it_might_be_held_longer() -> None:
    desk = held_for_long_by_one_whose_session_is_gone()
    desk.unpin("machine-1")
    assert desk.holder("x") is None


def test_p1_one_that_is_adopted_may_be_held_as_long_as_before_on_a_node_that_was_restored_too() -> None:
    desk = held_for_long_by_one_whose_session_is_gone()
    twin = Leases(LeaseState.restore(desk.state.snapshot()))
    twin.last_number = desk.last_number
    for leases in (desk, twin):
        leases.ask(desk.ben, Adopt(1))
        leases.ask(desk.anna, Unpin("default", ("x",), "machine-1"))
        for _ in range(9):
            leases.after(400_000)
            leases.ping(desk.ben)
    assert twin.state.snapshot() == desk.state.snapshot()
    assert desk.holder("x") is None, "an hour is over"


def test_a_pin_holds_nobody_who_wants_to_go() -> None:
    desk = Desk()
    desk.pin("e")
    desk.claim(desk.ben, "x", ttl_ms=1000)
    desk.release(desk.ben, 1)
    desk.claim(desk.ben, "x")
    desk.close(desk.ben)
    assert desk.holder("x") is None


def test_a_claim_on_several_paths_is_kept_by_a_pin_on_any_of_them() -> None:
    desk = Desk()
    both = (Resource(("x",)), Resource(("y",)))
    desk.ask(desk.ben, Claim("default", both, "h", b"", 1000, 0, detached=False))
    desk.pin("e", "x")
    desk.pin("e", "y")
    desk.after(2000)
    desk.unpin("e", "x")
    assert desk.holding_token("y") == 1
    desk.unpin("e", "y")
    assert desk.holder("x") is None


def test_pins_are_listed_and_leave_nothing_behind() -> None:  # P10
    desk = Desk()
    desk.pin("e")
    desk.pin("f")
    page = desk.ask(0, ListRecords("pins", "default", 0, 10))
    assert isinstance(page, RecordPage)
    assert [(info.path, info.entities) for info in page.records] == [(("x",), ("e", "f"))]  # type: ignore[union-attr]
    assert desk.describe("x").about[0].pins == ("e", "f")
    for entity in "fe":
        assert desk.unpin(entity) == Done(changed=True)
        assert desk.unpin(entity) == Done(changed=False)
    assert len(desk.state.pins.shelf) == 0


def test_no_more_pins_are_taken_than_the_limits_allow(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "PINS_PER_NAME_MAX", 1)
    monkeypatch.setattr(limits, "PINS_MAX", 1)
    desk = Desk()
    desk.pin("e")
    for refused in (desk.pin("f"), desk.pin("e", "y")):
        assert isinstance(refused, Failed)
        assert refused.code == "too_many"
    assert desk.pin("e") == Done(changed=False)
