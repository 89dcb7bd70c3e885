"""Real processes with wrong clocks, and ones that stand still: no lease ends early, none is extended (P3, P4)."""

import shutil
import subprocess
import threading
import time

import pytest

import lessor
from lessor.cli.local_cluster import LocalCluster

from ..support.waiting import until

pytestmark = pytest.mark.system


def libfaketime() -> str | None:
    """Return the library that Debian's `faketime` preloads."""
    if shutil.which("faketime") is None:
        return None
    command = ["faketime", "now", "sh", "-c", "echo $LD_PRELOAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs Debian's package faketime")
def test_a_wall_clock_that_jumps_by_hours_changes_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """P4: one node's wall clock is hours ahead, another's behind, and both jump while leases are held."""
    directory = tmp_path_factory.mktemp("clocks")
    files = {node: directory / f"clock{node}" for node in (1, 2, 3)}
    with LocalCluster(3) as cluster:
        for node, offset in ((1, "+0"), (2, "+5h"), (3, "-7h")):
            files[node].write_text(offset)
            environment = {
                "LD_PRELOAD": libfaketime() or "",
                "FAKETIME_TIMESTAMP_FILE": str(files[node]),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
            cluster.start(node, environment=environment)
        cluster.wait_for_leader()
        with lessor.connect(cluster.endpoints, request_timeout=60, session_timeout=60) as client:
            kept = client.acquire("kept", ttl=30)
            asked_at = time.monotonic()  # the grant comes later
            short = client.acquire("short", ttl=2, auto_renew=False)
            for node, offset in ((1, "+9h"), (2, "-3h"), (3, "+30d")):
                files[node].write_text(offset)
            waiting = client.acquire("short", ttl=2, timeout=60)  # it is not extended by hours
            waited = time.monotonic() - asked_at
            assert waited >= 2 * 0.99, "not a moment early"
            assert waiting.token > short.token
            assert kept.held
            cluster.kill(cluster.wait_for_leader())
            cluster.wait_for_leader()
            assert client.describe("kept")[0].token == kept.token
            assert kept.held


def test_a_leader_that_stands_still_for_five_seconds_loses_no_lease_and_does_no_harm_on_its_return(
    cluster: LocalCluster, client: lessor.Client
) -> None:
    """P3, P4: kill -STOP of the leader, then -CONT. The client itself may stand still, too, for a while."""
    leader = cluster.wait_for_leader()
    kept = client.acquire("kept", ttl=10)
    session_bound = client.acquire("session", ttl=None)
    told: list[int] = []
    cluster.pause(leader)
    paused_at, until_then = time.monotonic(), kept.expire_time_unsafe()
    rival = threading.Thread(target=lambda: told.append(client.acquire("kept", ttl=4).token), daemon=True)
    rival.start()
    successor = cluster.wait_for_leader(other_than=leader)
    ballot = cluster.status().ballot
    until(lambda: time.monotonic() - paused_at > 5, "five seconds")
    until(lambda: kept.expire_time_unsafe() > until_then + 1_000, "its renewal by the successor")
    assert kept.held
    cluster.resume(leader)
    cluster.wait_until_caught_up(leader)
    assert cluster.wait_for_leader() == successor or cluster.status().ballot > ballot, "it leads only if it is elected"
    assert client.describe("kept")[0].token == kept.token
    assert client.describe("session")[0].token == session_bound.token
    assert kept.held
    assert session_bound.held
    assert told == []
    kept.release()
    rival.join(60)
    assert told, "the one who waited through all of it gets its turn"
    assert told[0] > kept.token


def test_a_lease_that_nobody_renews_ends_in_time_though_every_leader_dies(cluster: LocalCluster) -> None:
    """P3, P4: the lease clock stands still over each change of leader, and goes on after it."""
    with lessor.connect(cluster.endpoints, request_timeout=60, session_timeout=60) as client:
        begun = time.monotonic()
        lease = client.acquire("x", ttl=3, auto_renew=False)
        for _ in range(2):
            leader = cluster.wait_for_leader()
            cluster.kill(leader)
            cluster.wait_for_leader()
            cluster.restart(leader)
            cluster.wait_until_caught_up(leader)
        following = client.acquire("x", ttl=3, timeout=60)
        assert not lease.held
        assert time.monotonic() - begun >= 3 * 0.99
        assert following.token > lease.token
