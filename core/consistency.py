"""What records must satisfy together before a lease state is built from them, from a snapshot or from the tables."""

from typing import Any

from . import limits
from .errors import Malformed
from .queues import Queues
from .records import RECORD_KINDS, ClaimRecord, LapsedRecord, SemaphoreRecord, SessionRecord, StateHeader
from .resources import Mode


def check_records(header: Any, *rows: list[Any]) -> list[list[Any]]:
    """Return the records in the order of their numbers; raise if no state can have left these behind.

    Raises:
        Malformed: with what does not fit.
    """
    _demand(isinstance(header, StateHeader), "a state needs its header")
    for (kind, cls), records in zip(RECORD_KINDS.items(), rows, strict=True):
        _demand(all(isinstance(record, cls) for record in records), f"something among the {kind} that is none of them")
    _demand(header.base_ms <= header.clock_ms, "a leader that took over in the future")
    sessions = sorted(rows[0], key=lambda record: record.session)
    claims = sorted(rows[1], key=lambda record: record.claim)
    lapses, semaphores, pins, registers, namespaces = others = [
        sorted(records, key=lambda record: record.number) for records in rows[2:]
    ]
    _check_sessions(header, sessions)
    _check_numbers(header, claims, lapses, [record.number for records in others for record in records])
    numbers = {record.session: None for record in sessions}
    pinned = {(record.namespace, record.path): None for record in pins}
    for claim in claims:
        _check_claim(header, claim, numbers)
        overdue = 0 < claim.ends_at_ms <= header.clock_ms
        held_fast = claim.token and any((claim.namespace, each.path) in pinned for each in claim.resources)
        _demand(not overdue or bool(held_fast), f"claim {claim.claim} is overdue")
    for records in (semaphores, pins, registers):
        things = {(record.namespace, record.path): None for record in records}
        _demand(len(things) == len(records), "two records of one thing")
    _demand(len({record.name: None for record in namespaces}) == len(namespaces), "a namespace that is there twice")
    _demand(all(record.entities for record in pins), "a pin of nobody")
    _demand(all(0 < record.version <= header.revision for record in registers), "a version that was never given")
    _check_queues(claims, lapses, semaphores)
    return [sessions, claims, *others]


def _check_sessions(header: StateHeader, sessions: list[SessionRecord]) -> None:
    numbers = {record.session: None for record in sessions}
    keys = {record.key: None for record in sessions}
    _demand(len(numbers) == len(keys) == len(sessions), "a session, or the key of one, that is there twice")
    for record in sessions:
        _demand(0 < record.session <= header.last_session, f"session {record.session}, which was never given")
        _demand(record.expires_at_ms > header.clock_ms, f"session {record.session} is overdue")
        _demand(len(record.key) == limits.SESSION_KEY_BYTES, f"session {record.session} with a key of another size")


def _check_numbers(
    header: StateHeader, claims: list[ClaimRecord], lapses: list[LapsedRecord], items: list[int]
) -> None:
    both: list[ClaimRecord | LapsedRecord] = [*claims, *lapses]
    numbers = [claim.claim for claim in both]
    _demand(
        len(dict.fromkeys(numbers)) == len(numbers) and all(0 < number <= header.last_claim for number in numbers),
        "a claim that is there twice, or was never given",
    )
    tokens = [record.token for record in both if record.token]
    _demand(
        len(dict.fromkeys(tokens)) == len(tokens) and max(tokens, default=0) <= header.last_token,
        "a token that is no token",
    )
    _demand(
        len(dict.fromkeys(items)) == len(items) and all(0 < item <= header.last_item for item in items),
        "a record whose number is there twice, or was never given",
    )


def _check_claim(header: StateHeader, claim: ClaimRecord, sessions: dict[int, None]) -> None:
    number = claim.claim
    _demand(bool(claim.resources), f"claim {number} asks for nothing")
    once = len(dict.fromkeys(each.path for each in claim.resources)) == len(claim.resources)
    _demand(once, f"claim {number} asks for the same twice")
    _demand(not claim.session or claim.session in sessions, f"the session of claim {number} is not there")
    _demand(bool(claim.token or claim.session), f"claim {number} waits for nobody")
    _demand(bool(claim.session or claim.ends_at_ms), f"claim {number} belongs to nobody and has no end")
    _demand(bool(claim.ttl_ms or not (claim.session and claim.detached)), f"claim {number} is detached without a ttl")
    observes = any(each.mode == Mode.OBSERVE for each in claim.resources)
    _demand(bool(claim.watermark) == observes and not (observes and claim.token), f"claim {number} observes wrongly")
    _demand(claim.watermark <= header.last_token, f"claim {number} has seen a token that was never given")
    if claim.token:
        ends = bool(claim.ttl_ms or claim.hold_until_ms or not claim.session)
        _demand(bool(claim.ends_at_ms) == ends, f"claim {number}: a ttl without a deadline, or a deadline without one")
        _demand(not claim.hold_until_ms or claim.ends_at_ms <= claim.hold_until_ms, f"claim {number} is held too long")


def _check_queues(claims: list[ClaimRecord], lapses: list[LapsedRecord], semaphores: list[SemaphoreRecord]) -> None:
    """Build the queues anew: nothing that is held may conflict, and nothing wait for what is free."""
    queues: dict[str, Queues] = {}
    for semaphore in semaphores:
        queues.setdefault(semaphore.namespace, Queues()).limits[semaphore.path] = semaphore.limit
    for claim in claims:
        created = queues[claim.namespace].limits if claim.namespace in queues else {}
        for each in claim.resources:
            if each.mode == Mode.COUNT:
                most = created.get(each.path, 0) or each.limit
                _demand(each.count <= most, f"claim {claim.claim} asks for more units than there are")
    held: list[ClaimRecord | LapsedRecord] = [record for record in lapses if record.closed_until_ms]
    held += [claim for claim in claims if claim.token]
    for record in sorted(held, key=lambda record: record.token):
        queue = queues.setdefault(record.namespace, Queues())
        _demand(queue.ready(record.claim, record.resources), f"claim {record.claim} holds what another one holds")
        queue.hold(record.claim, record.resources, waited=False)
    for claim in claims:
        if claim.token or claim.watermark:
            continue
        queue = queues.setdefault(claim.namespace, Queues())
        _demand(not queue.ready(claim.claim, claim.resources), f"claim {claim.claim} waits for what is free")
        queue.wait(claim.claim, claim.resources)


def _demand(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise Malformed(f"records that do not fit together: {what}")
