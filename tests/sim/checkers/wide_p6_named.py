"""P6 for the whole lease model: what is answered is what happens, all or nothing, and nobody acts on what he lost."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from lessor.core.commands import (
    ATTACH_STEP,
    SESSIONLESS,
    Adopt,
    Amend,
    AttachSession,
    Break,
    Command,
    DeleteSemaphore,
    DropNamespace,
    EraseRegister,
    HeldBy,
    KeepAlive,
    OpenSession,
    Pin,
    PutRegister,
    RegisterIs,
    Release,
    TokenHeld,
    Transact,
    Unheld,
    Unpin,
    UpdateSemaphore,
    proof_of,
)
from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome
from lessor.core.records import ClaimRecord
from lessor.core.resources import Mode
from lessor.core.results import (
    SESSION_EXPIRED,
    SESSION_STOLEN,
    Declined,
    Done,
    Failed,
    KeptAlive,
    Register,
    Released,
    SessionOpened,
    Transacted,
)

from .base import Checker
from .wide_view import Once, View, look, overlap

if TYPE_CHECKING:
    from lessor.core.events import Event

    from ..world import World

EXACT = ("written", "erased", "pinned", "unpinned", "semaphore_updated")
"""Events that come from one operation each, and from nothing else."""


class WideTransactions(Checker):
    """Adds up what the answers of a slot say that was carried out, and compares with the events."""

    promise = "P6"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with nothing answered."""
        super().__init__(world)
        self.once = Once()
        self.looked_at: dict[tuple[int, int], None] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Compare what is told with what has happened."""
        before, _ = look(self.world)
        self._look_at_checks(outcome, before)
        told: Counter[tuple[Any, ...]] = Counter()
        released: list[int] = []
        for command, result in self.once.carried_out(self.world.ledger.commands, outcome):
            parts = [(command.operation, result)]
            if isinstance(command.operation, Transact):
                results = result.results if isinstance(result, Transacted) else ()
                parts = list(zip(command.operation.steps, results, strict=bool(results)))
            for operation, done in parts:
                told.update(_said(operation, done))
                if isinstance(operation, Release) and isinstance(done, Released):
                    released.append(operation.token)
        seen = Counter((event.kind, event.namespace, event.path) for event in outcome.events if event.kind in EXACT)
        if told != seen:
            raise self.fail(f"in slot {slot} it was told that {dict(told)}, and there was {dict(seen)}")
        ended = [event.token for event in outcome.events if event.kind == "released"]
        if any(token not in ended for token in released):
            raise self.fail(f"in slot {slot} tokens {released} were called released, and {ended} were")

    def _look_at_checks(self, outcome: Outcome, before: View) -> None:
        """Look at the checks of a transaction that is alone in its slot, with nothing having ended just before it."""
        commands = self.world.ledger.commands
        old = [self._is_old(command) for command in commands if isinstance(command.operation, Transact)]
        due = ("expired", "session_expired", "timed_out", "granted", "cancelled")  # what may have come before it
        if len(commands) != 1 or any(event.kind in due for event in outcome.events):
            return
        operation, result = commands[0].operation, outcome.answers[0][1]
        if not isinstance(operation, Transact) or old[0]:
            return
        unmet = [index for index, check in enumerate(operation.checks) if not _holds(check, before)]
        if isinstance(result, Transacted) and unmet:
            raise self.fail(f"{operation} was carried out, and check {unmet[0]} did not hold")
        if isinstance(result, Declined) and result.part == "check" and result.index not in unmet:
            raise self.fail(f"{operation} was declined for check {result.index}, which held")

    def _is_old(self, command: Command) -> bool:
        key = (command.session, command.number)
        old = key in self.looked_at
        self.looked_at[key] = None
        return old


def _holds(check: Any, view: View) -> bool:
    """Return whether a check of a transaction holds."""
    match check:
        case TokenHeld(token):
            return any(claim.token == token for claim in view.claims.values() if claim.token)
        case HeldBy(namespace, path, holder):
            return any(
                claim.token and claim.namespace == namespace and claim.holder == holder and resource.path == path
                for claim in view.claims.values()
                for resource in claim.resources
            )
        case Unheld(namespace, path):
            return not any(
                held.namespace == namespace and overlap(resource.path, path)
                for held in view.held
                for resource in held.resources
            )
        case RegisterIs(namespace, path, version):
            record = view.registers.get((namespace, path))
            return bool((record.version if record is not None else 0) == version)
        case _:
            return False


def _said(operation: Any, done: Any) -> list[tuple[Any, ...]]:
    changed = isinstance(done, Register) or (isinstance(done, Done) and done.changed)
    kinds = {
        PutRegister: "written",
        EraseRegister: "erased",
        Pin: "pinned",
        Unpin: "unpinned",
        UpdateSemaphore: "semaphore_updated",
    }
    kind = kinds.get(type(operation))
    return [(kind, operation.namespace, operation.path)] if kind is not None and changed else []


class WideNamed(Checker):
    """What is broken, adopted or amended was named by its token or its number, in that very slot."""

    promise = "P6"
    wide = True

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Ask of every such event which command it was."""
        before, after = look(self.world)
        for claim in after.claims.values():
            old = before.claims.get(claim.claim)
            if old is not None and old.resources != claim.resources:
                self._must_be_less(old, claim)
        for event in outcome.events:
            if event.kind in ("broken", "adopted", "amended") and not any(
                _names(command.operation, event) for command in self.world.ledger.commands
            ):
                raise self.fail(
                    f"claim {event.claim}, token {event.token}, was {event.kind}, which nobody has asked for"
                )

    def _must_be_less(self, old: ClaimRecord, new: ClaimRecord) -> None:
        """What a claim has may shrink in its place, and never grow."""
        for resource in new.resources:
            was = next((each for each in old.resources if each.path == resource.path), None)
            less = was is not None and (
                resource == was
                or (was.mode == Mode.WRITE and resource.mode == Mode.READ)
                or (was.mode == resource.mode == Mode.COUNT and resource.count < was.count)
            )
            if not less:
                raise self.fail(f"claim {new.claim} had {old.resources}, and grew to {new.resources}")
        self.world.mark("a claim made smaller")


