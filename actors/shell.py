"""The shell around a core: steps each message of a batch, commits once, then speaks. One law, in one file (P2)."""

import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import pykka

from ..core.effects import Effects, Send
from ..core.messages import Tick
from ..transport.guard import Guard
from ..transport.sockets import Socket
from .inbox import Batch, Inbox
from .links import Links

log = logging.getLogger(__name__)


class Core(Protocol):
    """What every core offers its shell."""

    def step(self, message: Any) -> Effects:
        """Decide on one message."""
        ...


class Fate:
    """How a node's roles report that they are ready, and that one of them failed: then the node must end."""

    def __init__(self, on_fatal: Callable[[str, BaseException], None]) -> None:
        """Start with nobody ready."""
        self._on_fatal = on_fatal
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._found: Any = None
        self._ends: list[threading.Event] = []

    def begin(self) -> threading.Event:
        """Return the event by which a role will say that it has ended, and has closed all that was its own."""
        self._ends.append(threading.Event())
        return self._ends[-1]

    def wait_ended(self, timeout_s: float) -> None:
        """Wait until every role has ended, but no longer than this for each."""
        for ended in self._ends:
            ended.wait(timeout_s)

    def ready(self, found: Any) -> None:
        """Say that the role has started, and what it found on its disk that others must know."""
        self._found = found
        self._ready.set()

    def wait_ready(self) -> Any:
        """Wait for the role that was started last; return what it found, or raise what kept it from starting."""
        self._ready.wait()
        self._ready.clear()
        if self._error is not None:
            raise self._error
        return self._found

    def fail(self, role: str, error: BaseException, *, starting: bool) -> None:
        """Say that a role failed: a node that lacks one role answers some questions and not others; better none."""
        if starting:
            self._error = error
            self._ready.set()
        else:
            self._on_fatal(role, error)


class Shell(pykka.ThreadingActor):
    """The actor of one role. A subclass says how its core is built, what its writes mean, and where it reads."""

    use_daemon_thread = True
    role_name = "role"

    def __init__(self, fate: Fate, links: Links) -> None:
        """Make the actor; its core is built in its own thread, when it starts."""
        super().__init__()
        self.fate = fate
        self.links = links
        self.core: Any = None
        self._guards: list[Guard] = []
        self._ended = fate.begin()

    @staticmethod
    def _create_actor_inbox() -> Any:  # Pykka's type of an inbox is private
        return Inbox()

    @property
    def inbox(self) -> Inbox:
        """The inbox, by its own type."""
        return cast(Inbox, self.actor_inbox)

    def guard(self, port: Socket, *, in_all: int | None = None) -> Guard:
        """Have the connections of a bound port watched as long as the role lives."""
        self._guards.append(Guard(port, self.links.tallies, in_all=in_all))
        self.inbox.look_with(self._guards[-1].look)
        return self._guards[-1]

    # --- what a role adds --------------------------------------------------------------------------------------------

    def set_up(self) -> Any:
        """Open what the role needs and build its core; return what others must know. Runs in the role's thread."""
        raise NotImplementedError

    def commit(self, writes: Sequence[Any]) -> None:
        """Make the writes durable, all at once, before anything is said."""
        raise NotImplementedError(f"{self.role_name} writes nothing: {writes}")

    def speak(self, sends: list[Send]) -> None:
        """Send what is to be sent."""
        self.links.speak(sends)

    def finish(self) -> None:
        """Write down what is left to write. Not called after a failure: nothing of the core can be trusted then."""

    def tear_down(self) -> None:
        """Close what the role opened."""

    # --- Pykka's hooks -----------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Build the core, and report."""
        try:
            found = self.set_up()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the node cannot start
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
            try:
                self._close()
            finally:
                self.fate.fail(self.role_name, error, starting=True)
            return
        self.fate.ready(found)

    def on_receive(self, batch: Batch) -> None:
        """Step each message, commit once, then speak: nothing is audible before it is durable (P2)."""
        if batch.error is not None:
            raise batch.error
        core: Core = self.core
        writes: list[Any] = []
        sends: list[Send] = []
        for message in batch.messages:
            effects = core.step(message)
            writes += effects.writes
            sends += effects.sends
        # the clock is read after everything of the batch has arrived: a stamp is never older than what it stamps
        effects = core.step(Tick(now_ms(), random.random()))  # noqa: S311 - spreads elections, guards nothing
        writes += effects.writes
        sends += effects.sends
        if writes:
            self.commit(writes)
        if sends:
            self.speak(sends)
        self.inbox.wake_at_ms = getattr(core, "wake_at_ms", None)
        self.inbox.patient = getattr(core, "patient", ())

    def on_stop(self) -> None:
        """Write what is left, and close what was opened."""
        try:
            self.finish()
        finally:
            self._close()

    def on_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:  # noqa: ARG002 - Pykka's
        """End the node: an unhandled exception in any role is the end of all of them."""
        error = exception_value or sys.exc_info()[1] or RuntimeError("unknown")
        self.fate.fail(self.role_name, error, starting=False)
        self._close()

    def _close(self) -> None:
        for guard in self._guards:
            guard.close()
        try:
            self.tear_down()
        finally:
            self.links.close()
            self.inbox.close()
            self._ended.set()


def now_ms() -> int:
    """Return the node's monotonic clock in milliseconds. No wall clock takes part in any decision (DESIGN §5)."""
    return time.monotonic_ns() // 1_000_000
