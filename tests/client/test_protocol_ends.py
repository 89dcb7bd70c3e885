"""A client that ends leases of its own, by whatever road, does not believe in them any more, in virtual time (P3)."""

from collections.abc import Callable

import pytest

from lessor.client.errors import Unavailable
from lessor.client.protocol import LeaseRecord, LeaseState
from lessor.client.refusals import Refused
from lessor.client.states import Loss
from lessor.core.commands import (
    FOREVER,
    Break,
    Claim,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    DropNamespace,
    NamespaceConfig,
    Operation,
    Release,
)
from lessor.core.requests import Busy
from lessor.core.resources import Mode, Resource
from lessor.core.results import Done, NotHeld, Released

from ..support.fake_service import FakeClient, Outcome, World


def ask(client: FakeClient, operation: Operation, within_ms: int = 10_000) -> Outcome:
    """Ask as the faces of the client do."""
    return client.begin(lambda done: client.protocol.ask(operation, done, client.now_ms + within_ms))


def acquired_of_a_semaphore(client: FakeClient, namespace: str) -> LeaseRecord:
    """Make a namespace with a semaphore in it, and hold a unit of it."""
    for made in (
        CreateNamespace(namespace, NamespaceConfig()),
        CreateSemaphore(namespace, ("x",), 1, b""),
    ):
        client.world.finish(ask(client, made))
    claim = Claim(namespace, (Resource(("x",), Mode.COUNT, 1),), "me", b"", 30_000, FOREVER, detached=False)
    outcome = client.begin(lambda done: client.protocol.acquire(claim, done, None))
    client.world.finish(outcome)
    return outcome.lease


ENDED_BY_ITS_CLIENT: dict[str, tuple[Callable[[int], Operation], LeaseState, Loss | None, str]] = {
    "release": (Release, LeaseState.RELEASED, None, "released"),
    "break": (lambda token: Break(token, "host h7 is gone"), LeaseState.LOST, Loss.BROKEN, "host h7 is gone"),
    "delete_semaphore": (
        lambda token: DeleteSemaphore("n", ("x",), force=True),
        LeaseState.LOST,
        Loss.BROKEN,
        "the semaphore was deleted",
    ),
    "drop_namespace": (
        lambda token: DropNamespace("n", force=True),
        LeaseState.LOST,
        Loss.BROKEN,
        "its namespace was dropped",
    ),
}


@pytest.mark.parametrize("how", ENDED_BY_ITS_CLIENT)
def test_whatever_a_client_ends_it_does_not_hold_from_the_moment_of_asking(how: str) -> None:  # P3
    world = World()
    client = world.client()
    client.protocol._notice = lambda notice: None  # type: ignore[method-assign]  # any push may be lost
    lease = acquired_of_a_semaphore(client, "n")
    operation, state, loss, reason = ENDED_BY_ITS_CLIENT[how]
    done = ask(client, operation(lease.token))
    assert not client.believes(), "before anybody else can be granted"
    world.finish(done)
    assert done.value in (Released(), Done(changed=True))
    assert (lease.state, lease.loss, lease.reason) == (state, loss, reason), "before the caller goes on"
    assert not client.protocol.leases


@pytest.mark.parametrize("how", ["break", "delete_semaphore", "drop_namespace"])
def test_what_a_client_may_have_ended_is_given_back(how: str) -> None:  # P3, P9
    world = World()
    client = world.client()
    lease = acquired_of_a_semaphore(client, "n")
    world.service.reply = lambda node, request: Busy(request.number)
    done = ask(client, ENDED_BY_ITS_CLIENT[how][0](lease.token), within_ms=500)
    world.finish(done)
    assert isinstance(done.value, Unavailable)
    assert done.value.indefinite
    assert lease.loss is Loss.BROKEN
    world.heal()
    world.run(5_000)
    assert not world.claims()


@pytest.mark.parametrize(
    "operation",
    [
        Break(10_000, "no such lease"),
        DeleteSemaphore("default", ("x",), force=True),
        DropNamespace("default", force=True),
        DropNamespace("elsewhere", force=True),
        DeleteSemaphore("default", ("y",), force=True),
    ],
    ids=str,
)
def test_a_lease_that_its_client_certainly_did_not_end_is_held_on(operation: Operation) -> None:
    world = World()
    client = world.client()
    outcome = client.acquire(ttl_ms=3_000)
    world.finish(outcome)
    lease = outcome.lease
    done = ask(client, operation)
    world.finish(done)
    assert isinstance(done.value, Refused | NotHeld)
    assert client.believes() == [lease]
    world.run(10_000)
    assert client.believes() == [lease]