def _names(operation: Any, event: "Event") -> bool:
    match operation:
        case Break(token):
            return event.kind == "broken" and token == event.token
        case DropNamespace(name, force):
            return event.kind == "broken" and force and name == event.namespace
        case DeleteSemaphore(namespace, path, force):
            return event.kind == "broken" and force and event.concerns(namespace, path, below=False)
        case Adopt(token):
            return event.kind == "adopted" and token == event.token
        case Amend(claim):
            return event.kind == "amended" and claim == event.claim
        case _:
            return False


class WideStolen(Checker):
    """A session is taken over only with its key, and whoever had it before can do nothing with it any more."""

    promise = "P6"
    wide = True

    def __init__(self, world: "World") -> None:
        """Start with no session."""
        super().__init__(world)
        self.keys: dict[int, bytes] = {}
        self.attach: dict[int, int] = {}

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Follow the commands in their order."""
        look(self.world)
        for command, (_, result) in zip(self.world.ledger.commands, outcome.answers, strict=True):
            operation = command.operation
            if isinstance(operation, OpenSession) and isinstance(result, SessionOpened):
                self.keys[result.session] = operation.key
            elif isinstance(operation, AttachSession) and isinstance(result, SessionOpened):
                self._attached(operation, result)
            elif isinstance(operation, KeepAlive) and isinstance(result, KeptAlive):
                for place, alive in enumerate(result.expires_at_ms):
                    session, number, _, proof = operation.pings[4 * place : 4 * place + 4]
                    self._must_own(session, number, proof, operation, served=alive > 1)
            elif not isinstance(operation, SESSIONLESS):
                refused = isinstance(result, Failed) and result.code in (SESSION_EXPIRED, SESSION_STOLEN)
                self._must_own(command.session, command.number, command.proof, command, served=not refused)

    def _attached(self, operation: AttachSession, result: SessionOpened) -> None:
        key, attach = self.keys.get(operation.session), self.attach.get(operation.session, 0)
        repeated = bool(operation.new_key) and (key, attach) == (operation.new_key, operation.attach)
        if key != operation.key and not repeated:
            raise self.fail(f"session {operation.session} was taken over with a key that is not its own")
        if operation.attach < self.attach.get(operation.session, 0):
            raise self.fail(f"session {operation.session} was taken over out of sequence, as {operation.attach}")
        self.attach[operation.session] = operation.attach
        self.keys[operation.session] = operation.new_key or operation.key

    def _must_own(self, session: int, number: int, proof: int, what: Command | KeepAlive, *, served: bool) -> None:
        attach = self.attach.get(session, 0)
        if number < attach * ATTACH_STEP:
            self.world.mark("a request of a stolen session")
            if served:
                raise self.fail(f"session {session} was stolen, and request {number} was carried out: {what}")
        elif number >= (attach + 1) * ATTACH_STEP or proof != proof_of(self.keys.get(session, b"")):
            self.world.mark("a request of a stranger")
            if served:
                raise self.fail(f"request {number} of a stranger was carried out in session {session}: {what}")
