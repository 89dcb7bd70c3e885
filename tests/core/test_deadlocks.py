"""Circles of claims taken one after another: the one that would close a circle is told so, and nobody else ever is."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import FOREVER, Adopt, Claim
from lessor.core.encoding import encode
from lessor.core.resources import Mode, Resource
from lessor.core.results import ClaimPhase, ClaimStatus, DeadlockDetected

from ..support.leases import Leases, check_consistent


class Flows:
    """Sessions whose flows of control (`chain`) take one name after another, and wait for ever."""

    def __init__(self, count: int) -> None:
        self.leases = Leases()
        self.sessions = [self.leases.session(timeout_ms=600_000) for _ in range(count)]

    def take(self, who: int, *resources: Any, chain: int = 1, ttl_ms: int = 0, wait_ms: int = FOREVER) -> Any:
        wanted = tuple(one if isinstance(one, Resource) else Resource((one,)) for one in resources)
        asked = Claim("n", wanted, f"flow {who}", b"", ttl_ms, wait_ms, False, 0, chain)
        answer = self.leases.ask(self.sessions[who], asked)
        check_consistent(self.leases.state)
        return answer


def phase(answer: Any) -> ClaimPhase:
    assert isinstance(answer, ClaimStatus)
    return ClaimPhase(answer.phase)


def named(answer: Any) -> list[tuple[str, str]]:
    assert isinstance(answer, DeadlockDetected)
    return [(link.holder, link.path[0]) for link in answer.circle]


@pytest.mark.parametrize("ttl_ms", [0, 5000])
@pytest.mark.parametrize("wait_ms", [FOREVER, 5000])
def test_a_circle_of_two_is_found_and_named_and_the_one_who_asked_is_not_queued(ttl_ms: int, wait_ms: int) -> None:
    flows = Flows(2)
    flows.take(0, "a", ttl_ms=ttl_ms)
    flows.take(1, "b", ttl_ms=ttl_ms)
    assert phase(flows.take(0, "b", ttl_ms=ttl_ms, wait_ms=wait_ms)) == ClaimPhase.WAITING
    before = flows.leases.state.header.last_claim
    assert named(flows.take(1, "a", ttl_ms=ttl_ms, wait_ms=wait_ms)) == [("flow 0", "a"), ("flow 1", "b")]
    assert flows.leases.state.waiting == 1
    assert flows.leases.state.header.last_claim == before, "no claim was made"


@pytest.mark.parametrize("size", [3, 4, 10])
def test_a_longer_circle_is_found_and_named_in_its_order(size: int) -> None:
    flows = Flows(size)
    for who in range(size):
        flows.take(who, f"x{who}")
    for who in range(size - 1):
        assert phase(flows.take(who, f"x{who + 1}")) == ClaimPhase.WAITING
    circle = named(flows.take(size - 1, "x0"))
    assert circle == [(f"flow {who}", f"x{who}") for who in range(size)]


def test_a_reader_behind_a_writer_who_waits_for_that_very_reader_is_in_a_circle() -> None:
    flows = Flows(2)
    flows.take(0, Resource(("a",), Mode.READ))
    assert phase(flows.take(1, "a")) == ClaimPhase.WAITING
    found = flows.take(0, Resource(("a",), Mode.READ))
    assert isinstance(found, DeadlockDetected), "the writer stands before it, and waits for its other grant"
    assert ("flow 0", "a") in named(found)


def test_who_asks_again_for_what_he_holds_waits_for_himself() -> None:
    flows = Flows(1)
    flows.take(0, "a")
    assert named(flows.take(0, "a")) == [("flow 0", "a")]
    assert named(flows.take(0, Resource(()))) == [("flow 0", "a")], "what is above it, too"


def test_a_circle_through_paths_and_counts_is_found() -> None:
    flows = Flows(2)
    flows.take(0, Resource(("a", "b")))
    flows.take(1, Resource(("s",), Mode.COUNT, 2, 3))
    assert phase(flows.take(0, Resource(("s",), Mode.COUNT, 2, 3))) == ClaimPhase.WAITING
    assert named(flows.take(1, Resource(("a",)))) == [("flow 0", "a"), ("flow 1", "s")]


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (0, 0)])
def test_who_does_not_stand_still_is_in_no_circle(first: int, second: int) -> None:
    flows = Flows(2)
    flows.take(0, "a", chain=first)
    flows.take(1, "b", chain=second)
    flows.take(0, "b", chain=first)
    assert phase(flows.take(1, "a", chain=second)) == ClaimPhase.WAITING


def test_two_flows_of_one_session_are_two() -> None:
    flows = Flows(2)
    flows.take(0, "a", chain=1)
    flows.take(1, "b")
    flows.take(0, "b", chain=2)
    assert phase(flows.take(1, "a")) == ClaimPhase.WAITING, "the flow that holds a goes on, and will give it back"


def test_sets_asked_for_at_once_are_never_in_a_circle() -> None:  # Locktopus
    flows = Flows(3)
    for who in (0, 1, 2, 1, 0, 2):
        for names in (("a", "b"), ("b", "c"), ("c", "a")):
            assert isinstance(flows.take(who, *names, chain=who * 10 + len(flows.leases.log)), ClaimStatus)
    state = flows.leases.state
    while state.held:
        flows.leases.release(flows.sessions[0], next(iter(state.claims.by_token)))
    assert state.waiting == 0, "everybody had his turn"


def test_a_queue_is_no_circle_and_neither_is_a_try() -> None:
    flows = Flows(3)
    flows.take(0, "a")
    flows.take(1, "b")
    for who in (1, 2):
        assert phase(flows.take(who, "a")) == ClaimPhase.WAITING
    assert not isinstance(flows.take(0, "b", wait_ms=0), DeadlockDetected), "who does not wait closes no circle"


def test_when_a_circle_is_broken_the_same_claim_may_wait() -> None:
    flows = Flows(2)
    held = flows.take(0, "a")
    flows.take(1, "b")
    waiting = flows.take(0, "b")
    assert isinstance(flows.take(1, "a"), DeadlockDetected)
    flows.leases.cancel(flows.sessions[0], waiting.claim)
    assert phase(flows.take(1, "a")) == ClaimPhase.WAITING
    flows.leases.release(flows.sessions[0], held.token)
    assert flows.leases.told(flows.sessions[1])[-1].phase == ClaimPhase.HELD


def test_an_observer_waits_for_grants_and_not_for_those_who_wait() -> None:
    flows = Flows(3)
    flows.take(0, "y")
    flows.take(2, "x", chain=0)
    flows.take(1, "x", "y")  # waits for both
    assert phase(flows.take(0, Resource(("x",), Mode.OBSERVE))) == ClaimPhase.WAITING
    assert isinstance(flows.take(0, Resource(("y",), Mode.OBSERVE)), DeadlockDetected), "its own grant never ends so"


def test_what_was_adopted_belongs_to_no_flow() -> None:
    flows = Flows(3)
    held = flows.take(0, "a")
    flows.leases.ask(flows.sessions[2], Adopt(held.token))
    flows.take(1, "b")
    assert phase(flows.take(1, "a")) == ClaimPhase.WAITING
    assert phase(flows.take(2, "b")) == ClaimPhase.WAITING, "which of its flows has a is not known"


def test_the_answer_to_a_retry_is_the_same_circle() -> None:  # P6
    flows = Flows(2)
    flows.take(0, "a")
    flows.take(1, "b")
    flows.take(0, "b")
    asked = Claim("n", (Resource(("a",)),), "flow 1", b"", 0, FOREVER, False, 0, 1)
    first = flows.leases.ask(flows.sessions[1], asked, number=500)
    flows.leases.close(flows.sessions[0])
    assert flows.leases.ask(flows.sessions[1], asked, number=500) == first


def test_a_crowd_is_not_searched_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "DEADLOCK_LOOK_MAX", 10)
    flows = Flows(2)
    flows.take(0, "a")
    flows.take(1, "b")
    for _ in range(12):
        flows.take(0, "b", chain=0)
    flows.take(0, "b")
    assert phase(flows.take(1, "a")) == ClaimPhase.WAITING, "too many stand in the way; it ends by a timeout"


class Counted(dict[int, Any]):
    """Claims that count how often one of them is looked at."""

    looks = 0

    def __getitem__(self, number: int) -> Any:
        self.looks += 1
        return super().__getitem__(number)

    def get(self, number: int, default: Any = None) -> Any:
        self.looks += 1
        return super().get(number, default)


@pytest.mark.parametrize("waiting", ["in the flow that is in the way", "in the flow that asks"])
def test_a_flow_with_many_claims_is_searched_once_and_its_claims_count(
    waiting: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr(limits, "DEADLOCK_LOOK_MAX", 25)
    flows = Flows(3)
    flows.take(2, "q", chain=0)
    for place in range(15 if "way" in waiting else 0):
        flows.take(0, Resource(("p", str(place))))
    for place in range(60):
        flows.take(0, Resource(("q", str(place))))
    flows.take(1, "r")
    asking = 1 if "way" in waiting else 0
    claims = flows.leases.state.claims
    claims.all = Counted(claims.all)
    asked = Claim("n", (Resource(("p" if asking else "q",)),), "flow", b"", 0, FOREVER, False, 0, 1)
    assert phase(flows.leases.ask(flows.sessions[asking], asked)) == ClaimPhase.WAITING
    assert claims.all.looks <= 2 * 25 + 10, "each claim is looked at for itself, and as one that is in the way"


def test_a_circle_through_a_flow_of_which_many_claims_are_in_the_way_is_found() -> None:
    flows = Flows(2)
    for place in range(60):
        flows.take(0, Resource(("p", str(place))))
    flows.take(1, "x")
    flows.take(0, "x")
    assert named(flows.take(1, "p")) == [("flow 0", "p"), ("flow 1", "x")]


def test_of_a_circle_too_large_to_tell_the_end_is_named_and_how_much_is_left_out() -> None:  # P10
    size = 12
    flows = Flows(size)
    paths = [("p" * 1000, f"x{who}") for who in range(size)]
    for who in range(size):
        flows.take(who, Resource(paths[who]))
    for who in range(size - 1):
        flows.take(who, Resource(paths[who + 1]))
    found = flows.take(size - 1, Resource(paths[0]))
    assert [link.path for link in found.circle] == paths[-len(found.circle) :], "up to the one who asked"
    assert len(found.circle) + found.left_out == size
    assert limits.CIRCLE_BYTES_MAX / 2 < len(encode(found)) < limits.CIRCLE_BYTES_MAX + 100


def test_one_link_is_named_however_long_its_path_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CIRCLE_BYTES_MAX", 1)
    flows = Flows(2)
    flows.take(0, "a")
    flows.take(1, "b")
    flows.take(0, "b")
    found = flows.take(1, "a")
    assert (named(found), found.left_out) == ([("flow 1", "b")], 1)
