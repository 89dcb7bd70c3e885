"""`lessor status`: how each node is, in its own words."""

import argparse
from dataclasses import replace
from typing import Any

from ..client.status import ClusterStatus, NodeStatus, ask_status
from ..transport.names import host_of, unresolved
from . import exit_codes
from .options import Commands, Parser, add_endpoints, add_json, add_request_timeout
from .output import complain, counted, print_json, short, table

SUMMARY = "Ask every endpoint how its node is: who leads, what is chosen and applied, what is held and waited for."
NOTES = """
Each node speaks for itself. The exit code is 0 if a majority of the endpoints answers and a leader is known.
"""
EXAMPLES = """
lessor status --endpoints tcp://h1:7411,tcp://h2:7411,tcp://h3:7411
lessor status --counters                     also the counters of each node
lessor status --json | jq '.nodes[] | select(.role == "leader") | .id'
"""

HEADER = "NODE ENDPOINT ROLE BALLOT LEADER CHOSEN APPLIED CLOCK HELD WAITING SESSIONS VERSION".split()
KEPT = ("namespaces", "semaphores", "pins", "registers", "lapsed")
"""What the state keeps beside sessions and claims; of namespaces and semaphores those that were created."""
NUMBERS = "CHOSEN APPLIED CLOCK HELD WAITING SESSIONS".split()


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("status", help="how each node is", summary=SUMMARY, notes=NOTES, examples=EXAMPLES)
    add_endpoints(parser)
    add_request_timeout(parser, 2.0)
    parser.switch("--counters", help="show the counters of each node, too")
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Ask, print, and say whether the service works."""
    cluster = _with_causes(ask_status(options.endpoints, options.request_timeout))
    if options.json:
        print_json({"nodes": [as_json(node) for node in cluster.nodes]})
    else:
        print(_table(cluster))
        if cluster.answers:
            print(_kept(cluster))
        if options.counters:
            _print_counters(cluster)
    if cluster.healthy:
        return exit_codes.OK
    complain("status", _what_is_wrong(cluster))
    return exit_codes.FAILED


def _with_causes(cluster: ClusterStatus) -> ClusterStatus:
    """Say of a node that did not answer if that is because its host name cannot be resolved."""
    lost = set(unresolved(node.endpoint for node in cluster.nodes if node.answer is None))

    def cause(node: NodeStatus) -> NodeStatus:
        if node.answer is not None or host_of(node.endpoint) not in lost:
            return node
        return replace(node, error=f"the host name {host_of(node.endpoint)!r} cannot be resolved")

    return ClusterStatus(tuple(cause(node) for node in cluster.nodes))


def as_json(node: NodeStatus) -> dict[str, Any]:
    """Return a node as an object that always has the same keys: null, all but the endpoint, where it did not answer."""
    answer = node.answer
    return {
        "id": answer and answer.node,
        "endpoint": node.endpoint,
        "error": node.error or None,
        "cluster": answer and answer.cluster,
        "role": answer and answer.role,
        "ballot": answer and str(answer.ballot),
        "leader": answer and answer.leader,
        "leader_endpoint": answer and answer.leader_endpoint,
        "chosen": answer and answer.chosen_upto,
        "applied": answer and answer.applied_upto,
        "clock_ms": answer and answer.clock_ms,
        "held": answer and answer.held,
        "waiting": answer and answer.waiting,
        "sessions": answer and answer.sessions,
        **{name: answer and getattr(answer, name) for name in KEPT},
        "revision": answer and answer.revision,
        "version": answer and answer.version,
        "counters": answer and {counter.name: counter.value for counter in answer.counters},
    }


def _table(cluster: ClusterStatus) -> str:
    """Return one line for each node; an error does not widen the columns of the others."""
    header, *lines = table(HEADER, [_row(node) for node in cluster.nodes], NUMBERS).splitlines()
    place = header.index("ROLE")
    for number, node in enumerate(cluster.nodes):
        if node.answer is None:
            lines[number] = f"{lines[number]:{place}}({node.error})"
    return "\n".join([header, *lines])


def _kept(cluster: ClusterStatus) -> str:
    """Return what is kept beside sessions and claims, by the word of the node that is furthest."""
    furthest = max(cluster.answers, key=lambda answer: answer.applied_upto)
    counts = ", ".join(counted(getattr(furthest, name), name.removesuffix("s")) for name in KEPT[:4])
    return f"kept beside them: {counts}; {counted(furthest.lapsed, 'lease')} lapsed of late"


def _row(node: NodeStatus) -> list[Any]:
    answer = node.answer
    if answer is None:
        return ["?", node.endpoint, *[""] * (len(HEADER) - 2)]
    return [
        answer.node,
        node.endpoint,
        answer.role,
        answer.ballot,
        answer.leader or "none",
        answer.chosen_upto,
        answer.applied_upto,
        short(answer.clock_ms / 1000),
        answer.held,
        answer.waiting,
        answer.sessions,
        answer.version,
    ]


def _print_counters(cluster: ClusterStatus) -> None:
    names = sorted({counter.name for answer in cluster.answers for counter in answer.counters})
    found = [{counter.name: counter.value for counter in answer.counters} for answer in cluster.answers]
    header = ["COUNTER", *[f"NODE {answer.node}" for answer in cluster.answers]]
    print()
    print(table(header, [[name, *[counts.get(name, 0) for counts in found]] for name in names], header[1:]))


def _what_is_wrong(cluster: ClusterStatus) -> str:
    if not cluster.answers:
        return "no node answers"
    if not cluster.majority:
        return f"only {len(cluster.answers)} of {len(cluster.nodes)} endpoints answer, which is no majority"
    return "no node knows a leader: is a majority of the nodes running, and do they reach each other?"
