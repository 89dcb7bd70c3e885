"""All that is known of a name, and registers written by token alone, in both faces of the client."""

from collections.abc import Callable, Iterator

import pytest

import lessor
from lessor import NotCovered, NotHeldError, VersionConflict
from lessor.actors.embedded import Embedded
from lessor.client.wants import read, units

from .loops import Body, Client, play


@pytest.fixture(scope="module")
def node() -> Iterator[Embedded]:
    with lessor.embedded() as embedded:
        yield embedded


@pytest.fixture
def run(node: Embedded, request: pytest.FixtureRequest) -> Callable[[Body], None]:
    return lambda body: play(node, request.node.name[:200], body)


def test_about_tells_of_the_leases_and_of_what_is_kept_beside_them(node: Embedded) -> None:
    with lessor.connect(node.endpoints, "about", holder="me") as client:
        free = client.about("x")
        assert (free.leases, free.limit, free.units, free.pins, free.version, free.lapse) == ((), 0, 0, (), 0, None)
        client.create_semaphore("x", 3, b"data")
        client.pin("x", "ops")
        with client.lock(units("x", 2)) as lease:
            about = client.about("x")
            assert [(view.holder, view.token) for view in about.leases] == [("me", lease.token)]
            assert (about.limit, about.created, about.units, about.data) == (3, True, 2, b"data")
            assert about.pins == ("ops",)
        with client.lock("y") as lease:
            written = lease.write(b"")
            assert client.about("y").version == written.version > 0
        with client.lock(units("z", 1, limit=2)):
            about = client.about("z")
            assert (about.limit, about.created, about.units) == (2, False, 1)


def test_about_tells_how_the_last_lease_lapsed_and_how_long_its_name_stays_closed(node: Embedded) -> None:
    with lessor.connect(node.endpoints, "closing", holder="me") as client:
        client.create_namespace("closing", lock_delay=60)
        lease = client.acquire("x")
        client.break_lease(lease.token, "a reason")
        about = client.about("x")
        assert about.lapse is not None
        assert (about.lapse.holder, about.lapse.token, about.lapse.why) == ("me", lease.token, "a reason")
        assert 0 < about.closed_for <= 60
        assert about.closed_for == about.lapse.closed_for
        assert about.lapse.ended_ago >= 0
        assert about.lapse.held_for >= 0


def test_a_line_longer_than_one_answer_is_told_to_its_end(node: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lessor.core.limits.LIST_PAGE_MAX", 2)
    with lessor.connect(node.endpoints, "long") as client:
        leases = [client.acquire(read("x")) for _ in range(5)]
        assert [view.token for view in client.about("x").leases] == [lease.token for lease in leases]


def test_a_register_is_written_by_whoever_has_a_token_that_covers_it(node: Embedded) -> None:
    with lessor.connect(node.endpoints, "written") as holder, lessor.connect(node.endpoints, "written") as client:
        with holder.lock("x") as lease:
            one = client.write_register("x", b"one", lease.token, version=0).version
            assert client.read_register("x").data == b"one"
            with pytest.raises(VersionConflict):
                client.write_register("x", b"two", lease.token, version=0)
            with pytest.raises(NotCovered):
                client.write_register("y", b"two", lease.token)
            assert client.erase_register("x", lease.token, version=one) is True
            assert client.erase_register("x", lease.token) is False
        with pytest.raises(NotHeldError):
            client.write_register("x", b"late", lease.token)


def test_what_is_kept_is_listed_of_one_namespace_or_of_all(node: Embedded) -> None:
    with lessor.connect(node.endpoints, "here") as here, lessor.connect(node.endpoints, "there") as there:
        for client in (here, there):
            client.create_semaphore("seats", 1)
            client.pin("pinned", "me")
            with client.lock("kept") as lease:
                lease.write(b"")
        for listed in (here.semaphores, here.pins, here.registers, here.sessions):
            assert {each.namespace for each in listed()} == {"here"}
            assert {"here", "there"} <= {each.namespace for each in listed(all_namespaces=True)}


def test_it_is_the_same_awaited(run: Callable[[Body], None]) -> None:
    async def body(client: Client) -> None:
        async with client.lock("x") as lease:
            written = await client.write_register("x", b"one", lease.token)
            about = await client.about("x")
            assert ([view.token for view in about.leases], about.version) == ([lease.token], written.version)
            assert await client.erase_register("x", lease.token) is True
        assert await client.semaphores(all_namespaces=True) is not None

    run(body)
