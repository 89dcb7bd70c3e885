"""Leases by the name of their holder, through both faces of the client (Juju's Claimer, Checker and Revoker)."""

import asyncio
from collections.abc import Iterator

import pytest

import lessor
from lessor.client.sync import Client


@pytest.fixture(scope="module")
def endpoints() -> Iterator[str]:
    with lessor.embedded() as node:
        yield node.endpoints


@pytest.fixture
def client(endpoints: str) -> Iterator[Client]:
    with lessor.connect(endpoints) as client:
        yield client


def test_a_claim_by_the_same_holder_extends_and_one_by_another_is_denied(client: Client) -> None:
    token = client.claim("app", "unit/0", 60, b"where")
    assert client.claim("app", "unit/0", 6_000) == token
    with pytest.raises(lessor.ClaimDenied, match="unit/0") as denied:
        client.claim("app", "unit/1", 60)
    assert denied.value.holder == "unit/0"
    assert not denied.value.indefinite
    (view,) = client.describe("app")
    assert (view.holder, view.data, view.token) == ("unit/0", b"where", token)
    assert view.expires_in > 5_000


def test_an_extension_never_shortens(client: Client) -> None:
    client.claim("long", "unit/0", 6_000)
    client.extend("long", "unit/0", 1)
    assert client.describe("long")[0].expires_in > 5_000


def test_only_the_holder_s_lease_is_extended_checked_or_revoked(client: Client) -> None:
    token = client.claim(("model", "x"), "unit/0", 60)
    assert client.check_holder(("model", "x"), "unit/0") == client.extend(("model", "x"), "unit/0", 60) == token
    for call in (client.extend, client.claim):
        with pytest.raises(lessor.Refused):
            call(("model", "x"), "unit/1", 60)
    for check in (client.check_holder, client.revoke):
        with pytest.raises(lessor.NotHeldError):
            check(("model", "x"), "unit/1")
    assert client.revoke(("model", "x"), "unit/0")
    assert not client.revoke(("model", "x"), "unit/0")
    assert client.claim(("model", "x"), "unit/1", 60) > token, "P5"


def test_a_lease_that_its_own_client_revokes_by_its_holder_is_not_held_any_more(client: Client) -> None:  # P3
    lease = client.acquire("own", holder="me")
    assert client.revoke("own", "me")
    assert (lease.held, lease.state) == (False, lessor.LeaseState.RELEASED)
    assert not client.revoke("own", "me")


def test_a_lease_that_its_own_client_ends_by_force_is_not_held_any_more(client: Client) -> None:  # P3
    lease = client.acquire("forced")
    client.break_lease(lease.token, "in the way")
    assert (lease.held, lease.lost_reason, lease.loss) == (False, "in the way", lessor.Loss.BROKEN)


def test_the_awaited_face_does_the_same(endpoints: str) -> None:
    async def story() -> None:
        async with lessor.aio.connect(endpoints) as client:
            token = await client.claim("awaited", "a", 60)
            assert await client.extend("awaited", "a", 60) == await client.check_holder("awaited", "a") == token
            with pytest.raises(lessor.ClaimDenied):
                await client.claim("awaited", "b", 60)
            assert await client.revoke("awaited", "a")
            lease = await client.acquire("awaited", holder="me")
            assert await client.revoke("awaited", "me")
            assert not lease.held, "P3"

    asyncio.run(story())


def test_a_duration_of_nothing_is_refused(client: Client) -> None:
    with pytest.raises(lessor.BadRequest, match="ttl"):
        client.claim("app", "unit/0", 0)
