"""Leases that lapsed: readable until granted again or swept, with the reason; their names closed for the lock-delay."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import FOREVER, Break, Claim, CreateNamespace, NamespaceConfig
from lessor.core.lease_state import LeaseState
from lessor.core.resources import Mode, Resource
from lessor.core.results import ClaimPhase, ClaimStatus, Denied, Failed, Lapsed

from ..support.leases import Leases, check_consistent


class Desk(Leases):
    """Leases in a namespace with a lock-delay of half a second, and in one without."""

    def __init__(self) -> None:
        super().__init__()
        self.anna, self.ben = self.session(timeout_ms=600_000), self.session(timeout_ms=600_000)
        self.ask(self.anna, CreateNamespace("slow", NamespaceConfig(lock_delay_ms=500)))

    def after(self, ms: int) -> None:
        super().after(ms)
        check_consistent(self.state)

    def lapsed(self, name: str, namespace: str = "default") -> Lapsed | None:
        [about] = self.describe(name, namespace).about
        return about.lapsed[0] if about.lapsed else None

    def slow(self, session: int, *resources: Resource, ttl_ms: int = 0, wait_ms: int = FOREVER) -> Any:
        return self.ask(session, Claim("slow", resources, "h", b"", ttl_ms, wait_ms, detached=False))


X = Resource(("x",))


def test_a_lease_that_expired_can_be_read_until_its_name_is_granted_again() -> None:  # TrexLock
    desk = Desk()
    desk.claim(desk.anna, "x", ttl_ms=1000)
    desk.after(1000)
    expected = Lapsed(1, "holder of x", 1, since_ms=0, ended_at_ms=1000, closed_until_ms=0, why="expired")
    assert desk.lapsed("x") == expected
    desk.claim(desk.ben, "y")
    assert desk.lapsed("x") == expected
    desk.claim(desk.ben, "x")
    assert desk.lapsed("x") is None


def test_a_lease_that_expired_is_forgotten_after_a_while() -> None:  # P10
    desk = Desk()
    desk.claim(desk.anna, "x", ttl_ms=1000)
    desk.after(1000)
    desk.after(limits.LAPSED_KEPT_MS - 1)
    assert desk.lapsed("x") is not None
    desk.after(1)
    assert desk.lapsed("x") is None
    assert len(desk.state.lapses) == 0


def test_what_was_released_leaves_nothing_behind() -> None:  # P10
    desk = Desk()
    desk.claim(desk.anna, "x", ttl_ms=1000)
    desk.release(desk.anna, 1)
    assert desk.lapsed("x") is None
    gone = desk.session()
    desk.claim(gone, "x")
    desk.close(gone)
    assert desk.lapsed("x") is None
    assert len(desk.state.lapses) == 0


def test_the_reason_is_told_to_the_holder_to_whoever_describes_it_and_to_whoever_asks_later() -> None:  # P8
    desk = Desk()
    desk.claim(desk.anna, "x", ttl_ms=1000)
    desk.ask(desk.ben, Break(1, "it hung"))
    assert [status.why for status in desk.told(desk.anna)] == ["it hung"]
    found = desk.lapsed("x")
    assert found is not None
    assert found.why == "it hung"
    assert desk.ping(desk.anna, 1).claims[0].why == "it hung"
    assert desk.events[-1].why == "it hung"


def test_a_maximum_hold_ends_a_lease_however_often_it_is_renewed() -> None:
    desk = Desk()
    asked = Claim("default", (X,), "h", b"", 1000, 0, detached=False, max_hold_ms=2500)
    held: Any = desk.ask(desk.anna, asked)
    assert held.hold_until_ms == 2500
    for expected in (1900, 2500, 2500):
        desk.after(900 if expected == 1900 else 700)
        assert desk.renew(desk.anna, held.token).expires_at_ms == expected  # type: ignore[union-attr]
    desk.after(200)
    [told] = desk.told(desk.anna)
    assert (told.phase, told.why) == (ClaimPhase.GONE, "it was held for as long as it may be")


@pytest.mark.parametrize("end", ["expired", "broken", "its session expired"])
def test_after_an_unclean_end_the_name_is_closed_for_the_lock_delay(end: str) -> None:  # Consul
    desk = Desk()
    gone = desk.session(timeout_ms=1000 if end == "its session expired" else 600_000)
    desk.slow(gone, X, ttl_ms=1000 if end == "expired" else 0)
    desk.slow(desk.ben, X)
    desk.after(1000)
    if end == "broken":
        desk.ask(desk.ben, Break(1, "broken"))
    found = desk.lapsed("x", "slow")
    assert found is not None
    assert (found.why, found.closed_until_ms) == (end, 1500)
    denied = desk.slow(desk.anna, X, wait_ms=0)
    assert denied == Denied("", 0, 1500, denied.why), "nobody holds it, and nobody gets it"
    assert denied.why == f"'x' in namespace 'slow' stays closed for a while: a lease of 'h' ended there, {end}"
    desk.after(499)
    assert desk.told(desk.ben) == []
    desk.after(1)
    assert [status.phase for status in desk.told(desk.ben)] == [ClaimPhase.HELD]
    assert desk.lapsed("x", "slow") is None


def test_a_closed_name_that_nobody_waits_for_is_denied_without_a_holder() -> None:
    desk = Desk()
    desk.slow(desk.anna, X, ttl_ms=1000)
    desk.after(1000)
    denied = desk.slow(desk.ben, X, wait_ms=0)
    assert (denied.holder, denied.token) == ("", 0)
    assert "'x' in namespace 'slow' stays closed" in denied.why


def test_who_is_denied_because_of_what_lies_below_is_told_so() -> None:
    desk = Desk()
    desk.slow(desk.anna, Resource(("x", "below")))
    for path, named in ((("x",), "something below 'x' in namespace 'slow'"), ((), "below the whole namespace 'slow'")):
        denied = desk.slow(desk.ben, Resource(("y",)), Resource(path), wait_ms=0)
        assert (denied.holder, denied.token, denied.expires_at_ms) == ("", 0, 0)
        assert named in denied.why


def test_a_release_opens_the_name_at_once() -> None:
    desk = Desk()
    desk.slow(desk.anna, X)
    desk.slow(desk.ben, X)
    desk.release(desk.anna, 1)
    assert [status.phase for status in desk.told(desk.ben)] == [ClaimPhase.HELD]


def test_a_closed_name_keeps_what_overlaps_it_closed_and_lets_readers_in_beside_readers() -> None:
    desk = Desk()
    desk.slow(desk.anna, Resource(("x", "1")), ttl_ms=1000)
    desk.slow(desk.anna, Resource(("y",), Mode.READ), ttl_ms=1000)
    desk.after(1000)
    for path in ((), ("x",), ("x", "1", "a")):
        assert isinstance(desk.slow(desk.ben, Resource(path), wait_ms=0), Denied)
    assert isinstance(desk.slow(desk.ben, Resource(("x", "2")), wait_ms=0), ClaimStatus)
    assert isinstance(desk.slow(desk.ben, Resource(("y",), Mode.READ), wait_ms=0), ClaimStatus)


def test_units_of_a_semaphore_stay_taken_while_it_is_closed() -> None:
    desk = Desk()
    desk.slow(desk.anna, Resource(("s",), Mode.COUNT, 2, 3), ttl_ms=1000)
    desk.slow(desk.ben, Resource(("s",), Mode.COUNT, 1, 3))
    desk.after(1000)
    assert isinstance(desk.slow(desk.ben, Resource(("s",), Mode.COUNT, 1, 3), wait_ms=0), Denied)
    desk.after(500)
    assert isinstance(desk.slow(desk.ben, Resource(("s",), Mode.COUNT, 2, 3), wait_ms=0), ClaimStatus)


def test_a_waiter_whose_patience_ends_when_the_name_opens_gets_his_turn() -> None:  # P7
    desk = Desk()
    desk.slow(desk.anna, X, ttl_ms=1000)
    desk.slow(desk.ben, X, wait_ms=1500)
    desk.after(1000)
    desk.after(500)
    assert [status.phase for status in desk.told(desk.ben)] == [ClaimPhase.HELD]


def test_only_the_latest_of_those_that_lapsed_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "LAPSED_MAX", 3)
    desk = Desk()
    for number in range(9):
        desk.claim(desk.anna, f"x{number}", ttl_ms=1000)
    desk.after(1000)
    assert [number for number in range(9) if desk.lapsed(f"x{number}")] == [6, 7, 8]
    assert len(desk.state.lapses) == 3


def test_a_closed_name_keeps_no_other_lapse_from_being_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "LAPSED_MAX", 3)
    desk = Desk()
    desk.slow(desk.anna, X, ttl_ms=1000)
    for number in range(9):
        desk.claim(desk.anna, f"x{number}", ttl_ms=1001)
    desk.after(1001)
    assert [number for number in range(9) if desk.lapsed(f"x{number}")] == [6, 7, 8]
    assert desk.lapsed("x", "slow") is not None, "what is closed is not forgotten for it"
    desk.after(500)
    assert desk.lapsed("x", "slow") is None, "it is the oldest, and now it is open"
    assert [number for number in range(9) if desk.lapsed(f"x{number}")] == [6, 7, 8]


def test_what_lapsed_is_forgotten_in_time_behind_a_name_that_is_still_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # P10
    monkeypatch.setattr(limits, "LAPSED_KEPT_MS", 100)
    desk = Desk()
    desk.slow(desk.anna, X, ttl_ms=1000)
    desk.claim(desk.anna, "y", ttl_ms=1001)
    desk.after(1001)
    desk.after(99)
    assert desk.lapsed("y") is not None
    desk.after(1)
    assert desk.lapsed("y") is None
    assert desk.lapsed("x", "slow") is not None
    desk.after(400)
    assert len(desk.state.lapses) == 0


def test_a_closed_name_counts_as_a_claim_of_its_namespace_until_it_opens() -> None:  # P10
    desk = Desk()
    desk.ask(desk.anna, CreateNamespace("few", NamespaceConfig(lock_delay_ms=500, claims_max=3)))

    def take(name: str, session: int = desk.anna) -> Any:
        return desk.ask(session, Claim("few", (Resource((name,)),), "h", b"", 1000, 0, detached=False))

    for name in "abc":
        assert isinstance(take(name), ClaimStatus)
    desk.after(1000)
    assert take("d").code == "too_many"
    desk.after(499)
    assert take("d").code == "too_many"
    desk.after(1)
    assert isinstance(take("d"), ClaimStatus)


def test_closed_names_count_among_all_claims_too(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "CLAIMS_MAX", 2)
    desk = Desk()
    desk.slow(desk.anna, X, ttl_ms=1000)
    desk.after(1000)
    desk.claim(desk.anna, "y")
    again = Leases(LeaseState.restore(desk.state.snapshot()))
    for leases in (desk, again):
        refused = leases.claim(desk.anna, "z")
        assert isinstance(refused, Failed)
        leases.after(500)
        assert isinstance(leases.claim(desk.anna, "z"), ClaimStatus)
