"""What a lease says of itself: to its holder until when to work, to others when it is over (P8, DESIGN §5)."""

import datetime as dt
import time
from typing import Any

import pytest

from lessor.client import clock
from lessor.client.calling import BaseCaller
from lessor.client.errors import LeaseLost
from lessor.client.lease import BaseLease, LeaseView, as_datetime, view, wall_ms
from lessor.client.protocol import LeaseRecord, LeaseState, Protocol
from lessor.client.states import Loss
from lessor.core.errors import BadRequest
from lessor.core.resources import Mode, Resource
from lessor.core.results import ClaimInfo, ClaimPhase

NOW_MS = 5_000_000
WALL_MS = 1_700_000_000_000
CLOCK_MS = 40_000
GAP = dt.timedelta(seconds=5)


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Both clocks of this machine, standing still until a test moves them."""
    at = {"local": NOW_MS, "wall": WALL_MS}
    monkeypatch.setattr(clock, "now_ms", lambda: at["local"])
    monkeypatch.setattr(time, "time_ns", lambda: at["wall"] * 1_000_000)
    return at


def lease(ttl_ms: int = 30_000) -> BaseLease:
    """A lease granted by an answer that took no time."""
    caller = BaseCaller(lambda: Protocol(["tcp://node:7411"], lambda: bytes(16), 10_000, "", lambda: 0.5), 10_000)
    caller.protocol.anchor.learn(NOW_MS, NOW_MS, CLOCK_MS)
    record = LeaseRecord(
        namespace="default",
        path=("nightly", "report"),
        holder="me",
        data=b"data",
        claim=3,
        token=7,
        ttl_ms=ttl_ms,
        expires_at_ms=CLOCK_MS + ttl_ms,
        auto_renew=True,
        detached=False,
        session=1,
    )
    return BaseLease(caller, record)


def described(**changes: object) -> ClaimInfo:
    fields: dict[str, object] = {
        "claim": 3,
        "namespace": "default",
        "path": ("x",),
        "phase": int(ClaimPhase.HELD),
        "holder": "somebody",
        "session": 4,
        "token": 7,
        "ttl_ms": 30_000,
        "since_ms": CLOCK_MS - 2_500,
        "expires_at_ms": CLOCK_MS + 27_500,
        "detached": False,
        "data": b"data",
    }
    return ClaimInfo(**fields | changes)  # type: ignore[arg-type]


# --- for its holder --------------------------------------------------------------------------------------------------


def test_a_lease_shows_what_was_granted(frozen: dict[str, int]) -> None:
    mine = lease()
    assert (mine.name, mine.namespace, mine.holder, mine.token, mine.data) == (
        "nightly/report",
        "default",
        "me",
        7,
        b"data",
    )
    assert repr(mine) == "<BaseLease 'nightly/report' token=7 held>"


def test_a_lease_is_held_up_to_its_deadline_and_not_after_whether_or_not_anybody_has_said_so(
    frozen: dict[str, int],
) -> None:  # P8
    mine = lease()
    deadline = mine._protocol.safe_until_ms(mine._record)
    said = {}
    for after_ms in (-1, 0, 10**9):
        frozen["local"] = deadline + after_ms
        said[after_ms] = (mine.held, mine.remaining(), mine.lost_reason)
    over = (False, 0.0, "it expired")
    assert said == {-1: (True, 0.001, ""), 0: over, 10**9: over}


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({"renewing": True}, Loss.UNREACHABLE, "it expired before it could be renewed"),
        ({"auto_renew": False}, Loss.EXPIRED, "it expired"),
        ({"progress_ms": 1}, Loss.NO_PROGRESS, "made no progress"),
        ({"hold_until_ms": NOW_MS + 1}, Loss.MAX_HOLD, "as long as it may be held"),
    ],
)
def test_why_it_was_lost_is_the_same_before_and_after_the_clients_own_thread_has_noticed(
    frozen: dict[str, int], changes: dict[str, Any], kind: Loss, reason: str
) -> None:  # P8
    mine = lease()
    for name, value in changes.items():
        setattr(mine._record, name, value)
    frozen["local"] = mine._protocol.safe_until_ms(mine._record)
    assert (mine.loss, mine.state) == (kind, LeaseState.LOST)
    assert reason in mine.lost_reason
    with pytest.raises(LeaseLost, match=reason) as caught:
        mine.check()
    assert caught.value.loss is kind
    mine._protocol._leases.held[mine.token] = mine._record
    mine._protocol.tick(frozen["local"])
    assert mine._record.state is LeaseState.LOST
    assert mine.loss is kind
    assert reason in mine.lost_reason


def test_what_remains_is_counted_from_the_sending_less_the_margin(frozen: dict[str, int]) -> None:  # P3
    assert 29.96 <= lease().remaining() < 30.0


@pytest.mark.parametrize(("state", "reason"), [(LeaseState.LOST, "why"), (LeaseState.RELEASED, "")])
def test_a_lease_that_is_over_has_nothing_left_whatever_its_deadline(
    frozen: dict[str, int], state: LeaseState, reason: str
) -> None:
    mine = lease()
    mine._record.state, mine._record.reason = state, "why"
    assert not mine.held
    assert mine.remaining() == 0.0
    assert mine.lost_reason == reason
    assert repr(mine).endswith(f"{state.value}>")


def test_the_unsafe_expire_time_is_in_milliseconds_since_the_epoch(frozen: dict[str, int]) -> None:
    mine = lease()
    assert isinstance(mine.expire_time_unsafe(), int)
    assert mine.expire_time_unsafe() == WALL_MS + round(mine.remaining() * 1000)


def test_the_unsafe_expire_time_moves_with_the_wall_clock_and_what_remains_does_not(frozen: dict[str, int]) -> None:
    mine = lease()
    before, remaining = mine.expire_time_unsafe(), mine.remaining()
    frozen["wall"] += 3_600_000
    assert mine.expire_time_unsafe() == before + 3_600_000
    assert mine.remaining() == remaining
    frozen["local"] += 1_000
    frozen["wall"] += 1_000
    assert mine.expire_time_unsafe() == before + 3_600_000, "time that passes does not move it"


def test_a_holder_s_expire_time_comes_before_the_deadline_by_the_gap_as_an_aware_datetime(
    frozen: dict[str, int],
) -> None:
    mine = lease()
    safe = mine.expire_time_with_safety_gap(GAP)
    assert safe.tzinfo is not None
    assert safe == as_datetime(mine.expire_time_unsafe()) - GAP
    assert safe.utcoffset() == dt.timedelta(0)
    with pytest.raises(TypeError):
        _ = safe < mine.expire_time_unsafe()  # type: ignore[operator]


def test_an_expire_time_is_compared_with_now_wherever_now_is_read(frozen: dict[str, int]) -> None:
    tokyo = dt.timezone(dt.timedelta(hours=9))
    now = dt.datetime.fromtimestamp(WALL_MS / 1000, tokyo)
    assert lease().expire_time_with_safety_gap(GAP) > now
    assert lease(ttl_ms=4_000).expire_time_with_safety_gap(GAP) < now


def test_a_renewal_moves_what_remains_and_the_expire_time(frozen: dict[str, int]) -> None:
    mine = lease()
    before, remaining = mine.expire_time_unsafe(), mine.remaining()
    mine._record.expires_at_ms += 10_000
    assert mine.remaining() == pytest.approx(remaining + 10, abs=0.02)
    assert mine.expire_time_unsafe() == pytest.approx(before + 10_000, abs=20)


# --- for others ------------------------------------------------------------------------------------------------------


def of(info: ClaimInfo) -> LeaseView:
    return view(info, CLOCK_MS, NOW_MS + 27_500)


def test_somebody_s_lease_shows_what_the_service_said(frozen: dict[str, int]) -> None:
    theirs = of(described())
    assert (theirs.name, theirs.namespace, theirs.holder, theirs.token) == ("x", "default", "somebody", 7)
    assert (theirs.claim, theirs.session, theirs.detached, theirs.data) == (3, 4, False, b"data")
    assert (theirs.ttl, theirs.held_for, theirs.expires_in) == (30.0, 2.5, 27.5)
    assert not theirs.waiting


def test_somebody_s_lease_shows_its_mode_by_name(frozen: dict[str, int]) -> None:
    """It travels as a number."""
    theirs = of(described(resources=(Resource(("x",), 1),)))
    assert [each.mode for each in theirs.resources] == [Mode.READ]
    assert "Mode.READ" in repr(theirs)


def test_one_who_waits_has_no_expire_time(frozen: dict[str, int]) -> None:
    theirs = of(described(phase=int(ClaimPhase.WAITING), token=0, expires_at_ms=0))
    assert theirs.waiting
    assert theirs.expires_in == 0.0
    assert theirs.expire_time_unsafe() == WALL_MS


def test_somebody_s_expire_time_comes_after_the_deadline_by_the_gap_as_an_aware_datetime(
    frozen: dict[str, int],
) -> None:
    theirs = of(described())
    over = theirs.expire_time_with_safety_gap(GAP)
    assert theirs.expire_time_unsafe() == WALL_MS + 27_500
    assert over.tzinfo is not None
    assert over == as_datetime(WALL_MS + 27_500) + GAP


def test_the_holder_stops_before_anybody_else_would_call_it_over(frozen: dict[str, int]) -> None:  # P3
    mine = lease()
    anchor = mine._protocol.anchor
    info = described(since_ms=CLOCK_MS, expires_at_ms=CLOCK_MS + 30_000)
    theirs = view(info, anchor.clock_ms, anchor.over_after_ms(info.expires_at_ms))
    nothing = dt.timedelta(0)
    assert mine.expire_time_with_safety_gap(nothing) < theirs.expire_time_with_safety_gap(nothing)
    assert mine.expire_time_with_safety_gap(GAP) + 2 * GAP < theirs.expire_time_with_safety_gap(GAP)


def test_a_moment_of_the_client_s_clock_is_told_on_the_wall_clock_of_the_time_of_asking(frozen: dict[str, int]) -> None:
    assert wall_ms(NOW_MS + 1_500) == WALL_MS + 1_500
    frozen["wall"] -= 10_000
    assert wall_ms(NOW_MS + 1_500) == WALL_MS - 8_500


@pytest.mark.parametrize("gap", [dt.timedelta(seconds=-1), 5, None, "5 s"])
def test_a_gap_that_is_none_is_refused(gap: Any, frozen: dict[str, int]) -> None:
    for one in (lease(), of(described())):
        with pytest.raises(BadRequest, match="a safety gap is a timedelta of 0 or more"):
            one.expire_time_with_safety_gap(gap)


def test_only_what_can_be_called_is_called_with_each_change() -> None:
    with pytest.raises(BadRequest, match="is a function, not 5"):
        lease()._on_change(5)  # type: ignore[arg-type]
