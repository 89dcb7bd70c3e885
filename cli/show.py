"""`lessor show`: who holds one path, who waits, and whatever else explains why it is not free."""

import argparse
from typing import Any

from ..client.description import Description, Lapse
from ..client.lease import LeaseView
from ..client.sync import Client
from ..core.resources import Mode
from . import exit_codes
from .claims import Line, as_json, holder_json, line_of, mode, overlap, resource_at, stands_in_the_way
from .names import PATHS, Path, add_name, called, path_of, shown
from .options import Commands, Parser, add_client, add_json, client
from .output import complain, counted, data_fields, print_json, printable, short, shown_data, table

SUMMARY = "Show all about one name: who holds it, since when and until when, who waits, and why it is not free."
NOTES = (
    """
It tells of each holder the token, the mode (write: alone; read: with other readers; or units of a semaphore), and how
long the lease lasts; of those who wait, the order, and who keeps the first of them back on another name that he asks
for; of what overlaps it, a lock on a path above or below it. And: the semaphore's units, who pins it (a pinned lease
does not expire), for how long it stays closed after a lease lapsed (lock delay), the lease that lapsed last and why,
and the version of its register.

The exit code is 1 if nobody holds it, a part of it, or what it is a part of. What is shown was true when the service
answered and may have changed since: to decide who may work, acquire the lease; to keep a late holder out, compare
tokens.
"""
    + PATHS
)
EXAMPLES = """
lessor show nightly-report
lessor show --path users/42                            the path of these two segments; / is the whole namespace
lessor show nightly-report --json | jq .token
lessor show -- -odd-name                               one that begins with -
"""

