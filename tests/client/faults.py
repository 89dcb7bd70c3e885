"""Plays a conversation between clients and the service again and again, with one fault on one of its packets."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..support.fake_service import LATENCY_MS, Fate, Hop, World


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one packet of a conversation."""

    name: str
    delays: tuple[float, ...]
    breaks: bool = False  # its connection

    def __str__(self) -> str:
        """Name the test."""
        return self.name


FAULTS = (
    Fault("lost", ()),
    Fault("lost with its connection", (), breaks=True),
    Fault("arrives as its connection breaks", (LATENCY_MS,), breaks=True),
    Fault("repeated", (LATENCY_MS, LATENCY_MS, 40.0, 900.0)),
    Fault("overtaken", (7.0,)),
    Fault("late", (750.0,)),
)


def with_fault(world: World, index: int, fault: Fault) -> Fate:
    """Return the fate in which the packet `index` meets the fault."""

    def fate(hop: Hop) -> Sequence[float]:
        if hop.index != index:
            return (LATENCY_MS,)
        if fault.breaks:
            client = world.clients[hop.client - 1]
            world.at(world.now + LATENCY_MS, lambda: client.lose_connection(hop.node), after=1)
        return fault.delays

    return fate


def each_fault(play: Callable[[World], None], nodes: int = 3) -> int:
    """Play a conversation undisturbed, and then with each fault on each of its packets; return how many were played."""
    world = World(nodes)
    play(world)
    count = len(world.hops)
    for index, fault in itertools.product(range(count), FAULTS):
        world = World(nodes)
        world.fate = with_fault(world, index, fault)
        try:
            play(world)
        except Exception as error:
            error.add_note(f"packet {index} of {count}: {fault}")
            raise
    return 1 + count * len(FAULTS)
