"""Clients, nodes and a network that do whatever a seed says, and afterwards nothing is left (P3, P6, P8, P9, P10).

The world checks after each event that who believes that it holds does, that what is over is lost, and that what was
called certain stays so. Packets are lost, late and overtaken, but not repeated: a connection does not repeat them.
"""

import random
from collections.abc import Callable, Sequence

from lessor.client.protocol import LeaseRecord

from ..support.fake_service import FakeClient, Hop, Outcome, World


class Life:
    """One world and what its users have asked for, decided by a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(self.rng.choice([1, 2, 3]))
        self.nodes = list(self.world.service.endpoints)
        self.waiting: list[tuple[FakeClient, Outcome]] = []
        self.world.fate = self.storm()
        for _ in range(3):
            self.world.client(session_timeout_ms=self.rng.choice([600, 3_000, 10_000]))

    def storm(self) -> Callable[[Hop], Sequence[float]]:
        rng = self.rng
        loss, late, late_ms = rng.choice([0, 0.05, 0.2]), rng.choice([0, 0.05, 0.2]), rng.choice([30, 900, 5_000])

        def fate(hop: Hop) -> Sequence[float]:
            draw = rng.random()
            return () if draw < loss else (float(rng.randrange(1, late_ms)),) if draw < loss + late else (1.0,)

        return fate

    def step(self) -> None:
        """Let one thing be done, by a user or to the service."""
        rng, world = self.rng, self.world
        client, node = rng.choice(world.clients), rng.choice(self.nodes)
        held = client.believes()
        match rng.randrange(14):
            case 0 | 1 | 2:
                timeout_ms = rng.choice([0, 0, 90, 900, 5_000])
                client.acquire(rng.choice("xy"), rng.choice([0, 150, 2_000]), timeout_ms, auto_renew=rng.random() < 0.7)
            case 3:
                self.waiting.append((client, client.acquire(rng.choice("xy"), rng.choice([0, 2_000]))))
            case 4 if self.waiting:
                waiter, outcome = self.waiting.pop(rng.randrange(len(self.waiting)))
                waiter.abandon(outcome)
            case 5 if held:
                client.release(rng.choice(held), within_ms=rng.choice([300, 10_000]))
            case 6 if held:
                client.renew(rng.choice(held), rng.choice([0, 100, 4_000]))
            case 7 if world.up:
                world.elect(rng.choice(sorted(world.up)), adopt=rng.random() < 0.5, tell=rng.random() < 0.7)
            case 8 if world.service.leader:
                world.service.held_up = True
            case 9 if world.service.leader and world.service.held_up:
                world.commit()
            case 10:
                client.lose_connection(node)
            case 11 if node in world.up:
                world.kill(node)
            case 11:
                world.restart(node)
                if not world.service.leader:
                    world.elect(node, adopt=rng.random() < 0.5)
            case 12 if rng.random() < 0.3:
                world.depose()
            case 12:
                world.stand_still(500)
            case 13 if rng.random() < 0.3:
                world.silent ^= {node}
            case _:
                pass
        world.run(rng.choice([0, 1, 2, 7, 60, 400]))


def live(seed: int) -> World:
    """Let one life pass, and then the storm: in the end everything is given back, and nothing may be left."""
    life = Life(seed)
    world = life.world
    for _ in range(60):
        life.step()
    world.heal()
    world.run(8_000)
    for client, outcome in life.waiting:
        client.abandon(outcome)
    for client in world.clients:
        for lease in client.believes():
            client.release(lease)
    world.run(20_000)
    assert world.claims() == [], world.story()
    tokens = [outcome.lease.token for outcome in world.acquires if isinstance(outcome.value, LeaseRecord)]
    assert len(tokens) == len(set(tokens)), "each grant is handed to one caller"  # P5
    assert all(outcome.done or outcome.acquire.finished for outcome in world.acquires if outcome.acquire)
    return world


def test_whatever_happens_nobody_is_deceived_and_in_the_end_nothing_is_left() -> None:
    seen: set[str] = set()
    for seed in range(20):
        try:
            world = live(seed)
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        seen |= set(world.service.kinds)
        seen |= {lease.reason for client in world.clients for _, lease in client.changes}
        seen |= {f"{type(outcome.value).__name__} {outcome.definite_failure}" for outcome in world.acquires}
        seen |= {type(message).__name__ for hop in world.hops for message in hop.messages}
    assert seen >= {"granted", "queued", "cancelled", "renewed", "released", "expired", "session_expired"}
    assert seen >= {"it expired", "it expired before it could be renewed", "released"}
    assert seen >= {"LeaseRecord False", "Denied True", "AcquireTimeout True", "AcquireTimeout False"}
    assert seen >= {"Unavailable True", "Unavailable False", "Notice", "Redirect"}
