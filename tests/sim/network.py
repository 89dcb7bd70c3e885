"""The network of a simulated world: it loses, delays, repeats and reorders, brings old packets back, and can be cut.

Everything may happen to a packet, between nodes as between a client and a node. No connection of TCP repeats any, but
no promise rests on that.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .clock import MS

if TYPE_CHECKING:
    from .world import World

REPLAY_AFTER_MS = 4000


class Network:
    """Carries packets between machines. Nodes are numbered from 1 on, clients from 101 on."""

    def __init__(self, world: "World") -> None:
        """Start whole."""
        self.world = world
        self.random = world.random
        self.options = world.options
        self.cuts: dict[tuple[int, int], None] = {}
        self.late_us: dict[tuple[int, int], int] = {}
        self.packets = 0
        self.lost = 0
        self.repeated = 0
        self.whole = False  # healed: no more loss

    def send(self, sender: int, receiver: int, deliver: Callable[..., None], *what: Any) -> None:
        """Have `deliver(*what)` called when the packet arrives, if it does."""
        world, random, options = self.world, self.random, self.options
        self.packets += 1
        if self.whole:
            world.at(world.now_us + options.latency_us + int(random() * options.jitter_us), deliver, *what)
            return
        link = (sender, receiver)
        if link in self.cuts or (options.loss and random() < options.loss):
            self.lost += 1
            return
        world.at(world.now_us + self._travel_us(link), self._arrive, link, deliver, *what)
        if sender < 100 and receiver < 100:
            repeat, replay = options.repeat, options.replay
        else:
            repeat, replay = options.repeat_client, options.replay_client
        if repeat and random() < repeat:
            self.repeated += 1
            world.at(world.now_us + self._travel_us(link), self._arrive, link, deliver, *what)
        if replay and random() < replay:
            self.repeated += 1
            late_us = int(random() * REPLAY_AFTER_MS * MS)
            world.at(world.now_us + self._travel_us(link) + late_us, self._arrive, link, deliver, *what)

    def reachable(self, one: int, other: int) -> bool:
        """Return whether packets pass both ways."""
        return (one, other) not in self.cuts and (other, one) not in self.cuts

    def heal(self) -> None:
        """Be whole from now on; what is on its way still arrives."""
        self.whole = True
        self.cuts.clear()
        self.late_us.clear()

    def _travel_us(self, link: tuple[int, int]) -> int:
        random, options = self.random, self.options
        travel_us = options.latency_us + int(random() * options.jitter_us)
        if options.slow and random() < options.slow:
            travel_us += int(random() * options.slow_ms * MS)
        return travel_us + int(random() * self.late_us.get(link, 0))

    def _arrive(self, link: tuple[int, int], deliver: Callable[..., None], *what: Any) -> None:
        if link not in self.cuts:
            deliver(*what)
