"""What the tests of complaints do to clients in virtual time."""

from collections.abc import Sequence
from typing import Any

from lessor.client.records import LeaseRecord
from lessor.client.states import LeaseState
from lessor.core.requests import Request

from ..support.fake_service import FakeClient, Hop, Outcome, World

TTL_MS = 9_000


def held(client: FakeClient, name: str = "x", ttl_ms: int = TTL_MS, **options: Any) -> LeaseRecord:
    """Have a client acquire what is free."""
    outcome = client.acquire(name, ttl_ms, **options)
    client.world.finish(outcome)
    assert client.holds(outcome.lease)
    return outcome.lease


def standing(client: FakeClient, **options: Any) -> Outcome:
    """Have a client stand in line."""
    outcome = client.acquire(**options)
    client.world.run(20)
    assert not outcome.done
    return outcome


def cut(client: FakeClient, *, up: bool = True, down: bool = True) -> None:
    """Lose what a client says, or what it is told; the others go on."""
    client.world.fate = lambda hop: () if hop.client == client.number and (up if hop.up else down) else (1.0,)


def stand_still(client: FakeClient, ms: float) -> None:
    """Have a client's process stop for a while; what arrives meanwhile lies unread."""
    world = client.world
    until = world.now + ms

    def later(hop: Hop) -> Sequence[float]:
        return (1.0,) if hop.client != client.number else (max(1.0, until - world.now),)

    world.fate = later
    client.dead = True
    world.run(ms)
    client.dead = False
    world.heal()
    client.turn()


def moves(client: FakeClient) -> list[LeaseState]:
    """What a client was told of its leases."""
    return [state for _, _, state in client.states]


def told_at(client: FakeClient, state: LeaseState) -> float:
    """When, in the world's time, a client was told this, for the first time."""
    told = next(at for at, _, each in client.states if each is state)
    return (told - client.offset_ms) / client.rate


def asks(hop: Hop, kind: type) -> bool:
    """Whether a request of this kind is in a packet."""
    return hop.up and any(isinstance(each, Request) and isinstance(each.operation, kind) for each in hop.messages)


def settled(world: World) -> bool:
    """Whether, after a while, nothing is left in the service that no client knows of."""
    world.heal()
    world.run(40_000)
    return not world.leftovers()
