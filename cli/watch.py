"""`lessor watch`: prints what happens to leases, as it happens."""

import argparse
import datetime as dt
import sys
from typing import Any, Final

from ..client.watch import Missed, Told, Trouble, Watcher, Watching
from ..core.events import Event
from ..transport.names import why_unresolved
from . import exit_codes
from .options import Commands, Parser, add_endpoints, add_json, word
from .output import colourful, complain, paint, print_json_line, short

SUMMARY = (
    "Print what happens to leases, one line for each event, as it happens: queued, granted, renewed, released, ..."
)
NOTES = """
Every node tells the same events under the same revisions. All given nodes are listened to, so that the death of one
costs nothing; events that none of them brought are reported as missed. Ends with Ctrl-C.
"""
EXAMPLES = """
lessor watch                              the namespace `default`
lessor watch nightly-report               one name
lessor watch --all                        every namespace, and the sessions of the clients
lessor watch --json | jq -c 'select(.kind == "expired")'
"""

COLOURS: Final = {
    "queued": "blue",
    "granted": "green",
    "renewed": "dim",
    "released": "cyan",
    "expired": "red",
    "cancelled": "yellow",
    "timed_out": "yellow",
}


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "watch", help="what happens, as it happens", summary=SUMMARY, notes=NOTES, examples=EXAMPLES, codes="2 128+N"
    )
    parser.name("tell only of this name", required=False)
    add_endpoints(parser)
    parser.option("--namespace", metavar="NAME", read=word, default="default", help="tell only of this namespace")
    parser.switch("--all", help="tell of every namespace, and of sessions")
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Print until Ctrl-C."""
    if options.all and options.name:
        options.parser.error("either NAME or --all")
    watcher = Watcher(options.endpoints)
    try:
        for told in watcher.events():
            if not isinstance(told, Event):
                _note(told, options)
            elif options.all or _is_wanted(told, options):
                _print(told, options)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    finally:
        watcher.close()
    raise AssertionError("the feed has no end")


def as_json(event: Event) -> dict[str, Any]:
    """Return an event as an object; `time` is when it was printed, on this machine's clock."""
    return {
        "revision": event.revision,
        "kind": event.kind,
        "namespace": event.namespace,
        "name": "/".join(event.path),
        "holder": event.holder,
        "token": event.token,
        "claim": event.claim,
        "session": event.session,
        "slot": event.slot,
        "clock_ms": event.clock_ms,
        "expires_at_ms": event.expires_at_ms,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
    }


def _is_wanted(event: Event, options: argparse.Namespace) -> bool:
    return event.namespace == options.namespace and (options.name is None or event.path == (options.name,))


def _note(told: Told, options: argparse.Namespace) -> None:
    match told:
        case Missed(first, last):
            if options.json:
                print_json_line({"kind": "missed", "first": first, "last": last, "count": told.count})
            complain("watch", f"missed {told.count} events, revisions {first} to {last}")
        case Trouble(text):
            why = why_unresolved(options.endpoints)
            complain("watch", f"{text}; {why}" if why else text)
        case Watching():
            complain("watch", "watching")


def _print(event: Event, options: argparse.Namespace) -> None:
    if options.json:
        print_json_line(as_json(event))
        return
    kind = f"{event.kind:15}"
    if colourful(sys.stdout) and event.kind in COLOURS:
        kind = paint(kind, COLOURS[event.kind])
    when = dt.datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]
    name = "/".join(event.path)
    if options.all and event.namespace:
        name = f"{event.namespace}: {name}"
    parts = [f"{when}  {event.revision:>8}  {kind}"]
    if name:
        parts.append(name)
    if event.token:
        parts.append(f"token {event.token}")
    if event.holder:
        parts.append(event.holder)
    if event.expires_at_ms:
        parts.append(f"for {short((event.expires_at_ms - event.clock_ms) / 1000)}")
    if not name:
        parts.append(f"session {event.session}")
    print("  ".join(parts), flush=True)
