"""Whole clusters of cores under loss, delay, repetition, reordering, cuts, pauses and crashes, each run from one seed."""

import os
from collections.abc import Iterator

import pytest

from lessor.core import limits

from ..support.consensus import Cluster

SIZES = (3, 5, 3, 5, 4, 2, 1)


def seeds() -> list[int]:
    first, _, last = os.environ.get("LESSOR_CLUSTER_SEEDS", "0-199").partition("-")
    return list(range(int(first), int(last or first) + 1))


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small pages, chunks and journals, so that a short run meets all of them."""
    for name, value in {
        "JOURNAL_RETAIN_SLOTS": 12,
        "PAGE_SLOTS": 3,
        "SNAPSHOT_CHUNK_BYTES": 150,
        "SAVE_EVERY_SLOTS": 5,
        "BATCH_COMMANDS_MAX": 2,
    }.items():
        monkeypatch.setattr(limits, name, value)
    return


@pytest.mark.parametrize("seed", seeds())
def test_whatever_happens_the_nodes_agree_and_time_is_never_ahead(seed: int, small_limits: None) -> None:
    """P1, P2, P4; and after healing, progress."""
    cluster = Cluster(seed, SIZES[seed % len(SIZES)])
    cluster.storm(4000)
    cluster.heal()
