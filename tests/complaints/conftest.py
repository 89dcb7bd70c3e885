"""Fixtures of the tests of complaints: one node for a module, clients in a namespace of the test's own."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

import lessor
from lessor.actors.embedded import Embedded

from ..support.patience import UNHURRIED, unhurried_ends

Make = Callable[[], lessor.Client]
Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def unhurried() -> Iterator[None]:
    """Nobody is hurried while he gives back what he holds."""
    with unhurried_ends():
        yield


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[:200]


@pytest.fixture
def make(node: Embedded, namespace: str) -> Iterator[Make]:
    """Makes clients, and closes them."""
    made: list[lessor.Client] = []

    def connect() -> lessor.Client:
        made.append(lessor.connect(node.endpoints, namespace))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def client(make: Make) -> lessor.Client:
    return make()


@pytest.fixture
def run(node: Embedded, namespace: str) -> Run:
    """Runs a program in a process of its own; the endpoints and the namespace are its arguments."""

    def start(program: str) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-c", UNHURRIED + program, node.endpoints, namespace]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)

    return start
