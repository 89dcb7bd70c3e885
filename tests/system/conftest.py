"""Clusters of real processes for the system tests."""

from collections.abc import Iterator

import pytest

import lessor
from lessor.cli.local_cluster import LocalCluster


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Three real nodes on the loopback interface, with a leader."""
    with LocalCluster(3) as nodes:
        nodes.start()
        nodes.wait_for_leader()
        yield nodes


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[lessor.Client]:
    """A client of the cluster."""
    with lessor.connect(cluster.endpoints, request_timeout=60, session_timeout=60) as connected:
        yield connected
