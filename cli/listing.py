"""`lessor ls` and `lessor show`: who holds what, until when, and who waits for it."""

import argparse
import base64
from itertools import groupby
from typing import Any

from ..client.lease import LeaseView
from . import exit_codes
from .options import Commands, Parser, add_client, add_json, client
from .output import complain, print_json, short, table

LS_SUMMARY = "List the leases of a namespace: who holds each, until when, and how many wait for it."
LS_EXAMPLES = """
lessor ls
lessor ls --all                                        of every namespace
lessor ls --json | jq '.leases[] | select(.waiting != [])'
"""
SHOW_SUMMARY = "Show one lease: its holder, its token, how long it lasts, and who waits for it in which order."
SHOW_NOTES = """
The exit code is 1 if nobody holds it. What is shown was true when the service answered and may have changed since:
to decide who may work, acquire the lease; to keep a late holder out, compare tokens.
"""
SHOW_EXAMPLES = """
lessor show nightly-report
lessor show nightly-report --json | jq .token
lessor show -- -odd-name                               one that begins with -
"""

HEADER = "NAME HOLDER TOKEN HELD EXPIRES WAITING".split()
NUMBERS = "TOKEN HELD EXPIRES WAITING".split()


def register(commands: "Commands[Parser]") -> None:
    """Add both commands to the command line."""
    parser = commands.add_parser(
        "ls", help="who holds what", summary=LS_SUMMARY, examples=LS_EXAMPLES, codes="0 2 121 128+N"
    )
    add_client(parser)
    parser.switch("--all", help="list every namespace")
    add_json(parser)
    parser.set_defaults(run=run_ls, parser=parser)

    parser = commands.add_parser(
        "show",
        help="who holds one name, and who waits",
        usage="lessor show NAME [options]",
        summary=SHOW_SUMMARY,
        notes=SHOW_NOTES,
        examples=SHOW_EXAMPLES,
        codes="0 1 2 121 128+N",
    )
    parser.name("what is held")
    add_client(parser)
    add_json(parser)
    parser.set_defaults(run=run_show, parser=parser)


def run_ls(options: argparse.Namespace) -> int:
    """List the leases."""
    with client(options) as service:
        found = service.leases(all_namespaces=options.all)
    leases = [as_json(name, namespace, views) for (namespace, name), views in by_name(found)]
    if options.json:
        print_json({"leases": leases})
        return exit_codes.OK
    if not leases:
        where = "in any namespace" if options.all else f"in namespace {options.namespace!r}"
        complain("ls", f"nothing is held {where}")
        return exit_codes.OK
    header = ["NAMESPACE", *HEADER] if options.all else HEADER
    print(table(header, [_row(lease, with_namespace=options.all) for lease in leases], NUMBERS))
    return exit_codes.OK


def run_show(options: argparse.Namespace) -> int:
    """Show one lease."""
    with client(options) as service:
        lease = as_json(options.name, options.namespace, service.describe(options.name))
    if options.json:
        print_json(lease)
    else:
        _print_lease(lease)
    if lease["holder"] is not None:
        return exit_codes.OK
    if not options.json:
        complain("show", f"nobody holds {options.name!r} in namespace {options.namespace!r}")
    return exit_codes.FAILED


def by_name(views: list[LeaseView]) -> list[tuple[tuple[str, str], list[LeaseView]]]:
    """Return the claims of each name together, by namespace and name; of each the holder first."""

    def place(view: LeaseView) -> tuple[str, str]:
        return view.namespace, view.name

    ordered = sorted(views, key=lambda view: (place(view), view.waiting, view.claim))
    return [(key, list(group)) for key, group in groupby(ordered, place)]


def as_json(name: str, namespace: str, views: list[LeaseView]) -> dict[str, Any]:
    """Return a lease as an object that always has the same keys: null where nobody holds it. Times are in seconds."""
    held = next((view for view in views if not view.waiting), None)
    return {
        "name": name,
        "namespace": namespace,
        "holder": held and held.holder,
        "token": held and held.token,
        "ttl": held and held.ttl,
        "expires_in": held and held.expires_in,
        "held_for": held and held.held_for,
        "session": held and held.session,
        "detached": held and held.detached,
        "data": held and _text(held.data),
        "data_base64": held and base64.b64encode(held.data).decode(),
        "waiting": [
            {"holder": view.holder, "session": view.session, "waited_for": view.held_for}
            for view in views
            if view.waiting
        ],
    }


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _printable(text: str | None, base64_text: str) -> str:
    """Return data as it may be shown: whoever wrote it must not be able to play with the reader's terminal."""
    if text is None:
        return f"{base64_text} (base64)"
    return text if text.isprintable() else repr(text)


def _row(lease: dict[str, Any], *, with_namespace: bool) -> list[Any]:
    held = lease["holder"] is not None
    row = [
        lease["name"],
        lease["holder"] if held else "-",
        lease["token"] if held else "-",
        short(lease["held_for"]) if held else "-",
        f"in {short(lease['expires_in'])}" if held else "-",
        len(lease["waiting"]),
    ]
    return [lease["namespace"], *row] if with_namespace else row


def _print_lease(lease: dict[str, Any]) -> None:
    lines = {"name": lease["name"], "namespace": lease["namespace"]}
    if lease["holder"] is not None:
        lines |= {
            "holder": lease["holder"],
            "token": lease["token"],
            "held for": short(lease["held_for"]),
            "expires in": f"{short(lease['expires_in'])}, unless renewed",
            "ttl": short(lease["ttl"]) if lease["ttl"] else "none: it lives as long as its session",
            "session": f"{lease['session']}" if lease["session"] else "none: detached",
        }
        if lease["data_base64"]:
            lines["data"] = _printable(lease["data"], lease["data_base64"])
    else:
        lines["holder"] = "nobody"
    for label, value in lines.items():
        print(f"{label + ':':12}{value}")
    if lease["waiting"]:
        print(f"waiting:    {len(lease['waiting'])}, in this order")
        for place, waiter in enumerate(lease["waiting"], start=1):
            print(f"{place:>10}. {waiter['holder']}, for {short(waiter['waited_for'])}")