HEADER = "HOLDER TOKEN MODE HELD EXPIRES TTL SESSION DATA".split()
NUMBERS = "TOKEN HELD EXPIRES TTL SESSION".split()
LABEL = 13
ELSEWHERE = 10
"""Other names of the first in line at which is looked, one question each: as many as a person reads."""


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "show",
        help="who holds one name, who waits, and why",
        usage="lessor show NAME [options]",
        summary=SUMMARY,
        notes=NOTES,
        examples=EXAMPLES,
        codes="0 1 2 74 121 128+N",
    )
    add_name(parser, "what is held")
    add_client(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Show one path."""
    path = path_of(options)
    with client(options) as service:
        about = service.about(path)
        line = line_of(path, about.leases)
        above = {} if line.held else closed_above(service, path)
        elsewhere = kept_back_by(service, line)
    if options.json:
        print_json(all_as_json(options.namespace, line, about, above, elsewhere))
    else:
        print_all(options.namespace, line, about, above, elsewhere)
    if line.held:
        return exit_codes.OK
    if not options.json:
        closed = max([about.closed_for, *(lapse.closed_for for lapse in above.values())])
        still = f", and it stays closed for {short(closed)} (lock delay)" if closed else ""
        complain("show", f"nobody holds {called(path)} in namespace {options.namespace!r}{still}")
    return exit_codes.FAILED


def closed_above(service: Client, path: Path) -> dict[Path, Lapse]:
    """Return the paths above one that keep it closed, since the lease on them lapsed."""
    found = {path[:size]: service.about(path[:size]).lapse for size in range(len(path))}
    return {above: lapse for above, lapse in found.items() if lapse is not None and lapse.closed_for}


def kept_back_by(service: Client, line: Line) -> list[tuple[Path, LeaseView]]:
    """Return who is in the way of the first in line on the other names that he asks for, which he gets all at once."""
    found: list[tuple[Path, LeaseView]] = []
    for first in line.waiting[:1]:
        others = [resource for resource in first.resources if not overlap(resource.path, line.path)]
        for resource in others[:ELSEWHERE]:
            about = service.about(resource.path)
            if resource.mode == Mode.COUNT and about.units + resource.count <= about.limit:
                continue
            ahead = [view for view in about.leases if not view.waiting or view.claim < first.claim]
            found += [(resource.path, view) for view in ahead if stands_in_the_way(view, resource)][:1]
    return found


def all_as_json(
    namespace: str, line: Line, about: Description, above: dict[Path, Lapse], elsewhere: list[tuple[Path, LeaseView]]
) -> dict[str, Any]:
    """Return all about a path as an object that always has the same keys."""
    return {
        **as_json(namespace, line),
        "overlapping": [
            {"path": list(resource_at(view, line.path).path), **holder_json(view, line.path)}
            for view in line.overlapping
        ],
        "kept_back_by": [
            {"path": list(path), "holder": view.holder, "token": view.token or None, "waiting": view.waiting}
            for path, view in elsewhere
        ],
        "semaphore": _semaphore(about),
        "pins": list(about.pins),
        "closed_for": max([about.closed_for, *(lapse.closed_for for lapse in above.values())]) or None,
        "lapsed": about.lapse and _lapse_json(about.lapse),
        "register_version": about.version or None,
    }


def _semaphore(about: Description) -> dict[str, Any] | None:
    if not about.limit:
        return None
    data = about.data if about.created else None
    return {"limit": about.limit, "units": about.units, "created": about.created, **data_fields(data)}


def _lapse_json(lapse: Lapse) -> dict[str, Any]:
    return {
        "holder": lapse.holder,
        "token": lapse.token,
        "why": lapse.why,
        "ended_ago": lapse.ended_ago,
        "held_for": lapse.held_for,
    }


def print_all(
    namespace: str, line: Line, about: Description, above: dict[Path, Lapse], elsewhere: list[tuple[Path, LeaseView]]
) -> None:
    """Print all about a path."""
    _say("name", shown(line.path))
    _say("namespace", namespace)
    if about.limit:
        written = any(resource_at(view, line.path).mode == Mode.WRITE for view in line.holders)
        kept = "created" if about.created else "made by its claims, gone with the last of them"
        _say("semaphore", f"{about.limit if written else about.units} of {about.limit} units held; {kept}")
        if about.created and about.data:
            _say("its data", shown_data(about.data))
    _print_holders(line)
    for view in line.overlapping:
        _print_overlapping(view, line.path)
    if line.waiting:
        _say("waiting", f"{len(line.waiting)}, in this order")
        for place, view in enumerate(line.waiting, start=1):
            _print_waiter(place, view, line.path)
    for path, view in elsewhere:
        has = f"{printable(view.holder)} waits for before him" if view.waiting else f"{printable(view.holder)} holds"
        token = "" if view.waiting else f" (token {view.token})"
        _say("kept back", f"the first in line also asks for {called(path)}, which {has}{token}")
    if line.observing:
        _say("observing", f"{counted(line.observing, 'waits', 'wait')} until it is free, without a place in line")
    if about.pins:
        _say("pinned by", ", ".join(map(printable, about.pins)) + "; while it is pinned its leases do not expire")
    for path, lapse in above.items():
        _say("closed", f"for {short(lapse.closed_for)} more: {_lapsed(lapse)}, on {called(path)} (lock delay)")
    if about.lapse is not None:
        _say("last lapse", _lapsed(about.lapse))
        if about.closed_for:
            _say("closed", f"for {short(about.closed_for)} more, since that lease lapsed (lock delay)")
    if about.version:
        _say("register", f"version {about.version}")


def _print_holders(line: Line) -> None:
    if not line.holders:
        _say("holder", "nobody holds just this" if line.overlapping else "nobody")
    elif len(line.holders) == 1:
        (view,) = line.holders
        _say("holder", printable(view.holder))
        _say("token", str(view.token))
        _say("mode", mode(resource_at(view, line.path)))
        _say("held for", short(view.held_for))
        _say("expires in", f"{short(view.expires_in)}, unless renewed")
        _say("ttl", short(view.ttl) if view.ttl else "none: it lives as long as its session")
        _say("session", "none: detached" if view.detached or not view.session else str(view.session))
        others = [resource for resource in view.resources if resource.path != line.path]
        if others:
            _say("held with", ", ".join(f"{shown(resource.path)} ({mode(resource)})" for resource in others))
        if view.data:
            _say("data", shown_data(view.data))
    else:
        _say("holders", f"{len(line.holders)}")
        rows = [_row(view, line.path) for view in line.holders]
        print("\n".join("  " + text for text in table(HEADER, rows, NUMBERS).splitlines()))


def _row(view: LeaseView, path: Path) -> list[Any]:
    return [
        printable(view.holder),
        view.token,
        mode(resource_at(view, path)),
        short(view.held_for),
        f"in {short(view.expires_in)}",
        short(view.ttl) if view.ttl else "session",
        "detached" if view.detached or not view.session else view.session,
        shown_data(view.data) if view.data else "",
    ]


def _print_overlapping(view: LeaseView, path: Path) -> None:
    resource = resource_at(view, path)
    above = len(resource.path) < len(path)
    told = f"{called(resource.path)} is held by {printable(view.holder)} ({mode(resource)}, token {view.token})"
    _say("above it" if above else "below it", f"{told} for {short(view.held_for)}, expires in {short(view.expires_in)}")


def _print_waiter(place: int, view: LeaseView, path: Path) -> None:
    resource = resource_at(view, path)
    where = "" if resource.path == path else f" of {called(resource.path)}"
    how = f", {mode(resource)}{where}" if where or resource.mode != Mode.WRITE else ""
    print(f"{place:>{LABEL - 2}}. {printable(view.holder)}{how}, for {short(view.held_for)}")


def _lapsed(lapse: Lapse) -> str:
    why = "it expired" if lapse.why == "expired" else printable(lapse.why)
    return f"token {lapse.token} of {printable(lapse.holder)} ended {short(lapse.ended_ago)} ago: {why}"


def _say(label: str, text: str) -> None:
    print(f"{label + ':':{LABEL}}{text}")
