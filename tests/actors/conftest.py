"""Fixtures of the tests with whole nodes: nodes of one cluster in this process, each with its directory and ports."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lessor.actors.node import Node, NodeConfig
from lessor.cli.local_cluster import LocalCluster

from ..support.sockets import a_context, free_endpoints, status_of
from ..support.target import (
    Target,
    check_that_the_node_is_as_it_was,
)
from ..support.waiting import until


class Nodes:
    """Nodes of one cluster, to be started and stopped one by one."""

    def __init__(self, count: int, root: Path) -> None:
        self.root = root
        self.endpoints = free_endpoints(count)
        self.running: dict[int, Node] = {}

    def config(self, node: int) -> NodeConfig:
        return NodeConfig(node, self.endpoints, self.data(node))

    def data(self, node: int) -> Path:
        return self.root / f"node{node}"

    def start(self, *nodes: int) -> Node:
        """Start these nodes, or all; return the last one."""
        started = None
        for node in nodes or self.endpoints:
            started = self.running[node] = Node(self.config(node)).start()
        assert started is not None
        return started

    def stop(self, *nodes: int) -> None:
        for node in nodes or list(self.running):
            self.running.pop(node).stop()

    @property
    def connect_to(self) -> str:
        return ",".join(self.endpoints.values())

    def leader(self) -> int:
        """Wait until all running nodes agree on a leader among them, and return it."""

        def agreed() -> int:
            leaders = {status_of(self.endpoints[node]).leader for node in self.running}
            found = leaders.pop()
            return found if not leaders and found in self.running else 0

        return until(agreed, "a leader that all nodes agree on")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Callable[[int], Nodes]]:
    """Makes the nodes of a cluster of a given size; nothing of them is left running at the end."""
    made: list[Nodes] = []

    def make(count: int) -> Nodes:
        made.append(Nodes(count, tmp_path / f"cluster{len(made)}"))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with LocalCluster(1) as cluster, a_context() as context:
        cluster.start()
        cluster.wait_for_leader()
        target = Target(cluster, context)
        try:
            target.worker.work()
            assert target.feed.next(60_000) is not None
            target.worker.some_more_pairs()
            target.worker.rest()
            yield target
            check_that_the_node_is_as_it_was(target)
        finally:
            target.worker.close()
