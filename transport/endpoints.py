"""Endpoints: where a node listens for clients, and the ports of its roles, which are derived from that one base."""

import itertools
import re
from typing import Final

from ..core import limits
from ..core.effects import Role
from ..core.encoding import INT_MAX
from ..core.errors import BadRequest

_HOST: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*|\[?[0-9A-Fa-f:.]+(%[0-9A-Za-z]+)?\]?")
"""A name, or an address of either kind. ZeroMQ would refuse most of the others only when it connects."""


def parse(endpoint: str) -> tuple[str, int]:
    """Return the host and the base port of an endpoint such as `tcp://10.0.0.1:7411`.

    Raises:
        BadRequest: it is none; the text says what is wrong.
    """
    scheme, separator, rest = endpoint.strip().partition("://")
    host, colon, port = rest.rpartition(":")
    if not separator or scheme != "tcp" or not colon or not host:
        raise BadRequest(f"an endpoint looks like tcp://HOST:PORT, not {_shown(endpoint)}")
    if _HOST.fullmatch(host) is None:
        raise BadRequest(f"the host of an endpoint is a name or an address, not {_shown(host)}")
    highest = 65535 - limits.PORTS_PER_NODE + 1
    number = _number(port, highest)
    if number is None:
        raise BadRequest(
            f"the port of an endpoint is from 1 to {highest} (the ones above belong to it), not {_shown(port)}"
        )
    return host, number


def parse_list(endpoints: str) -> list[str]:
    """Return the endpoints of a comma-separated list, each checked.

    Raises:
        BadRequest: one of them is none, or there is none.
    """
    found = [endpoint.strip() for endpoint in endpoints.split(",") if endpoint.strip()]
    if not found:
        raise BadRequest("name at least one endpoint, such as tcp://127.0.0.1:7411")
    for endpoint in found:
        parse(endpoint)
    return found


def parse_cluster(cluster: str) -> dict[int, str]:
    """Return node numbers and endpoints of `1=tcp://h1:7411,2=tcp://h2:7411`.

    Raises:
        BadRequest: the text names the part that is wrong.
    """
    members: dict[int, str] = {}
    for part in cluster.split(","):
        text, equals, endpoint = part.strip().partition("=")
        number = _number(text, INT_MAX)
        if not equals or number is None:
            raise BadRequest(f"a member looks like 1=tcp://HOST:PORT, not {_shown(part.strip())}")
        if number in members:
            raise BadRequest(f"node {number} is named twice in the cluster")
        parse(endpoint)
        members[number] = endpoint.strip()
    if len(members) > limits.NODES_MAX:
        raise BadRequest(f"a cluster has at most {limits.NODES_MAX} nodes, not {len(members)}")
    _check_overlap(members)
    return dict(sorted(members.items()))


def of_role(endpoint: str, role: Role) -> str:
    """Return the endpoint of one role of the node whose clients connect to `endpoint`."""
    host, port = parse(endpoint)
    return f"tcp://{host}:{port + int(role)}"


def _number(text: str, highest: int) -> int | None:
    """Return the number from 1 to `highest` that the text is, None if it is none."""
    if not text.isascii() or not text.isdigit() or len(text) > len(str(INT_MAX)):
        return None
    number = int(text)
    return number if 1 <= number <= highest else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


def _check_overlap(members: dict[int, str]) -> None:
    places = sorted((parse(endpoint), node) for node, endpoint in members.items())
    for ((host, port), node), ((other_host, other_port), other) in itertools.pairwise(places):
        if host == other_host and other_port - port < limits.PORTS_PER_NODE:
            raise BadRequest(
                f"nodes {node} and {other} overlap: each uses {limits.PORTS_PER_NODE} ports from its base on"
            )
