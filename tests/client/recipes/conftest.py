"""What the tests of the recipes share: a node, clients that leave nothing behind on it, threads that hold up nobody."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

import lessor
from lessor.actors.embedded import Embedded

from ...support.clients import clients


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def make(node: Embedded, request: pytest.FixtureRequest) -> Iterator[Callable[..., lessor.Client]]:
    with clients(node, request.node.name[:200]) as connect:
        yield connect
    with lessor.connect(node.endpoints, request.node.name[:200]) as observer:
        left = [lease for lease in observer.leases() if not lease.detached]
        assert (left, observer.registers()) == ([], []), "nothing is left behind"
    assert node.failure is None


@pytest.fixture
def one(make: Callable[..., lessor.Client]) -> lessor.Client:
    return make(holder="one")


@pytest.fixture
def other(make: Callable[..., lessor.Client]) -> lessor.Client:
    return make(holder="other")


@pytest.fixture
def aside() -> Callable[..., "Future[Any]"]:
    """Runs calls in threads that hold up nobody's end."""

    def begin(call: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        outcome: Future[Any] = Future()

        def run() -> None:
            try:
                outcome.set_result(call(*arguments))
            except BaseException as error:  # noqa: BLE001 - whoever asks for the outcome gets it
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return outcome

    return begin
