"""Moves packets between a protocol and its sockets, one turn at a time: what the engines of both faces share."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from ..transport import sockets
from . import clock
from .calls import Packet
from .protocol import Protocol

log = logging.getLogger(__name__)

SUSPEND_MS = 500
"""The machine has been asleep if its clocks, one that counts sleep and one that does not, part by so much at once."""

LOOK_MS = 500
"""Longest wait while a lease is held: timers stand still while the machine sleeps, so that a deadline may be near."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Frames and changes of connections, each with the endpoint that it is of."""

    frames: list[tuple[str, bytes]]
    changes: list[tuple[str, int]]


class Pump:
    """The sockets of one client. They may be touched from one thread only."""

    def __init__(self, protocol: Protocol, watch: Callable[[sockets.Socket], None]) -> None:
        """Start without a socket; `watch` is told of each new one, whose events are to lead to a turn."""
        self.protocol = protocol
        self._watch = watch
        self._context: sockets.Context | None = None
        self._dealers: dict[str, sockets.Socket] = {}
        self._monitors: dict[str, sockets.Socket] = {}
        self._asleep_ms = clock.asleep_ms()

    def all_sockets(self) -> list[sockets.Socket]:
        """Return all sockets there are."""
        return [*self._dealers.values(), *self._monitors.values()]

    def receive(self) -> Arrivals:
        """Return what has arrived."""
        frames = [
            (endpoint, parts[-1])
            for endpoint, dealer in self._dealers.items()
            if sockets.readable(dealer)
            for parts in sockets.receive(dealer)
        ]
        changes = [
            (endpoint, event) for endpoint, monitor in self._monitors.items() for event in sockets.read_monitor(monitor)
        ]
        return Arrivals(frames, changes)

    def step(self, arrivals: Arrivals) -> list[Packet]:
        """Have the protocol take in what has arrived and the time that has passed; return what is to be sent."""
        protocol, now = self.protocol, clock.now_ms()
        asleep_ms = clock.asleep_ms()
        if asleep_ms - self._asleep_ms >= SUSPEND_MS:
            log.warning("the machine was suspended for %d ms", asleep_ms - self._asleep_ms)
            protocol.suspended(now)
        self._asleep_ms = asleep_ms
        for endpoint, frame in arrivals.frames:
            protocol.receive(endpoint, frame, now)
        for endpoint, event in arrivals.changes:
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                protocol.connected(endpoint, now)
            else:
                protocol.disconnected(endpoint, now)
        wake_at = protocol.wake_at_ms()
        if wake_at is not None and now >= wake_at:
            protocol.tick(now)
        return protocol.take_output()

    def send(self, packets: list[Packet]) -> list[Packet]:
        """Send, and return what did not leave."""
        return [packet for packet in packets if not sockets.send(self._dealer(packet.endpoint), [packet.frame])]

    def wait_ms(self) -> int | None:
        """Return after how long the next turn is due, though nothing happens; None: never."""
        wake_at = self.protocol.wake_at_ms()
        wait = None if wake_at is None else max(0, wake_at - clock.now_ms())
        return LOOK_MS if self.protocol.leases and (wait is None or wait > LOOK_MS) else wait

    def run(self, done: Callable[[], bool], for_ms: int) -> None:
        """Take turns by itself until `done`, but not for longer: for the end, when nobody else does it any more."""
        until_ms = clock.now_ms() + for_ms
        poller = zmq.Poller()
        while not done() and (left_ms := until_ms - clock.now_ms()) > 0:
            for packet in self.send(self.step(self.receive())):
                self.protocol.not_sent(packet)
            for socket in self.all_sockets():
                poller.register(socket, zmq.POLLIN)
            wait_ms = self.wait_ms()
            if not done():
                poller.poll(left_ms if wait_ms is None else min(left_ms, wait_ms))

    def close(self) -> sockets.Context | None:
        """Close the sockets, and return the context, which is still to be ended: that may take a moment."""
        for endpoint, dealer in self._dealers.items():
            dealer.disable_monitor()
            self._monitors[endpoint].close()
            dealer.close()
        self._dealers, self._monitors = {}, {}
        context, self._context = self._context, None
        return context

    def _dealer(self, endpoint: str) -> sockets.Socket:
        dealer = self._dealers.get(endpoint)
        if dealer is None:
            if self._context is None:
                self._context = sockets.make_context(len(self.protocol.endpoints))
            dealer = sockets.dealer(self._context, endpoint, lane=len(self._dealers))
            monitor = sockets.monitor_connection(dealer)
            self._dealers[endpoint], self._monitors[endpoint] = dealer, monitor
            self._watch(dealer)
            self._watch(monitor)
        return dealer
