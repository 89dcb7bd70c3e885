"""The shipped image and compose file under the plainest of faults: the leader is killed while a lock is held."""

import os
from collections.abc import Iterator

import pytest

from ..support.waiting import until
from .compose import Cluster, run

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.deep,
    pytest.mark.timeout(600),
]  # building an image takes longer than any other test may

NAME = "smoke"
TTL_S = 10


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(f"lessor-smoke-{os.getpid()}")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


def test_a_held_lock_survives_the_death_of_the_leader(cluster: Cluster) -> None:
    """P3, P5: the grant outlives its leader, token and all, nobody else gets in, the next token is larger."""
    leader = cluster.leader()
    holder = cluster.client("holder", "client", "lock", NAME, "--ttl", str(TTL_S), "--", "sleep", "infinity")
    before = until(lambda: held(cluster), "the lock is held")

    # as where no name server can be reached: the names of dead containers are then looked up for ten seconds and more
    for container in (holder, cluster.speaker, *(cluster.container(node) for node in cluster.nodes if node != leader)):
        cluster.silence_name_servers(container)
    cluster.kill(leader)
    cluster.leader(other_than=leader)

    after = until(lambda: cluster.ask("show", NAME), "the new leader answers")
    assert (after["token"], after["holder"]) == (before["token"], before["holder"])
    assert cluster.lessor("lock", NAME, "--timeout", "1", "--", "true").returncode != 0
    # Longer than the lease was given: it is still held only because its holder has renewed it with the new leader.
    assert cluster.lessor("lock", NAME, "--timeout", str(TTL_S + 2), "--", "true").returncode != 0
    assert cluster.ask("show", NAME)["token"] == before["token"]

    cluster.restart(leader)
    until(lambda: cluster.role(leader) in ("leader", "follower"), "the killed node is back among its peers", timeout=60)
    assert cluster.ask("show", NAME)["token"] == before["token"]

    run(["docker", "kill", holder])
    successor = cluster.client("successor", "client", "lock", NAME, "--timeout", "60", "--", "sleep", "infinity")
    later = until(lambda: held(cluster, other_than=before["token"]), f"{successor} holds the lock", timeout=60)
    assert later["token"] > before["token"]


def held(cluster: Cluster, *, other_than: int | None = None) -> dict[str, int] | None:
    shown: dict[str, int] = cluster.ask("show", NAME) or {}
    return shown if shown.get("holder") and shown["token"] != other_than else None
