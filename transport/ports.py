"""Free ports on this machine, for nodes that may listen anywhere: embedded ones, and those of a local cluster."""

import random
import socket
from pathlib import Path
from typing import Final

from ..core import limits
from ..core.errors import LessorError

LOWEST_PORT: Final = 10_000
PORT_MAX: Final = 65_535
PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
PORT_RANGE_ELSEWHERE: Final = (32_768, 60_999)


class AddressInUse(LessorError):
    """A port of a node cannot be bound, or no free ones are found; the text names it."""


def free_base_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return base ports that are free now, each with the ports above it that a node needs, in ascending order.

    They lie outside of the range from which the kernel takes the ports of outgoing connections: while a node is down,
    one of its ports could be taken for such a connection, and the node could not come back.

    Raises:
        AddressInUse: there are not enough.
    """
    step = limits.PORTS_PER_NODE
    low, high = outgoing_ports()
    every = range(LOWEST_PORT, PORT_MAX - step, step)
    candidates = [base for base in every if base + step <= low or base > high] or list(every)
    found: list[int] = []
    # by chance, so that two who look at the same time are not offered the same
    while candidates and len(found) < count:
        place = random.randrange(len(candidates))  # noqa: S311 - guards nothing
        base, candidates[place] = candidates[place], candidates[-1]
        candidates.pop()
        if all(_is_free(host, port) for port in range(base, base + step)):
            found.append(base)
    if len(found) < count:
        raise AddressInUse(f"there are no {count} times {step} free ports in a row on {host}")
    return sorted(found)


def free_base_port(host: str = "127.0.0.1") -> int:
    """Return one such port.

    Raises:
        AddressInUse: there is none.
    """
    return free_base_ports(1, host)[0]


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
