"""What happens to leases, as the event feed tells it: the same events with the same revisions on every node."""

from dataclasses import dataclass
from typing import Annotated

from .commands import Holder, Namespace, Path
from .encoding import MaxBytes, wire

KINDS = (
    "session_opened",
    "session_closed",
    "session_expired",
    "queued",
    "granted",
    "renewed",
    "released",
    "expired",
    "cancelled",
    "timed_out",
)
"""Every kind of event. `cancelled` and `timed_out` end a waiting claim; `released` and `expired` end a grant."""


@wire(90)
@dataclass(frozen=True, slots=True)
class Event:
    """One applied change. Revisions are dense: a gap means that events were missed, not that there were none."""

    revision: int
    slot: int
    clock_ms: int
    kind: Annotated[str, MaxBytes(32)]
    namespace: Namespace
    path: Path
    claim: int
    token: int
    session: int
    holder: Holder
    expires_at_ms: int
