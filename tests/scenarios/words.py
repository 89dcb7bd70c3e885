"""The words of the scenarios: short text forms of what clients ask for, and one line of text for any message.

A field is printed only if it says something: zero, empty and `USUAL` values are left out, and so is `NOISE`. A new
field of a message therefore changes no scenario that does not use it.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, Final

from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.commands import FOREVER, Claim, Command, Operation
from lessor.core.encoding import decode
from lessor.core.events import Event
from lessor.core.messages import Fetched, SnapshotChunk, Vote
from lessor.core.requests import Answer, Notice, Request
from lessor.core.resources import Resource
from lessor.core.results import ClaimInfo, ClaimPhase, ClaimStatus

NAMESPACE: Final = "default"
USUAL: Final = {"namespace": NAMESPACE}
NOISE: Final = frozenset({"tag", "acked_below", "node", "revision", "incarnation", "detail", "proof"})
NOISE_OF: Final[dict[type, frozenset[str]]] = {
    Event: frozenset({"slot", "clock_ms", "claim"}),
    SnapshotChunk: frozenset({"total", "data"}),  # how long a snapshot is, is no business of a scenario
    ClaimInfo: frozenset({"since_ms", "session", "claim"}),
}
PLAIN: Final = (Answer, ClaimInfo, ClaimStatus, Command, Event, Notice, Request, Resource, Vote)
"""Known by what is in them: the name is left out."""


# --- what clients ask for --------------------------------------------------------------------------------------------


def duration(text: str) -> int:
    """Return the milliseconds of `250ms`, `1.5s` or `forever`."""
    if text == "forever":
        return FOREVER
    number, factor = (text[:-2], 1) if text.endswith("ms") else (text.removesuffix("s"), 1000)
    return round(float(number) * factor)


def split_options(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Part the words of a command into the plain ones and `name=value`."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    return [word for word in words if "=" not in word], options


def claim(holder: str, words: list[str]) -> Claim:
    """Return the claim that `NAME [ttl=10s] [wait=5s] [data=TEXT] [detached]` asks for."""
    (name, *flags), options = split_options(words)
    built = Claim(
        namespace=NAMESPACE,
        resources=(Resource((name,)),),
        holder=holder,
        data=options.pop("data", "").encode(),
        ttl_ms=duration(options.pop("ttl", "0s")),
        wait_ms=duration(options.pop("wait", "0s")),
        detached="detached" in flags,
    )
    if options or set(flags) - {"detached", "norenew"}:
        raise ValueError(f"unknown words in: {' '.join(words)}")
    return built


# --- what is printed -------------------------------------------------------------------------------------------------


def ms(value: int) -> str:
    """Return milliseconds as people write them: `350ms`, `10.2s`, `forever`."""
    if value == FOREVER:
        return "forever"
    return f"{value}ms" if 0 < value < 1000 else f"{f'{value / 1000:.3f}'.rstrip('0').rstrip('.')}s"


def span(what: str, first: int, last: int) -> str:
    """Return `slot 4` or `slots 4-6`."""
    return f"{what} {first}" if first == last else f"{what}s {first}-{last}"


def show(value: Any) -> str:
    """Return a message, a command, a result or an event in one line."""
    name = type(value).__name__
    if isinstance(value, Operation):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
    return " ".join([*([] if isinstance(value, PLAIN) else [name]), *_fields(value)])


def _fields(value: Any) -> Iterator[str]:
    quiet = NOISE | NOISE_OF.get(type(value), frozenset())
    for field in dataclasses.fields(value):
        item, name = getattr(value, field.name), field.name
        if name in ("phase", "was"):
            yield ClaimPhase(item).name.lower()
        elif name == "granted" and not item:
            yield "denied"
        elif item and item != NO_BALLOT and name not in quiet and item != USUAL.get(name):
            yield _field(value, name, item)


def _field(value: Any, name: str, item: Any) -> str:
    match item:
        case bool():
            return name
        case Ballot():
            return str(item) if name in ("ballot", "term") else f"{name}={item}"
        case int() if name.endswith("_ms"):
            return f"{name.removesuffix('_ms')}={ms(item)}"
        case int() if name == "number":
            return f"#{item}"
        case int() if name == "session":
            return f"s{item}"
        case bytes() if name == "entry":
            return show(decode(item))
        case bytes():
            return f"{name}={item.rstrip(b'.').decode()}"
        case (Vote(slot=first), *_) if isinstance(value, Fetched):
            return span("slot", first, item[-1].slot)
        case tuple() if name == "path":
            return "/".join(item)
        case tuple() if name == "commands":
            return f"[{'; '.join(show(decode(command)) for command in item)}]"
        case tuple() if name == "resources":
            return "+".join(show(resource) for resource in item)
        case tuple():
            return f"[{'; '.join(show(each) if dataclasses.is_dataclass(each) else str(each) for each in item)}]"
        case str() if name in ("kind", "code", "leader_endpoint"):
            return item
        case _ if dataclasses.is_dataclass(item):
            return show(item)
        case _:
            return f"{name}={item}"
