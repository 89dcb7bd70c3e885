"""`lessor pin`, `unpin` and `pins`: names whose leases do not expire while somebody pins them."""

import argparse
from typing import Any

from ..client.asks import Pinned
from . import exit_codes
from .names import PATHS, add_name, called, path_of, shown
from .options import Commands, Parser, add_all, add_client, add_json, client
from .output import complain, print_json, printable, table

PIN_SUMMARY = "Have the leases on a name not expire while ENTITY pins it, whoever holds it, now or later."
PIN_NOTES = (
    """
ENTITY is any text that says who pins: an operator, a machine. A holder can still release, and an operator break; a
holder's own client still counts the lease as lost at its deadline if it cannot renew it.
"""
    + PATHS
)
PIN_EXAMPLES = """
lessor pin nightly-report ops/ticket-42
lessor pin --path users/42 ops/ticket-42
"""
UNPIN_SUMMARY = "Take the pin of ENTITY away. With the last one, a lease that is overdue ends at once."
UNPIN_EXAMPLES = """
lessor unpin nightly-report ops/ticket-42
"""
LIST_SUMMARY = "List every name that is pinned, and by whom."
LIST_EXAMPLES = """
lessor pins
lessor pins --json | jq -r '.pins[].name'
"""
CODES = "0 1 2 74 121 128+N"


def register(commands: "Commands[Parser]") -> None:
    """Add the commands to the command line."""
    for name, help_, summary, notes, examples, run in (
        ("pin", "have a name's leases not expire", PIN_SUMMARY, PIN_NOTES, PIN_EXAMPLES, run_pin),
        ("unpin", "take a pin away", UNPIN_SUMMARY, PATHS, UNPIN_EXAMPLES, run_unpin),
    ):
        parser = commands.add_parser(
            name,
            help=help_,
            usage=f"lessor {name} NAME ENTITY [options]",
            summary=summary,
            notes=notes,
            examples=examples,
            codes="0 2 74 121 128+N",
        )
        add_name(parser, "what is pinned", ("ENTITY", "who pins it"))
        _finish(parser, run)
    parser = commands.add_parser(
        "pins", help="what is pinned", summary=LIST_SUMMARY, examples=LIST_EXAMPLES, codes="0 2 74 121 128+N"
    )
    add_all(parser)
    _finish(parser, run_list)


def _finish(parser: Parser, run: Any) -> None:
    add_client(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run_pin(options: argparse.Namespace) -> int:
    """Pin a name."""
    with client(options) as service:
        changed = service.pin(path_of(options), options.entity)
    return _done(options, "pinned" if changed else "pinned before", changed=changed)


def run_unpin(options: argparse.Namespace) -> int:
    """Take a pin away."""
    with client(options) as service:
        changed = service.unpin(path_of(options), options.entity)
    return _done(options, "unpinned" if changed else "it was not pinned", changed=changed)


def run_list(options: argparse.Namespace) -> int:
    """List what is pinned."""
    with client(options) as service:
        found = service.pins(all_namespaces=options.all)
    if options.json:
        print_json({"pins": [_as_json(pin) for pin in found]})
    elif found:
        header = ["NAMESPACE", "NAME", "PINNED BY"] if options.all else ["NAME", "PINNED BY"]
        rows = [[shown(pin.path), ", ".join(map(printable, pin.entities))] for pin in found]
        print(
            table(header, [[pin.namespace, *row] if options.all else row for pin, row in zip(found, rows, strict=True)])
        )
    else:
        complain(
            "pins", f"nothing is pinned in {'any namespace' if options.all else f'namespace {options.namespace!r}'}"
        )
    return exit_codes.OK


def _as_json(pin: Pinned) -> dict[str, Any]:
    return {"name": pin.name, "path": list(pin.path), "namespace": pin.namespace, "entities": list(pin.entities)}


def _done(options: argparse.Namespace, what: str, *, changed: bool) -> int:
    path = path_of(options)
    if options.json:
        print_json({"name": "/".join(path), "path": list(path), "namespace": options.namespace, "changed": changed})
    else:
        by = printable(options.entity)
        print(f"{what}: {called(path)} in namespace {options.namespace!r} by {by}")
    return exit_codes.OK
