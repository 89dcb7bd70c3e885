"""Endpoints: where a node listens for clients, and the ports of its roles, which are derived from that one base."""

import itertools

from ..core import limits
from ..core.effects import Role
from ..core.errors import BadRequest


def parse(endpoint: str) -> tuple[str, int]:
    """Return the host and the base port of an endpoint such as `tcp://10.0.0.1:7411`.

    Raises:
        BadRequest: it is none; the text says what is wrong.
    """
    scheme, separator, rest = endpoint.strip().partition("://")
    host, colon, port = rest.rpartition(":")
    if not separator or scheme != "tcp" or not colon or not host:
        raise BadRequest(f"an endpoint looks like tcp://HOST:PORT, not {endpoint!r}")
    highest = 65535 - limits.PORTS_PER_NODE + 1
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= highest:
        raise BadRequest(f"the port of an endpoint is from 1 to {highest} (the ones above belong to it), not {port!r}")
    return host, int(port)


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
        number, equals, endpoint = part.strip().partition("=")
        if not equals or not number.isascii() or not number.isdigit() or int(number) < 1:
            raise BadRequest(f"a member looks like 1=tcp://HOST:PORT, not {part.strip()!r}")
        if int(number) in members:
            raise BadRequest(f"node {number} is named twice in the cluster")
        parse(endpoint)
        members[int(number)] = endpoint.strip()
    if len(members) > limits.NODES_MAX:
        raise BadRequest(f"a cluster has at most {limits.NODES_MAX} nodes, not {len(members)}")
    _check_overlap(members)
    return dict(sorted(members.items()))


def of_role(endpoint: str, role: Role) -> str:
    """Return the endpoint of one role of the node whose clients connect to `endpoint`."""
    host, port = parse(endpoint)
    return f"tcp://{host}:{port + int(role)}"


def _check_overlap(members: dict[int, str]) -> None:
    places = sorted((parse(endpoint), node) for node, endpoint in members.items())
    for ((host, port), node), ((other_host, other_port), other) in itertools.pairwise(places):
        if host == other_host and other_port - port < limits.PORTS_PER_NODE:
            raise BadRequest(
                f"nodes {node} and {other} overlap: each uses {limits.PORTS_PER_NODE} ports from its base on"
            )
