"""The anchor: when a lease is over is known on a clock of one's own, never too late (P3, P4, P8)."""

import bisect
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from lessor.client import clock
from lessor.client.clock import MARGIN, Anchor
from lessor.core import limits

from ..support.fake_service import Hop, World

DRIFT = limits.CLOCK_RATE_DRIFT_PPM / 1_000_000


# --- one answer ------------------------------------------------------------------------------------------------------


def test_nothing_is_safe_before_the_first_answer() -> None:
    anchor = Anchor()
    assert not anchor.known
    assert anchor.safe_until_ms(10**12) == 0


def test_a_lease_is_safe_for_its_remaining_time_from_the_sending_on_less_the_margin() -> None:
    anchor = Anchor()
    anchor.learn(sent_ms=50_000, received_ms=50_900, clock_ms=7_000)
    assert anchor.known
    assert anchor.clock_ms == 7_000
    left_ms = 30_000
    assert anchor.safe_until_ms(7_000 + left_ms) == pytest.approx(50_000 + left_ms * (1 - MARGIN), abs=2)
    assert anchor.safe_until_ms(7_000 + left_ms) <= 50_000 + left_ms * (1 - MARGIN)


def test_a_later_answer_can_only_lengthen_what_was_known() -> None:  # P4
    anchor = Anchor()
    anchor.learn(1_000, 1_001, 500)
    before = anchor.safe_until_ms(9_000)
    anchor.learn(1_000, 4_000, 900)
    assert anchor.safe_until_ms(9_000) == before, "a slow answer knows less"
    anchor.learn(6_000, 6_001, 5_000)
    assert anchor.safe_until_ms(9_000) >= before


def test_a_lease_clock_that_stood_still_is_noticed_with_the_next_answer() -> None:
    anchor = Anchor()
    anchor.learn(1_000, 1_001, 500)
    anchor.learn(61_000, 61_001, 510)
    assert anchor.safe_until_ms(10_510) == pytest.approx(71_000, abs=20)


def test_others_wait_until_it_is_over_even_on_a_clock_that_runs_fast() -> None:
    anchor = Anchor()
    anchor.learn(1_000, 1_200, 500)
    assert anchor.over_after_ms(10_500) >= 1_200 + 10_000 * (1 + MARGIN) - 1
    anchor.learn(2_000, 2_100, 400)
    assert anchor.clock_ms == 500, "an answer that comes late is not the newest"


# --- many answers, clocks that drift, a lease clock that stands still ------------------------------------------------


@dataclass
class LeaseClock:
    """A lease clock of straight pieces: each from a time on, with a value there and a rate."""

    pieces: list[tuple[float, float, float]] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: random.Random, until: float) -> "LeaseClock":
        pieces = []
        at, value = 0.0, rng.choice([0.0, rng.random() * 1e9])
        while at < until:
            rate = rng.choice([1 + DRIFT, 1 + DRIFT, 1.0, 1 - DRIFT, 0.0, rng.random()])
            pieces.append((at, value, rate))
            length = rng.choice([rng.random() * 10, rng.random() * 1_000, rng.random() * 30_000])
            at, value = at + length, value + rate * length
        return cls([*pieces, (at, value, 1 + DRIFT)])

    def at(self, time: float) -> float:
        start, value, rate = self.pieces[bisect.bisect(self.pieces, (time, math.inf, 0)) - 1]
        return value + (time - start) * rate

    def reaches(self, value: float) -> float:
        """The earliest time at which the clock shows `value`."""
        after = bisect.bisect_left(self.pieces, value, key=lambda piece: piece[1])
        start, low, rate = self.pieces[max(0, after - 1)]
        return start + max(0.0, value - low) / rate if rate else start


