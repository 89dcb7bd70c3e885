"""Free ports on this machine, for nodes that may listen anywhere: embedded ones, and those of a local cluster."""

import random
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

from ..core import limits
from ..core.errors import LessorError

LOWEST_PORT: Final = 10_000
PORT_MAX: Final = 65_535
PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
PORT_RANGE_ELSEWHERE: Final = (32_768, 60_999)
RESERVATION: Final = "\0lessor-ports-{}"
"""Who has bound an abstract socket of this name may have these ports."""


class AddressInUse(LessorError):
    """A port of a node cannot be bound, or no free ones are found; the text names it."""


class ReservedPorts:
    """Base ports that are free, and that nobody else who asks here is given, in any process, before `close`.

    They lie outside of the range from which the kernel takes the ports of outgoing connections: while a node is down,
    one of its ports could be taken for such a connection, and the node could not come back.
    """

    def __init__(self, count: int, host: str = "127.0.0.1") -> None:
        """Look for so many, each with the ports above it that a node needs.

        Raises:
            AddressInUse: there are not enough.
        """
        self.bases: list[int] = []
        self._held: list[socket.socket] = []
        step = limits.PORTS_PER_NODE
        low, high = outgoing_ports()
        every = range(LOWEST_PORT, PORT_MAX - step, step)
        candidates = [base for base in every if base + step <= low or base > high] or list(every)
        # by chance, so that two who look at the same time seldom try the same
        while candidates and len(self.bases) < count:
            place = random.randrange(len(candidates))  # noqa: S311 - guards nothing
            base, candidates[place] = candidates[place], candidates[-1]
            candidates.pop()
            if not all(_is_free(host, port) for port in range(base, base + step)):
                continue
            reservation = _reserve(base)
            if reservation is not None:
                self._held.append(reservation)
                self.bases.append(base)
        if len(self.bases) < count:
            self.close()
            raise AddressInUse(f"there are no {count} times {step} free ports in a row on {host}")
        self.bases.sort()

    def close(self) -> None:
        """Give them back. May be called twice."""
        while self._held:
            self._held.pop().close()


def free_base_port(host: str = "127.0.0.1") -> int:
    """Return one that is free now; somebody else may take it before it is bound.

    Raises:
        AddressInUse: there is none.
    """
    with closing(ReservedPorts(1, host)) as reserved:
        return reserved.bases[0]


def outgoing_ports() -> tuple[int, int]:
    """Return the first and the last port that the kernel takes for outgoing connections."""
    try:
        low, high = PORT_RANGE.read_text(encoding="ascii").split()
        return int(low), int(high)
    except (OSError, ValueError):
        return PORT_RANGE_ELSEWHERE


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ does when it listens
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _reserve(base: int) -> socket.socket | None:
    """Return what keeps others who ask here from a base port until it is closed; None: somebody else has it.

    An abstract socket's name is known to one socket at a time, in the same network namespace as the ports, and goes
    with its process (unix(7)). Where there are none, chance alone must do.
    """
    reservation: socket.socket | None = None
    try:
        if sys.platform != "linux":
            return socket.socket()
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        reservation.bind(RESERVATION.format(base))
    except OSError:  # also that this process may not open any more
        if reservation is not None:
            reservation.close()
        return None
    return reservation
