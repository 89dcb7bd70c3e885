"""Fixtures of the fencing tests: a node, a holder that is overtaken, a database, chance that can be had again."""

import os
import random
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lessor
from lessor.actors.embedded import Embedded
from lessor.client.sync import Lease

from ..support import holders, postgres

Overtake = Callable[..., holders.Overtaken]


@pytest.fixture
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def overtake(node: Embedded) -> Overtake:
    """`overtake(SOURCE, *arguments, write_as_second=...)`: see tests/support/holders.py."""

    def run(write: str, *arguments: object, write_as_second: Callable[[Lease], None]) -> holders.Overtaken:
        return holders.overtake(node.endpoints, write, arguments, write_as_second)

    return run


@pytest.fixture(scope="session")
def postgres_host() -> Iterator[str]:
    """The socket directory of a real PostgreSQL server."""
    folder = postgres.programs()
    if folder is None:
        pytest.skip("no PostgreSQL server is installed")
    with postgres.server(folder) as host:
        yield host


@pytest.fixture
def open_postgres(postgres_host: str) -> Iterator[Callable[..., Any]]:
    """Opens connections to the server, whose database holds nothing of another test."""
    psycopg = pytest.importorskip("psycopg")
    made = []

    def connect(**options: Any) -> Any:
        made.append(psycopg.connect(host=postgres_host, user=postgres.USER, dbname=postgres.DATABASE, **options))
        return made[-1]

    with connect(autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Chance for one test, shown only if it fails."""
    seed = int(os.environ.get("LESSOR_SEED") or secrets.randbits(32))
    sys.stdout.write(f"to repeat: LESSOR_SEED={seed} pytest '{request.node.nodeid}'\n")
    return random.Random(seed)