@pytest.mark.parametrize("block", range(6))
def test_no_lease_is_believed_in_when_the_lease_clock_has_reached_its_end(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        believe_in_no_lease_that_is_over(seed)


def believe_in_no_lease_that_is_over(seed: int) -> None:
    rng = random.Random(seed)
    lease_clock = LeaseClock.draw(rng, until=200_000)
    rate = 1 + rng.choice([-DRIFT, DRIFT, rng.uniform(-DRIFT, DRIFT)])
    offset = rng.choice([0.0, rng.random() * 1e9])
    anchor = Anchor()
    leases: list[tuple[int, float]] = []  # when they expire, on the lease clock and in truth

    def local_ms(at: float) -> int:
        return int(offset + rate * at)

    def check(at: float) -> None:
        for expires_at_ms, ends_at in leases:
            believed = local_ms(at) < anchor.safe_until_ms(expires_at_ms)
            assert not believed or at < ends_at, f"seed {seed}: {expires_at_ms} ended {at - ends_at} ms ago"

    now = 0.0
    for _ in range(60):
        now += rng.choice([0.0, rng.random(), rng.random() * 3_000])
        first_sent = now
        now += rng.choice([0.0, 0.0, rng.random() * 2_000])  # the sending that arrived
        now += rng.choice([0.0, rng.random(), rng.random() * 100, rng.random() * 5_000])
        stamp = int(lease_clock.at(now))
        ttl_ms = rng.choice([0, 1, 100, rng.randrange(60_000), limits.TTL_MS_MAX])
        leases.append((stamp + ttl_ms, lease_clock.reaches(stamp + ttl_ms)))
        now += rng.choice([0.0, rng.random() * 100, rng.random() * 5_000])
        anchor.learn(local_ms(first_sent), local_ms(now), stamp)
        check(now)
        leases = [(expires, ends) for expires, ends in leases if ends > now - 20_000]
        for _, ends_at in [*leases]:
            check(max(now, ends_at))


@pytest.mark.parametrize("ttl_ms", [100, 999, 30_000, 3_600_000, limits.TTL_MS_MAX])
def test_nothing_but_the_margin_and_the_way_of_the_request_is_lost(ttl_ms: int) -> None:  # P4
    anchor = Anchor()
    anchor.learn(sent_ms=777, received_ms=999, clock_ms=1_000)
    assert 777 + ttl_ms * (1 - MARGIN) - 2 <= anchor.safe_until_ms(1_000 + ttl_ms) <= 777 + ttl_ms * (1 - MARGIN)


def test_an_answer_to_the_first_sending_that_comes_after_the_second_counts_from_the_first() -> None:  # P3
    world = World()
    client = world.client()
    world.finish(client.acquire("warm"))
    sent_ms = client.now_ms
    world.fate = lambda hop: (900.0,) if not hop.up and hop.node == 1 else (1.0,) if hop.node == 1 else ()
    outcome = client.acquire(ttl_ms=3_000, auto_renew=False)
    world.finish(outcome)
    assert outcome.at == sent_ms - client.offset_ms + 901
    assert sum(hop.up for hop in world.hops if hop.at > sent_ms - client.offset_ms) >= 1, "it was sent again"
    assert client.protocol.safe_until_ms(outcome.lease) <= sent_ms + 3_000
    world.run(3_000)


# --- the same with the production protocol, messages and a service ---------------------------------------------------


@pytest.mark.parametrize("seed", range(15))
def test_no_client_believes_longer_than_the_service_whatever_the_clocks_and_the_delays(seed: int) -> None:
    rng = random.Random(seed)
    world = World(rate=1 + rng.choice([DRIFT, DRIFT, -DRIFT, 0]), leader=0)
    world.now = rng.random() * 1_000
    world.elect(1)

    def fate(hop: Hop) -> Sequence[float]:
        draw = rng.random()
        if draw < 0.1:
            return ()
        return (0.0,) if draw < 0.5 else (rng.random(),) if draw < 0.8 else (rng.random() * 1_500,)

    world.fate = fate
    for _ in range(3):
        world.client(
            session_timeout_ms=rng.choice([500, 4_000]),
            rate=1 + rng.choice([-DRIFT, DRIFT, 0]),
            offset_ms=rng.random() * 10**9,
        )
    for _ in range(50):
        client = rng.choice(world.clients)
        name = rng.choice(["x", "y"])
        match rng.randrange(6):
            case 0:
                client.acquire(name, rng.choice([0, 100, 1_000]), timeout_ms=2_000, auto_renew=rng.random() < 0.5)
            case 1:
                client.acquire(name, rng.choice([0, 300, 3_000]), timeout_ms=0, detached=False)
            case 2 if client.believes():
                client.renew(rng.choice(client.believes()), rng.choice([0, 100, 5_000]))
            case 3 if client.believes():
                client.release(rng.choice(client.believes()))
            case 4:
                world.stand_still(rng.random() * 2_000)
            case 5:
                world.depose()
                world.run(rng.random() * 300)
                world.elect(rng.randrange(1, 4))
            case _:
                pass
        world.run(rng.choice([rng.random(), rng.random() * 400]))
    world.heal()
    world.run(10_000)
    assert world.service.kinds.count("granted") >= 1


# --- the machine's own clock -----------------------------------------------------------------------------------------


def test_the_clock_goes_on_while_the_machine_sleeps_where_there_is_such_a_clock() -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    now_ms = clock.now_ms()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before // 1_000_000 <= now_ms <= after // 1_000_000


def test_a_wall_clock_that_is_set_does_not_move_the_client_s_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = clock.now_ms()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    now_ms = clock.now_ms()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    assert before <= now_ms <= after
