"""The fixtures of the test kit for pytest, which knows them wherever lessor is installed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .cluster import Cluster


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "lessor(nodes=3, processes=False): of how many nodes the fixture lessor_cluster is, and whether each is a "
        "process of its own",
    )


@pytest.fixture
def lessor_cluster(request: pytest.FixtureRequest) -> "Iterator[Cluster]":
    """A lessor cluster of three nodes with a leader (`@pytest.mark.lessor(nodes=5, processes=True)` for another)."""
    from . import Cluster  # noqa: PLC0415 - what is heavy is imported by those who use it

    marker = request.node.get_closest_marker("lessor")
    with Cluster(*(marker.args if marker else ()), **(marker.kwargs if marker else {})) as cluster:
        yield cluster


@pytest.fixture
def lessor_node() -> "Iterator[Cluster]":
    """A lessor cluster of a single node: quicker to start, and to kill it is a whole outage."""
    from . import Cluster  # noqa: PLC0415 - see above

    with Cluster(1) as cluster:
        yield cluster
