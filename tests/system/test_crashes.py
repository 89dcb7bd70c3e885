"""Real processes killed at any moment: what was acknowledged is there afterwards, and a majority suffices."""

import random
import threading
import time
from collections.abc import Callable
from typing import Self

import pytest

import lessor
from lessor.cli.local_cluster import LocalCluster

from ..support.waiting import until

pytestmark = pytest.mark.system


class Grants:
    """A worker that takes detached leases without end, and remembers every one that was acknowledged."""

    def __init__(self, endpoints: str, prefix: str) -> None:
        self.endpoints = endpoints
        self.prefix = prefix
        self.acknowledged: dict[str, int] = {}
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with lessor.connect(self.endpoints, request_timeout=30) as client:
            try:
                while not self._stop.is_set():
                    name = f"{self.prefix}-{len(self.acknowledged)}"
                    lease = client.acquire(name, ttl=600, detached=True, auto_renew=False)
                    self.acknowledged[name] = lease.token
            except Exception as error:  # noqa: BLE001 - any error fails the test, in the thread that can
                self.errors.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def has_at_least(self, count: int) -> Callable[[], bool]:
        """Return a question to be asked again and again."""
        return lambda: len(self.acknowledged) >= count

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)


def all_held(endpoints: str) -> dict[str, int]:
    with lessor.connect(endpoints, request_timeout=30) as client:
        return {lease.name: lease.token for lease in client.leases()}


def test_acknowledged_grants_survive_the_kill_of_any_node_at_any_moment(cluster: LocalCluster) -> None:
    """P2, P5: kill -9 of each node in turn, at a random moment, while grants are given."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    with Grants(cluster.endpoints, "a") as one, Grants(cluster.endpoints, "b") as two:
        for node in chance.sample(cluster.nodes, 3):
            cluster.wait_until(one.has_at_least(len(one.acknowledged) + chance.randrange(1, 20)), "grants")
            cluster.kill(node)
            cluster.wait_for_leader()
            cluster.restart(node)
            cluster.wait_until_caught_up(node)
    assert one.errors + two.errors == []
    acknowledged = one.acknowledged | two.acknowledged
    held = all_held(cluster.endpoints)
    assert {name: held.get(name) for name in acknowledged} == acknowledged, f"seed {seed}"
    assert len(set(held.values())) == len(held), "no token was given twice"


def test_acknowledged_grants_survive_the_kill_of_all_nodes_at_once(cluster: LocalCluster) -> None:
    """P2, P5."""
    acknowledged: dict[str, int] = {}
    for round_ in range(2):
        with Grants(cluster.endpoints, f"round{round_}") as grants:
            cluster.wait_until(grants.has_at_least(20), "grants")
            for node in cluster.nodes:
                cluster.kill(node)
            cluster.start()
            cluster.wait_for_leader()
        assert grants.errors == []
        assert not acknowledged or min(grants.acknowledged.values()) > max(acknowledged.values())
        acknowledged |= grants.acknowledged
        held = all_held(cluster.endpoints)
        assert {name: held.get(name) for name in acknowledged} == acknowledged


def test_two_of_three_nodes_suffice(cluster: LocalCluster, client: lessor.Client) -> None:
    leader = cluster.wait_for_leader()
    with client.lock("x", ttl=30) as lease:
        cluster.kill(leader)
        other = client.acquire("y", ttl=30)
        assert lease.held
        assert other.token > lease.token
        assert client.describe("x")[0].token == lease.token


def test_one_node_of_three_grants_nothing_and_says_so_in_time(cluster: LocalCluster, client: lessor.Client) -> None:
    """P9."""
    lease = client.acquire("x", ttl=60)
    survivor = cluster.nodes[0]
    for node in cluster.nodes[1:]:
        cluster.kill(node)
    with lessor.connect(cluster.endpoint_of[survivor], request_timeout=60) as lonely:
        begun = time.monotonic()
        with pytest.raises((lessor.Unavailable, lessor.AcquireTimeout)):
            lonely.acquire("y", ttl=30, timeout=2)
        assert time.monotonic() - begun < 30, "it waited for longer than it was told to"
    assert lease.held, "what was granted is kept: the lease clock stands still without a majority"
    cluster.restart(cluster.nodes[1])
    cluster.wait_for_leader()
    assert client.describe("x")[0].token == lease.token


def test_a_follower_that_was_away_catches_up_even_when_the_journal_was_truncated_meanwhile(
    cluster: LocalCluster, client: lessor.Client
) -> None:
    """P1: from the journals of the others, and from a snapshot where those have forgotten."""
    follower = next(node for node in cluster.nodes if node != cluster.wait_for_leader())
    cluster.kill(follower)
    data = b"d" * 60_000
    for number in range(400):  # 24 MB, more than a journal keeps
        client.acquire(f"big-{number % 3}", ttl=60, data=data).release()
    kept = client.acquire("kept", ttl=600)
    cluster.restart(follower)
    cluster.wait_until_caught_up(follower)
    leader = cluster.wait_for_leader()
    third = next(node for node in cluster.nodes if node not in (leader, follower))
    # now this follower is needed for every majority, and may have to lead
    cluster.kill(third)
    assert client.acquire("x", ttl=30).token > kept.token
    assert client.describe("kept")[0].token == kept.token


def test_a_node_that_was_cut_off_for_a_while_catches_up(cluster: LocalCluster, client: lessor.Client) -> None:
    """P1: it stands still with its connections open, as behind a cut cable."""
    follower = next(node for node in cluster.nodes if node != cluster.wait_for_leader())
    cluster.pause(follower)
    for number in range(50):
        client.acquire(f"n-{number}", ttl=600)
    cluster.resume(follower)
    cluster.wait_until_caught_up(follower)
    until(lambda: len(cluster.status().answers) == len(cluster.nodes), "all nodes to answer")
