"""The cluster of real processes that the demo, the bench and the system tests run on."""

from pathlib import Path

import pytest

from lessor.cli.local_cluster import ClusterFailed, LocalCluster

from ..support.waiting import until
from .commands import gone


@pytest.mark.system
def test_a_cluster_can_lose_stop_pause_and_regain_nodes(tmp_path: Path) -> None:
    with LocalCluster(3, tmp_path) as cluster:
        cluster.start()
        leader = cluster.wait_for_leader()
        cluster.kill(leader)
        assert leader not in cluster.running
        assert cluster.wait_for_leader(other_than=leader) != leader
        cluster.restart(leader)
        cluster.wait_until_caught_up(leader)
        cluster.pause(leader)
        until(lambda: len(cluster.status().answers) == 2, "the others to answer")
        assert cluster.wait_for_leader() != leader
        cluster.resume(leader)
        cluster.wait_until_caught_up(leader)
        assert cluster.stop(leader) == 0
        pids = [cluster.pid_of(node) for node in cluster.running]
    assert all(gone(pid) for pid in pids)
    assert cluster.log_of(leader).exists()


@pytest.mark.system
def test_a_node_that_does_not_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with LocalCluster(1, tmp_path) as cluster:
        cluster.start(options=("--log-level", "nonsense"))
        with pytest.raises(ClusterFailed, match="node 1 has ended") as failed:
            cluster.wait_for_leader()
    assert "debug, info, warning, error" in str(failed.value)
