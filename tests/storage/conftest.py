"""Fixtures of the storage tests: a data directory, and chance that prints how to have it again."""

import os
import random
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lessor.storage.directory import DataDirectory, Identity

from .histories import ALICE


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Chance for one test, shown only if it fails."""
    seed = int(os.environ.get("LESSOR_SEED") or secrets.randbits(32))
    sys.stdout.write(f"to repeat: LESSOR_SEED={seed} pytest '{request.node.nodeid}'\n")
    return seed


@pytest.fixture
def chance(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def identity() -> Identity:
    return ALICE


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    """An open data directory of node 1."""
    with DataDirectory(tmp_path / "data", ALICE) as directory:
        yield directory
