"""`lessor watch`: prints what happens to leases, as it happens, and what has happened since some revision."""

import argparse
import datetime as dt
import sys
from typing import Any, Final

from ..client.watch import Missed, Told, Trouble, Watcher, Watching
from ..core.events import Event
from ..transport.names import why_unresolved
from . import exit_codes
from .names import PATHS, Path, add_name, path_of, shown
from .options import Commands, Parser, add_endpoints, add_json, add_request_timeout, client, whole, word
from .output import colourful, complain, paint, print_json_line, printable, short

SUMMARY = (
    "Print what happens to leases, one line for each event, as it happens: queued, granted, renewed, released, ..."
)
NOTES = (
    """
Every node tells the same events under the same revisions. All given nodes are listened to, so that the death of one
costs nothing; events that none of them brought are reported as missed. Ends with Ctrl-C.

With --since it begins with what happened after that revision, as far as the leader remembers it: a restart of a node
forgets, and so do some thousand further events. What is not remembered is reported as missed.
"""
    + PATHS
)
EXAMPLES = """
lessor watch                              the namespace `default`
lessor watch nightly-report               one name
lessor watch --path users --below         /users, and all paths below it
lessor watch --since 0                    what is remembered, and then what happens
lessor watch --all                        every namespace, and the sessions of the clients
lessor watch --json | jq -c 'select(.kind == "expired")'
"""

COLOURS: Final = {
    "queued": "blue",
    "granted": "green",
    "renewed": "dim",
    "released": "cyan",
    "expired": "red",
    "broken": "red",
    "cancelled": "yellow",
    "timed_out": "yellow",
}


def register(commands: "Commands[Parser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "watch",
        help="what happens, as it happens",
        summary=SUMMARY,
        notes=NOTES,
        examples=EXAMPLES,
        codes="2 74 121 128+N",
    )
    add_name(parser, "tell only of this name", required=False)
    parser.switch("--below", help="tell also of all paths below NAME")
    parser.option("--since", metavar="REVISION", read=whole, shown="from now on", help="begin after this revision")
    add_endpoints(parser)
    add_request_timeout(parser, 10.0)
    parser.option("--namespace", metavar="NAME", read=word, default="default", help="tell only of this namespace")
    parser.switch("--all", help="tell of every namespace, and of sessions")
    add_json(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Print until Ctrl-C."""
    if options.all and options.name is not None:
        options.parser.error("either NAME or --all")
    if options.below and options.name is None:
        options.parser.error("--below goes with a NAME")
    path = () if options.name is None else path_of(options)
    since: int | None = options.since
    done_upto = 0  # what was told from memory is not told again
    watcher = Watcher(options.endpoints)
    try:
        for told in watcher.events():
            if isinstance(told, Event):
                if told.revision > done_upto and (options.all or _is_wanted(told, path, options)):
                    _print(told, options)
                continue
            _note(told, options)
            if isinstance(told, Watching) and since is not None:
                # only now, so that nothing falls between what is remembered and what comes
                done_upto, since = _tell_past(since, path, options), None
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    finally:
        watcher.close()
    raise AssertionError("the feed has no end")


def _tell_past(since: int, path: Path, options: argparse.Namespace) -> int:
    """Print what happened after a revision, and return up to which one."""
    with client(options) as service:
        while True:
            page = service.events(None if options.all else path, since=since, below=options.below or not path)
            if page.missed > since:
                _note(Missed(since + 1, page.missed), options)
            for event in page.events:
                if options.all or _is_wanted(event, path, options):
                    _print(event, options)
            if page.revision <= since:
                return since
            since = page.revision


def as_json(event: Event) -> dict[str, Any]:
    """Return an event as an object; `time` is when it was printed, on this machine's clock."""
    return {
        "revision": event.revision,
        "kind": event.kind,
        "namespace": event.namespace,
        "name": "/".join(event.path),
        "path": list(event.path),
        "others": [list(path) for path in event.others],
        "holder": event.holder,
        "token": event.token,
        "claim": event.claim,
        "session": event.session,
        "slot": event.slot,
        "clock_ms": event.clock_ms,
        "expires_at_ms": event.expires_at_ms,
        "why": event.why,
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
    }


def _is_wanted(event: Event, path: Path, options: argparse.Namespace) -> bool:
    below = options.below or options.name is None
    return not event.kind.startswith("session_") and event.concerns(options.namespace, path, below=below)


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
    name = ", ".join(shown(path) for path in (event.path, *event.others)) if event.path or event.claim else ""
    if options.all and event.namespace:
        name = f"{event.namespace}: {name}"
    parts = [f"{when}  {event.revision:>8}  {kind}"]
    if name:
        parts.append(name)
    if event.token:
        parts.append(f"token {event.token}")
    if event.holder:
        parts.append(printable(event.holder))
    if event.expires_at_ms:
        parts.append(f"for {short((event.expires_at_ms - event.clock_ms) / 1000)}")
    if event.session and not name:
        parts.append(f"session {event.session}")
    if event.why:
        parts.append(f"({printable(event.why)})")
    print("  ".join(parts), flush=True)
