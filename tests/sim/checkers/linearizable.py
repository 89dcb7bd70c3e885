"""The history of every name is linearizable against a fenced lock; since tokens order the grants, one pass decides.

The model: a name is free, or held under a token that is larger than all before it. Taking it turns free into held,
giving it back or its expiry turns held into free. Each call takes effect at one moment between its start and its end.
"""

from typing import TYPE_CHECKING

from lessor.core import limits
from lessor.core.results import NotHeld, Released, Renewed

from ..clock import MS
from ..history import Op, Verdict
from .base import Checker
from .p4_at_least import WHOLE_MS

if TYPE_CHECKING:
    from ..world import World

DRIFT = limits.CLOCK_RATE_DRIFT_PPM / 1_000_000


class Linearizable(Checker):
    """Judges only by what programs asked and were told, when the world has ended; knows nothing of the log."""

    promise = "linearizability"
    wide = False

    def finished(self) -> None:
        """Judge each name."""
        ops = self.world.history.ops
        for name in dict.fromkeys(op.name for op in ops if op.kind == "acquire"):
            _Lock(self, name, [op for op in ops if op.name == name]).judge()


class _Lock:
    """One name: grants in the order of their tokens, each as early as it can have been."""

    def __init__(self, checker: Linearizable, name: str, ops: list[Op]) -> None:
        self.checker = checker
        self.name = name
        self.grants = sorted((op for op in ops if op.kind == "acquire" and op.token), key=lambda op: op.token)
        self.by_token: dict[int, list[Op]] = {}
        for op in ops:
            if op.kind in ("release", "renew"):
                self.by_token.setdefault(op.token, []).append(op)

    def judge(self) -> None:
        """Give every grant and every end its earliest moment; none may come after the call that told of it."""
        free_us = 0
        world: World = self.checker.world
        for grant in self.grants:
            taken_us = max(grant.start_us, free_us)
            if taken_us > grant.end_us:
                raise self.checker.fail(
                    f"{self.name!r}: {grant} cannot have been granted before {taken_us}, when those before it ended"
                )
            free_us = self._earliest_end(grant, taken_us, world)

    def _earliest_end(self, grant: Op, taken_us: int, world: "World") -> int:
        """Return when the grant can have ended at the earliest."""
        slack_us = WHOLE_MS * MS
        about = self.by_token.get(grant.token, [])
        # by any release, since the client goes on with one that failed; or with the session; or since it was lost
        gives_back = [op.start_us for op in about if op.kind == "release"]
        gives_back += [grant.lost_us] if grant.lost_us else []
        gives_back += [
            op.start_us
            for op in world.history.ops
            if op.kind == "close" and op.client == grant.client and (op.end_us >= taken_us or _may_yet_happen(op))
        ]
        held_until_us = taken_us
        if grant.ttl_ms:
            held_until_us = grant.start_us + int(grant.ttl_ms * MS / (1 + DRIFT)) - slack_us
        for op in about:
            if op.kind == "renew" and isinstance(op.result, Renewed):
                held_until_us = max(held_until_us, op.start_us + int(op.ttl_ms * MS / (1 + DRIFT)) - slack_us)
        given_back_us = min((max(start_us, taken_us) for start_us in gives_back), default=None)
        earliest_us = held_until_us if given_back_us is None else min(held_until_us, given_back_us)
        for op in about:
            # what succeeded shows that it was held when that call began, at least
            if isinstance(op.result, Renewed | Released):
                earliest_us = max(earliest_us, op.start_us)
            if isinstance(op.result, NotHeld) and op.end_us < taken_us:
                raise self.checker.fail(f"{self.name!r}: {op} was told that it is not held, before it was")
        return max(earliest_us, taken_us)


def _may_yet_happen(op: Op) -> bool:
    return op.verdict in (Verdict.PENDING, Verdict.UNKNOWN)
