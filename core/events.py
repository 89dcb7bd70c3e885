"""What happens to leases, as the event feed tells it: the same events with the same revisions on every node."""

from dataclasses import dataclass
from typing import Annotated

from . import limits
from .commands import Holder, Namespace, Reason
from .encoding import MaxBytes, MaxItems, wire
from .resources import Path

KINDS = (
    "session_opened",
    "session_closed",
    "session_expired",
    "queued",
    "granted",
    "renewed",
    "released",
    "expired",
    "broken",
    "cancelled",
    "timed_out",
    "amended",
    "adopted",
    "session_attached",
    "semaphore_created",
    "semaphore_updated",
    "semaphore_deleted",
    "pinned",
    "unpinned",
    "written",
    "erased",
    "namespace_created",
    "namespace_altered",
    "namespace_dropped",
)
"""Every kind of event. `cancelled` and `timed_out` end a waiting claim; `released`, `expired` and `broken` a grant."""

OWNERS_CHANGED = ("granted", "released", "expired", "broken", "amended", "adopted")
"""Kinds that tell a watcher of owners that who holds a path has changed, or with what data."""

DATA_CHANGED = ("semaphore_created", "semaphore_updated", "written")
"""Kinds that tell a watcher of data that what is kept for a path has changed."""

DELETED = ("semaphore_deleted", "erased", "namespace_dropped")
"""Kinds that tell a watcher that what was kept for a path is no more."""


@wire(90)
@dataclass(frozen=True, slots=True)
class Event:
    """One applied change. Revisions are dense: a gap means that events were missed, not that there were none.

    `others`: the further paths of a claim that asks for several. `why`: a reason, where somebody gave one.
    """

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
    others: Annotated[tuple[Path, ...], MaxItems(limits.RESOURCES_PER_CLAIM_MAX)] = ()
    why: Reason = ""

    def concerns(self, namespace: str, path: tuple[str, ...], *, below: bool) -> bool:
        """Return whether this happened to the path, or with `below` also to something under it."""
        if namespace != self.namespace:
            return not namespace
        paths = (self.path, *self.others)
        return path in paths or (below and any(other[: len(path)] == path for other in paths))
