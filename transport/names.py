"""Host names of endpoints that cannot be resolved: looked up only to explain a failure, and never for long."""

import socket
import threading
import time
from collections.abc import Iterable
from typing import Final

from .endpoints import parse

LOOK_UP_S: Final = 1.0
"""How long the look-up of all names may take. A resolver that needs longer is as good as none to whoever waits."""


def host_of(endpoint: str) -> str:
    """Return the host of an endpoint as a resolver takes it: an address without brackets."""
    return parse(endpoint)[0].strip("[]")


def unresolved(endpoints: Iterable[str], timeout_s: float = LOOK_UP_S) -> list[str]:
    """Return the hosts of these endpoints for which no address was found in time."""
    hosts = list(dict.fromkeys(map(host_of, endpoints)))
    found: set[str] = set()

    def look_up(host: str) -> None:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError):
            return
        found.add(host)

    # a look-up cannot be broken off: each is left to a thread that keeps nobody from ending
    threads = [threading.Thread(target=look_up, args=(host,), name="lessor-names", daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [host for host in hosts if host not in found]


def why_unresolved(endpoints: Iterable[str], timeout_s: float = LOOK_UP_S) -> str:
    """Return in words which hosts of these endpoints cannot be resolved, nothing if all of them can."""
    names = [repr(host) for host in unresolved(endpoints, timeout_s)]
    return f"the host name{'s' * (len(names) > 1)} {', '.join(names)} cannot be resolved" if names else ""
