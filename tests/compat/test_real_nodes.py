"""The most important behaviours once more on real nodes: processes, sockets and files, restarted and killed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

import lessor
from lessor.actors.embedded import Embedded
from lessor.client import holders
from lessor.client.holders import ClaimDenied
from lessor.client.wants import read, units, write
from lessor.core.commands import (
    ANY_VERSION,
    FOREVER,
    Claim,
    CloseSession,
    CreateNamespace,
    CreateSemaphore,
    Describe,
    NamespaceConfig,
    Operation,
    Pin,
    Ping,
    PutRegister,
    Release,
)
from lessor.core.requests import Notice, SessionStolen
from lessor.core.resources import Resource
from lessor.core.results import (
    SESSION_EXPIRED,
    SESSION_STOLEN,
    WRONG_KEY,
    ClaimPhase,
    Done,
    Failed,
    NotHeld,
    SessionClosed,
    SessionOpened,
)
from lessor.testing import Cluster

from ..support.waiting import until
from .wire import Wire

HELD, WAITING = ClaimPhase.HELD, ClaimPhase.WAITING

T = TypeVar("T")


@pytest.fixture(autouse=True, params=["real nodes"])
def service() -> None:
    """These tests have nodes of their own, and do themselves what happens to them."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster


def key(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def claim(*resources: Resource, wait_ms: int = FOREVER, ttl_ms: int = 0) -> Claim:
    return Claim("default", resources, "holder", b"", ttl_ms, wait_ms, detached=False)


def ask(client: lessor.Client, operation: Operation) -> Any:
    """Ask what the client has no method for; here alone its insides are used."""
    return client._ask(operation)


def run(client: lessor.Client, steps: holders.Steps[T]) -> T:
    """Carry out what is composed of several operations."""
    operation = next(steps)
    try:
        while True:
            operation = steps.send(ask(client, operation))
    except StopIteration as end:
        found: T = end.value
        return found


def test_a_session_is_attached_again_with_its_key_after_its_process_died(tmp_path: Path) -> None:
    """YDB: with all that it holds and waits for; not with another key, and the dead one's requests count no more."""
    with lessor.embedded(tmp_path) as node:
        with Wire(node.endpoints, key("other")).open() as other, Wire(node.endpoints, key("one")).open() as one:
            held = one.ask(claim(write("a")))
            other.ask(claim(write("b")))
            waiting = one.ask(claim(write("b")))
            session = one.session
        endpoints = node.endpoints
        with Wire(endpoints, key("another")) as thief:
            refused = thief.attach(session, 1)
            assert isinstance(refused, Failed)
            assert refused.code == WRONG_KEY
        with Wire(endpoints, key("one")) as again:
            assert isinstance(again.attach(session, 1), SessionOpened)
            assert (again.status(held.claim).phase, again.status(held.claim).token) == (HELD, held.token)
            assert again.status(waiting.claim).phase == WAITING
            assert isinstance(again.ask(CloseSession()), SessionClosed)


def test_whoever_loses_a_session_to_another_connection_is_told_so(tmp_path: Path) -> None:
    with (
        lessor.embedded(tmp_path) as node,
        Wire(node.endpoints, key("one")).open() as old,
        Wire(node.endpoints, key("one")) as new,
    ):
        token = old.ask(claim(write("a"))).token
        assert isinstance(new.attach(old.session, 1), SessionOpened)
        until(lambda: [told for told in old.listen() if isinstance(told, SessionStolen)], "the news of the theft")
        refused = old.ask(Release(token))
        assert isinstance(refused, Failed)
        assert refused.code == SESSION_STOLEN
        assert new.status(1).phase == HELD


def test_a_session_whose_process_died_ends_at_its_timeout_with_all_that_it_holds_and_waits_for(tmp_path: Path) -> None:
    with lessor.embedded(tmp_path) as node, Wire(node.endpoints, key("other")).open() as other:
        with Wire(node.endpoints, key("dead"), timeout_ms=500).open() as dead:
            dead.ask(claim(write("a"), read("b")))
            session = dead.session
        waiting = other.ask(claim(write("a")))
        until(lambda: other.status(waiting.claim).phase == HELD, "the end of the dead session")
        with Wire(node.endpoints, key("dead")) as late:
            refused = late.attach(session, 1)
            assert isinstance(refused, Failed)
            assert refused.code == SESSION_EXPIRED


def test_first_come_first_served_over_the_kill_of_the_leader(cluster: Cluster) -> None:
    """P7: places in line are kept, nobody overtakes, and whoever comes later stands behind."""
    wires = [Wire(cluster.endpoints, key(f"wire-{number}")).open() for number in range(4)]
    try:
        holder = wires[0].ask(claim(write("job")))
        early = [wire.ask(claim(write("job"))) for wire in wires[1:3]]
        cluster.kill_leader()
        late = wires[3].ask(claim(write("job")))
        order = [(wires[1], early[0].claim), (wires[2], early[1].claim), (wires[3], late.claim)]
        assert [wire.status(number).waiters_ahead for wire, number in order] == [0, 1, 2]
        token = holder.token
        released_by = wires[0]
        for place, (wire, number) in enumerate(order):
            released_by.ask(Release(token))
            phases = [other.status(another).phase for other, another in order[place:]]
            assert phases == [HELD] + [WAITING] * (2 - place)
            assert wire.status(number).token > token
            token, released_by = wire.status(number).token, wire
    finally:
        for wire in wires:
            wire.vanish()


def test_a_leader_that_is_cut_off_describes_nothing(cluster: Cluster) -> None:
    """What it says of a lock would be of long ago, while others grant it anew."""
    with Wire(cluster.endpoints, key("one")).open() as one:
        one.ask(claim(write("job")))
        old = cluster.wait_for_leader()
        cluster.partition(old, clients=False)
        with lessor.connect(cluster.endpoint_of(old), request_timeout=0.5) as naive, pytest.raises(lessor.Unavailable):
            naive.describe("job")
        assert cluster.wait_for_leader(other_than=old)
        [info] = one.ask(Describe("default", ("job",))).claims
        assert info.holder == "holder"


def test_a_grant_is_pushed_to_whoever_waits(tmp_path: Path) -> None:
    with (
        lessor.embedded(tmp_path) as node,
        Wire(node.endpoints, key("one")).open() as one,
        Wire(node.endpoints, key("two")).open() as two,
    ):
        held = one.ask(claim(write("a", "b")))
        waiting = two.ask(claim(write("a")))
        one.ask(Release(held.token))
        told = until(lambda: [each for each in two.listen() if isinstance(each, Notice)], "the news of the grant")
        assert (told[0].status.claim, told[0].status.phase) == (waiting.claim, HELD)


@contextmanager
def restarted(first: Callable[[Wire], int], data: Path) -> Iterator[tuple[Wire, int, Embedded]]:
    """Do something on a node, start it anew on its data, and attach to the same session there."""
    with lessor.embedded(data) as node, Wire(node.endpoints, key("one")).open() as one:
        found = first(one)
        session = one.session
    with lessor.embedded(data) as node, Wire(node.endpoints, key("one")) as wire:
        assert isinstance(wire.attach(session, 1), SessionOpened)
        yield wire, found, node


def test_the_units_of_a_semaphore_are_counted_right_after_a_restart(tmp_path: Path) -> None:
    def first(one: Wire) -> int:
        assert one.ask(CreateSemaphore("default", ("sem",), 10, b"what for")) == Done(changed=True)
        one.ask(claim(units("sem", 4)))
        waits = one.ask(claim(units("sem", 7)))
        assert waits.phase == WAITING
        number: int = waits.claim
        return number

    with restarted(first, tmp_path) as (wire, waits, node), lessor.connect(node.endpoints) as client:
        [found] = client.semaphores()
        assert (found.name, found.limit, found.units, found.data, found.waiting) == ("sem", 10, 4, b"what for", 1)
        assert client.try_acquire(units("sem", 1)) is None
        assert client.release(client.describe("sem")[0].token)
        assert wire.status(waits).phase == HELD
        assert client.semaphores()[0].units == 7


def test_paths_that_conflict_still_do_after_a_restart(tmp_path: Path) -> None:
    def first(one: Wire) -> int:
        token: int = one.ask(claim(write("users", "42"), read("audit"))).token
        return token

    with restarted(first, tmp_path) as (wire, token, node), lessor.connect(node.endpoints) as client:
        for resource in (write("users"), read("users", "42", "name"), write(), write("audit")):
            assert client.try_acquire(resource) is None
        for resource in (write("users", "43"), read("audit", "log")):
            assert client.try_acquire(resource) is not None
        wire.ask(Release(token))
        assert client.try_acquire(write("users", "42")) is not None


def test_pins_registers_and_namespaces_are_there_after_a_restart(tmp_path: Path) -> None:
    def first(one: Wire) -> int:
        one.ask(CreateNamespace("jobs", NamespaceConfig(lock_delay_ms=60_000)))
        one.ask(Pin("default", ("redis",), "machine-1"))
        token: int = one.ask(claim(write("redis"), ttl_ms=100)).token
        one.ask(PutRegister("default", ("redis",), token, ANY_VERSION, b"state"))
        return token

    with restarted(first, tmp_path) as (wire, token, node), lessor.connect(node.endpoints) as client:
        assert [(pin.name, pin.entities) for pin in client.pins()] == [("redis", ("machine-1",))]
        found = client.read_register("redis")
        assert found.data == b"state"
        written = wire.ask(PutRegister("default", ("redis",), token, found.version, b"more"))
        assert written.version > found.version
        with lessor.connect(node.endpoints, "jobs") as worker:
            lease = worker.acquire("x")
            client.break_lease(lease.token, "to see the name stay closed")
            assert worker.try_acquire("x") is None
            until(lease.lost.is_set, "the news of the break")
            assert "to see the name stay closed" in lease.lost_reason


def test_leases_by_the_name_of_their_holder_on_a_cluster_that_loses_its_leader(cluster: Cluster) -> None:
    """Juju: claim, claim again, denied; revoked by token whoever asks."""
    client = cluster.client()
    first = run(client, holders.claim("default", ("redis",), "redis/0", 30_000))
    cluster.kill_leader()
    again = run(client, holders.claim("default", ("redis",), "redis/0", 60_000))
    assert (again.token, again.expires_at_ms > first.expires_at_ms) == (first.token, True)
    with pytest.raises(ClaimDenied, match="redis/0"):
        run(client, holders.claim("default", ("redis",), "redis/1", 30_000))
    assert run(client, holders.revoke("default", ("redis",), "redis/0"))
    assert run(client, holders.claim("default", ("redis",), "redis/1", 30_000)).token > first.token


def test_a_register_refuses_who_lost_the_lease_on_a_cluster(cluster: Cluster) -> None:
    with Wire(cluster.endpoints, key("old")).open() as old, Wire(cluster.endpoints, key("new")).open() as new:
        before = old.ask(claim(write("job"), ttl_ms=500)).token
        waiting = new.ask(claim(write("job")))
        until(lambda: new.status(waiting.claim).phase == HELD, "the end of the old lease")
        assert old.ask(PutRegister("default", ("job",), before, ANY_VERSION, b"too late")) == NotHeld()
        after = new.status(waiting.claim).token
        assert new.ask(PutRegister("default", ("job",), after, 0, b"in time")).token == after
        assert old.ask(Ping(())).claims == ()
