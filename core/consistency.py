"""What records must satisfy together before a lease state is built from them, from a snapshot or from the tables."""

from typing import Any

from . import limits
from .errors import Malformed
from .records import ClaimRecord, SessionRecord, StateHeader


def check_records(header: Any, sessions: list[Any], claims: list[Any]) -> None:
    """Raise if no state can have left these records behind. The claims come in the order of their numbers.

    Raises:
        Malformed: with what does not fit.
    """
    _demand(isinstance(header, StateHeader), "a state needs its header")
    _demand(all(isinstance(record, SessionRecord) for record in sessions), "something that is no session")
    _demand(all(isinstance(record, ClaimRecord) for record in claims), "something that is no claim")
    _demand(header.base_ms <= header.clock_ms, "a leader that took over in the future")
    _check_sessions(header, sessions)
    numbers = {record.session: None for record in sessions}
    _demand(
        len({claim.claim: None for claim in claims}) == len(claims)
        and all(0 < claim.claim <= header.last_claim for claim in claims),
        "a claim that is there twice, or was never given",
    )
    tokens = {claim.token: None for claim in claims if claim.token}
    granted = sum(claim.token > 0 for claim in claims)
    _demand(len(tokens) == granted and max(tokens, default=0) <= header.last_token, "a token that is no token")
    for claim in claims:
        _demand(not claim.ends_at_ms or claim.ends_at_ms > header.clock_ms, f"claim {claim.claim} is overdue")
        _check_claim(claim, numbers)
    _check_queues(claims)


def _check_sessions(header: StateHeader, sessions: list[SessionRecord]) -> None:
    numbers = {record.session: None for record in sessions}
    keys = {record.key: None for record in sessions}
    _demand(len(numbers) == len(keys) == len(sessions), "a session, or the key of one, that is there twice")
    for record in sessions:
        _demand(0 < record.session <= header.last_session, f"session {record.session}, which was never given")
        _demand(record.expires_at_ms > header.clock_ms, f"session {record.session} is overdue")
        _demand(len(record.key) == limits.SESSION_KEY_BYTES, f"session {record.session} with a key of another size")


def _check_claim(claim: ClaimRecord, sessions: dict[int, None]) -> None:
    number = claim.claim
    _demand(bool(claim.resources), f"claim {number} asks for nothing")
    _demand(not claim.session or claim.session in sessions, f"the session of claim {number} is not there")
    _demand(bool(claim.token or claim.session), f"claim {number} waits for nobody")
    _demand(bool(claim.session or claim.ends_at_ms), f"claim {number} belongs to nobody and has no end")
    _demand(bool(claim.ttl_ms) or not claim.detached, f"claim {number} is detached and has no ttl")
    _demand(not claim.token or bool(claim.ends_at_ms) == bool(claim.ttl_ms), f"claim {number}: ttl without deadline")


def _check_queues(claims: list[ClaimRecord]) -> None:
    heads: dict[tuple[str, tuple[str, ...]], ClaimRecord] = {}
    for claim in claims:
        for resource in claim.resources:
            head = heads.setdefault((claim.namespace, resource.path), claim)
            _demand(head is claim or not claim.token, f"claims {head.claim} and {claim.claim} hold the same")
    for claim in claims:
        ready = all(heads[claim.namespace, resource.path] is claim for resource in claim.resources)
        _demand(bool(claim.token) or not ready, f"claim {claim.claim} waits for what is free")


def _demand(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise Malformed(f"records that do not fit together: {what}")
