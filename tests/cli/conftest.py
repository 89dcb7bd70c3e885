"""What the tests of the commands share: an environment without LESSOR_…, and a service of one node."""

import os
from collections.abc import Iterator

import pytest

import lessor
from lessor.client.status import ask_status

from ..support.waiting import until
from .commands import Run, run_main


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LESSOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The endpoint of a service in this process."""
    with lessor.embedded() as node:
        until(lambda: ask_status([node.endpoints]).healthy, "it leads itself")
        yield node.endpoints


@pytest.fixture
def client(service: str) -> Iterator[lessor.Client]:
    """A client of the service."""
    with lessor.connect(service, holder="tester") as connected:
        yield connected


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""
    return lambda *arguments: run_main(capfd, *arguments)
