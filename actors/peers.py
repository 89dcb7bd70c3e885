"""What a node's log says of its peers: which of them are away, are silent, or describe another cluster."""

from collections.abc import Iterable
from dataclasses import dataclass, field

SILENCE_MS = 5_000
"""A peer greets once a second. One that was not heard for so long is told of …"""

AGAIN_MS = 30_000
"""… again after so long, and then each time after twice as long, …"""

AGAIN_MS_MAX = 600_000
"""… but no more rarely than this."""

FOREIGN_MS = 2_000
"""A peer that is heard may miss a greeting; somebody who forges its packets must not fill the log meanwhile."""

STALL_MS = 3_000
"""Who looks less often than this was standing still itself, and has no right to call others silent."""


@dataclass(slots=True)
class _Peer:
    endpoint: str
    heard_at_ms: int = 0
    reached_at_ms: int = 0
    told: set[str] = field(default_factory=set)
    tell_at_ms: int = 0
    again_ms: int = AGAIN_MS


class Peers:
    """The peers of one node: told what was heard, it says what is worth a line. It holds no clock."""

    def __init__(self, node: int, endpoints: dict[int, str]) -> None:
        """Begin as if everybody had just been heard."""
        self._own = endpoints.get(node, "")
        self._members = ", ".join(map(str, sorted(endpoints)))
        self._peers = {peer: _Peer(endpoint) for peer, endpoint in endpoints.items() if peer != node}
        self._heard: set[int] = set()
        self._foreign: set[int] = set()
        self._looked_at_ms: int | None = None

    def heard(self, peer: int) -> None:
        """Learn that a peer said something that could be understood."""
        self._heard.add(peer)

    def foreign(self, peer: int) -> bool:
        """Learn that somebody speaks in the name of a peer, but for another cluster; False if it is no peer."""
        if peer in self._peers:
            self._foreign.add(peer)
        return peer in self._peers

    def look(self, now_ms: int, reached: Iterable[int]) -> list[str]:
        """Return the lines to be logged; `reached` are the peers to which there is a connection."""
        stalled = self._looked_at_ms is None or now_ms - self._looked_at_ms > STALL_MS
        self._looked_at_ms = now_ms
        connected = set(reached)
        lines = []
        for number, peer in self._peers.items():
            if number in self._heard or stalled:
                peer.heard_at_ms = now_ms
            if number in connected or stalled:
                peer.reached_at_ms = now_ms
            what, line = self._problem(number, peer, now_ms)
            if not what:
                if peer.told and number in self._heard:
                    lines.append(f"node {number} is heard again")
                    peer.told, peer.again_ms = set(), AGAIN_MS
            elif what not in peer.told or now_ms >= peer.tell_at_ms:
                peer.told.add(what)
                peer.tell_at_ms = now_ms + peer.again_ms
                peer.again_ms = min(2 * peer.again_ms, AGAIN_MS_MAX)
                lines.append(line)
        self._heard.clear()
        self._foreign.clear()
        return lines

    def _problem(self, number: int, peer: _Peer, now_ms: int) -> tuple[str, str]:
        """Return what is wrong with a peer, in a word and in a line; nothing if all is well."""
        silent_ms, unreached_ms = now_ms - peer.heard_at_ms, now_ms - peer.reached_at_ms
        if number in self._foreign and silent_ms >= FOREIGN_MS:
            return "foreign", (
                f"node {number} describes another cluster and is not listened to: its --cluster-name, or the numbers "
                f"in its --cluster (here {self._members}), are not the same as here"
            )
        if unreached_ms >= SILENCE_MS:
            away = f"node {number} could not be reached at {peer.endpoint} for {unreached_ms // 1000} s"
            if silent_ms < SILENCE_MS:
                return "elsewhere", f"{away}, though it is heard: is its place in this node's --cluster right?"
            return "away", f"{away}: is it running, and is that where it listens?"
        if silent_ms >= SILENCE_MS:
            return "silent", (
                f"node {number} at {peer.endpoint} was not heard for {silent_ms // 1000} s, though something answers "
                f"there: does its --cluster say that this node is at {self._own}?"
            )
        return "", ""
