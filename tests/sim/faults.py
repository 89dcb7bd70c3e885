"""What goes wrong in a simulated world, beside what befalls single messages and commits."""

from typing import TYPE_CHECKING

from lessor.core.effects import Role
from lessor.core.messages import PeerLost

from .clock import MS

if TYPE_CHECKING:
    from .node import Node
    from .world import World

PAUSES_MS = (30, 200, 450, 900, 2500)
"""Below and above a stall that a leader notices, the patience of its followers, and most leases."""

SLOW_MS = 20
"""How long a slow node stands still at a time, at most."""


class Faults:
    """Has one thing after another go wrong until the world heals, as its options weigh them."""

    def __init__(self, world: "World") -> None:
        """Know what may go wrong in this world."""
        self.world = world
        options = world.options
        weights = {
            self._cut: options.cut,
            self._split: options.split,
            self._mend: options.cut + options.split + options.cut_client + options.slow_link,
            self._cut_client: options.cut_client,
            self._kill: options.kill,
            self._stop: options.stop,
            self._stall: options.stall,
            self._stall_leader: options.stall_leader,
            self._suspend: options.suspend,
            self._slow_node: options.slow_node,
            self._rotate: options.rotate,
            self._depose: options.depose,
            self._fail_disk: options.fail_disk,
            self._slow_link: options.slow_link,
            self._stall_client: options.stall_client,
            self._suspend_client: options.suspend_client,
            self._kill_client: options.kill_client,
        }
        self.kinds = [kind for kind, weight in weights.items() for _ in range(weight)]

    def begin(self) -> None:
        """Plan the first fault."""
        if self.kinds and self.world.options.fault_every_ms:
            self._plan()

    def _plan(self) -> None:
        world = self.world
        world.at(world.now_us + int(world.options.fault_every_ms * MS * 2 * world.random()), self._happen)

    def _happen(self) -> None:
        if self.world.faulty:
            self.world.rng.choice(self.kinds)()
            self._plan()

    # --- whom it befalls ---------------------------------------------------------------------------------------------

    def _some_node(self) -> "Node":
        """Return a node, more often than not one that believes that it leads."""
        world = self.world
        leaders = world.leaders()
        if leaders and world.random() < 0.6:
            return world.rng.choice(leaders)
        return world.nodes[world.rng.choice(world.members)]

    def _pause_us(self) -> int:
        world = self.world
        return int(world.rng.choice(PAUSES_MS) * MS * (0.5 + world.random()))

    # --- the network -------------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        world, rng = self.world, self.world.rng
        node = self._some_node().number
        others = [other for other in world.members if other != node]
        if not others:
            return
        cut = rng.sample(others, rng.randint(1, len(others)))
        out, back = rng.choice(((True, True), (True, True), (True, False), (False, True)))
        for other in cut:
            if out:
                world.network.cuts[node, other] = None
            if back:
                world.network.cuts[other, node] = None
        world.count_fault(f"a node cut off {'both ways' if out and back else 'one way'}")
        if rng.random() < 0.3:
            for other in cut:
                world.nodes[other].lose_peer(node)

    def _split(self) -> None:
        """Part the nodes into two sides, and the clients with them; a few clients reach both."""
        world, rng = self.world, self.world.rng
        members = list(world.members)
        if len(members) < 2:
            return
        one = rng.sample(members, rng.randint(1, len(members) - 1))
        other = [node for node in members if node not in one]
        out, back = rng.choice(((True, True), (True, True), (True, False), (False, True)))
        sides = [[*one], [*other]]
        for client in world.clients:
            if rng.random() < 0.8:
                rng.choice(sides).append(client.number)
        for here in sides[0]:
            for there in sides[1]:
                if out:
                    world.network.cuts[here, there] = None
                if back:
                    world.network.cuts[there, here] = None
        world.count_fault(f"nodes and clients parted {'both ways' if out and back else 'one way'}")

    def _mend(self) -> None:
        network, random = self.world.network, self.world.random
        network.cuts = {link: None for link in network.cuts if random() < 0.25}
        network.late_us = {link: late for link, late in network.late_us.items() if random() < 0.5}

    def _cut_client(self) -> None:
        world, rng = self.world, self.world.rng
        client = rng.choice(world.clients).number
        for node in world.members:
            out, back = rng.choice(((True, True), (True, False), (False, True), (False, False)))
            if out:
                world.network.cuts[client, node] = None
            if back:
                world.network.cuts[node, client] = None
        world.count_fault("a client cut off")

    def _slow_link(self) -> None:
        world, rng = self.world, self.world.rng
        node = self._some_node().number
        late_us = rng.choice((20, 100, 400)) * MS
        for other in world.members:
            if rng.random() < 0.6:
                world.network.late_us[node, other] = late_us
            if rng.random() < 0.6:
                world.network.late_us[other, node] = late_us
        world.count_fault("slow links")

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _kill(self) -> None:
        if self.world.random() < 0.1:
            self._kill_all()
            return
        node = self._some_node()
        if node.up:
            self.world.count_fault("a node killed")
            node.crash()
            self.world.restart_later(node)

    def _kill_all(self) -> None:
        self.world.count_fault("every node killed")
        for node in self.world.nodes.values():
            if node.up:
                node.crash()
                self.world.restart_later(node)

    def _stop(self) -> None:
        node = self._some_node()
        if node.up:
            self.world.count_fault("a node stopped in good order")
            node.stop()
            self.world.restart_later(node)

    def _stall(self) -> None:
        node = self._some_node()
        self.world.count_fault("a node stalled")
        node.pause(self._pause_us())

    def _stall_leader(self) -> None:
        for node in self.world.leaders():
            self.world.count_fault("a leader stalled")
            node.pause(self._pause_us())

    def _suspend(self) -> None:
        node = self._some_node()
        self.world.count_fault("a node suspended")
        node.pause(self._pause_us(), suspend=True)

    def _slow_node(self) -> None:
        """Have a node run for a little while at a time, as a machine does that has too much to do."""
        self.world.count_fault("a slow node")
        self._falter(self._some_node(), self.world.now_us + 4 * self._pause_us())

    def _falter(self, node: "Node", until_us: int) -> None:
        world = self.world
        if world.faulty and world.now_us < until_us:
            node.pause(int(SLOW_MS * MS * world.random()))
            runs_us = int(world.random() * MS)
            world.at(max(world.now_us, node.paused_until_us) + runs_us, self._falter, node, until_us)

    def _depose(self) -> None:
        """Have followers stand although their leader is well: safety must not rest on patience."""
        world = self.world
        self.world.count_fault("a healthy leader suspected")
        for node in world.nodes.values():
            if node.up and world.random() < 0.8:
                node.arrive(Role.PROPOSER, [PeerLost(node.proposer.leader.node)])

    def _rotate(self, times: int = 0, last: int = 0) -> None:
        """Cut the leader off from its peers, though not from its clients, and have the others elect one."""
        world = self.world
        leaders = [node for node in world.leaders() if node.number != last]
        if not world.faulty or not leaders or len(world.members) < 3:
            return
        world.count_fault("a leader cut off that goes on writing")
        leader = world.rng.choice(leaders).number
        world.network.cuts.clear()
        for other in world.members:
            if other != leader:
                world.network.cuts[leader, other] = world.network.cuts[other, leader] = None
                world.nodes[other].lose_peer(leader)
        after_us = int((30 + 400 * world.random()) * MS)
        if times >= 3:
            world.at(world.now_us + after_us, world.network.cuts.clear)
        elif world.random() < 0.5:
            world.at(world.now_us + after_us, self._rotate, times + 1)
        else:
            self._cut_the_next_leader(leader, times, 600)

    def _cut_the_next_leader(self, last: int, times: int, looks: int) -> None:
        """Cut the next leader off as soon as it is elected: before anybody else has its first entry, with luck."""
        world = self.world
        if any(node.number != last for node in world.leaders()):
            self._rotate(times + 1, last)
        elif looks and world.faulty:
            world.at(world.now_us + MS, self._cut_the_next_leader, last, times, looks - 1)

    def _fail_disk(self) -> None:
        world = self.world
        node = self._some_node()
        kind = world.random()
        if kind < 0.3:
            world.count_fault("a disk that fails")
            node.disk.failing = True
        elif kind < 0.5:
            world.count_fault("a disk that is full")
            node.disk.failing = True
            node.full_until_us = world.now_us + self._pause_us()
        else:
            world.count_fault("a disk that is slow")
            node.slow_disk_until_us = world.now_us + self._pause_us()

    # --- clients -----------------------------------------------------------------------------------------------------

    def _stall_client(self) -> None:
        client = self.world.rng.choice(self.world.clients)
        self.world.count_fault("a client stalled")
        client.pause(self._pause_us())

    def _suspend_client(self) -> None:
        client = self.world.rng.choice(self.world.clients)
        self.world.count_fault("a client suspended")
        client.pause(self._pause_us(), suspend=True)

    def _kill_client(self) -> None:
        world = self.world
        client = world.rng.choice(world.clients)
        if client.alive:
            world.count_fault("a client died")
            client.die()
            world.at(world.now_us + int(world.random() * 1000 * MS), self._revive, client.number)

    def _revive(self, number: int) -> None:
        client = self.world.clients[number - self.world.clients[0].number]
        if not client.alive:
            client.start_again()
