"""`lessor break`: an operator ends a lease, named by its token, with a reason that its holder is told."""

import argparse
import sys
from typing import Any

from ..client.lease import LeaseView
from ..client.refusals import NotHeldError
from ..client.sync import Client
from . import exit_codes
from .claims import line_of, mode, resource_at
from .names import PATHS, add_name, called, path_of
from .options import Commands, Parser, add_client, add_json, client, command_of, positive, word
from .output import complain, confirmed, counted, print_json, printable, short

SUMMARY = "End a lease that its holder does not give back. The next in line has it at once, or after the lock delay."
NOTES = (
    """
The lease is ended by its token, also where a NAME is given: if it changes hands meanwhile, nothing happens to the next
holder. Its holder is told the reason, and so is `lessor watch`. On a terminal it is asked first, unless you say --yes;
elsewhere --yes is needed.

A holder that cannot be reached hears nothing of it, and goes on working until the deadline that it was promised: the
one thing that shortens a promise. Break what is really dead, or whose late writes are refused by their token.
"""
    + PATHS
)
EXAMPLES = """
lessor break nightly-report --reason "host h7 is gone, ticket 42"
lessor break --token 41 --reason "stuck since 2 am" --yes
"""


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "break",
        help="end somebody's lease, with a reason",
        usage="lessor break (NAME | --token N) --reason TEXT [options]",
        summary=SUMMARY,
        notes=NOTES,
        examples=EXAMPLES,
        codes="0 1 2 74 121 128+N",
    )
    add_name(parser, "what is held, if only one holds it", required=False)
    parser.option("--token", metavar="N", read=positive, help="of the lease, as `lessor show` tells it")
    parser.option("--reason", metavar="TEXT", read=word, required=True, help="why; the holder is told")
    parser.switch("--yes", help="do not ask")
    add_client(parser)
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Find the lease, ask, and break it."""
    if (options.name is None) == (options.token is None):
        options.parser.error("say which lease: either NAME or --token")
    with client(options) as service:
        lease = _find(service, options)
        if lease is None or not confirmed(command_of(options), _question(lease), yes=options.yes):
            return exit_codes.FAILED
        try:
            service.break_lease(lease.token, options.reason)
        except NotHeldError:
            complain("break", f"{_of(lease)} ended before it could be broken")
            return exit_codes.FAILED
        if not options.json:
            print(f"broken: {_of(lease)}")
            if lease.namespace == options.namespace:
                _tell_what_comes(service, lease)
    if options.json:
        print_json(as_json(lease, options.reason))
    return exit_codes.OK


def as_json(lease: LeaseView, reason: str) -> dict[str, Any]:
    """Return the lease that was broken as an object."""
    return {
        "name": lease.name,
        "path": list(lease.path),
        "namespace": lease.namespace,
        "holder": lease.holder,
        "token": lease.token,
        "reason": reason,
    }


def _find(service: Client, options: argparse.Namespace) -> LeaseView | None:
    """Return the lease that is meant, None if that is none or several."""
    if options.token is not None:
        lease = service.validate(options.token)
        if lease is None:
            complain("break", f"no lease of token {options.token} is held: it has ended, or there never was one")
        return lease
    path = path_of(options)
    line = line_of(path, service.describe(path))
    if len(line.holders) == 1:
        return line.holders[0]
    where = f"{called(path)} in namespace {options.namespace!r}"
    if not line.held:
        complain("break", f"nobody holds {where}")
    else:
        what = (
            f"{len(line.holders)} hold {where}" if line.holders else f"nobody holds just {where}, but what overlaps it"
        )
        complain("break", f"{what}; say which one by its token:")
        for view in line.holders or line.overlapping:
            resource = resource_at(view, path)
            of = "" if resource.path == path else f" of {called(resource.path)}"
            told = f"{printable(view.holder)}, {mode(resource)}{of}, for {short(view.held_for)}"
            print(f"  --token {view.token:<8} {told}", file=sys.stderr)
    return None


def _tell_what_comes(service: Client, lease: LeaseView) -> None:
    about = service.about(lease.path)
    line = line_of(lease.path, about.leases)
    if about.closed_for:
        print(f"it stays closed for {short(about.closed_for)} (lock delay)")
    for view in line.holders:
        print(f"held now by {printable(view.holder)}, token {view.token}")
    if line.waiting:
        print(f"{counted(len(line.waiting), 'waits', 'wait')} in line")


def _question(lease: LeaseView) -> str:
    promised = f"expires in {short(lease.expires_in)}; if it cannot be reached, it may work on until then"
    return f"{_of(lease)}: held for {short(lease.held_for)}, {promised}.\nBreak it?"


def _of(lease: LeaseView) -> str:
    return f"token {lease.token} of {printable(lease.holder)} on {called(lease.path)} in namespace {lease.namespace!r}"
