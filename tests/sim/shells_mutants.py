"""Known bugs of the shells and of their wiring, each put in for the time of a test; the cores are right."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from lessor.actors.acceptor import AcceptorShell
from lessor.actors.inbox import Batch, Inbox
from lessor.actors.learner import LearnerShell
from lessor.actors.proposer import ProposerShell
from lessor.actors.shell import Shell
from lessor.core.ballot import NO_BALLOT
from lessor.core.effects import Effects, Send
from lessor.core.messages import Tick

from .checkers.base import Checker
from .checkers.p1_agreement import Agreement
from .checkers.p2_durable import Durable
from .checkers.stops import Stops
from .mutants import Mutant
from .shells_law import ShellLaw

MUTANTS: dict[str, Mutant] = {}


def _mutant(
    what: str, checker: type[Checker], worlds: int
) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    def register(patch: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        name = patch.__name__.strip("_")
        MUTANTS[name] = Mutant(name, what, checker, worlds, contextmanager(patch))
        return patch

    return register


class _Other:
    """A core that a bug of the shell does not step as it should; all else of it is the core's own."""

    def __init__(self, core: Any, step: Callable[[Any], Effects]) -> None:
        self._core = core
        self.step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


def _stepping(make: Callable[[Any, list[Any]], Callable[[Any], Effects]]) -> Any:
    """Have each shell step its core in another way, which `make` returns for a core and a batch."""
    original = Shell.on_receive

    def on_receive(self: Shell, batch: Batch) -> None:
        core = self.core
        self.core = _Other(core, make(core, batch.messages))
        try:
            original(self, batch)
        finally:
            self.core = core

    return mock.patch.object(Shell, "on_receive", on_receive)


@_mutant("a reply before the commit", Durable, 10)
def _spoken_before_commit() -> Iterator[None]:
    commit, speak, receive = AcceptorShell.commit, AcceptorShell.speak, AcceptorShell.on_receive
    late: list[Any] = []

    def later(self: AcceptorShell, writes: Any) -> None:
        late.extend(writes)

    def first(self: AcceptorShell, sends: list[Send]) -> None:
        speak(self, sends)

    def on_receive(self: AcceptorShell, batch: Batch) -> None:
        late.clear()
        receive(self, batch)
        if late:
            commit(self, late)

    with (
        mock.patch.object(AcceptorShell, "commit", later),
        mock.patch.object(AcceptorShell, "speak", first),
        mock.patch.object(AcceptorShell, "on_receive", on_receive),
    ):
        yield


@_mutant("the last message of a batch is stepped twice", ShellLaw, 10)
def _stepped_twice() -> Iterator[None]:
    def make(core: Any, messages: list[Any]) -> Callable[[Any], Effects]:
        def step(message: Any) -> Effects:
            effects: Effects = core.step(message)
            if messages and message is messages[-1]:
                again = core.step(message)
                return Effects(effects.writes + again.writes, effects.sends + again.sends)
            return effects

        return step

    with _stepping(make):
        yield


@_mutant("of a batch of more than one message only the effects of the last one count", ShellLaw, 10)
def _effects_dropped() -> Iterator[None]:
    def make(core: Any, messages: list[Any]) -> Callable[[Any], Effects]:
        def step(message: Any) -> Effects:
            effects: Effects = core.step(message)
            dropped = type(message) is not Tick and message is not messages[-1]
            return Effects() if dropped else effects

        return step

    with _stepping(make):
        yield


@_mutant("the clock is read before the messages: stamps are older than what they stamp", ShellLaw, 10)
def _tick_first() -> Iterator[None]:
    def make(core: Any, messages: list[Any]) -> Callable[[Any], Effects]:
        waiting: list[Any] = []

        def step(message: Any) -> Effects:
            waiting.append(message)
            effects = Effects()
            if type(message) is Tick:
                for each in [waiting.pop(), *waiting]:
                    found = core.step(each)
                    effects.writes += found.writes
                    effects.sends += found.sends
            return effects

        return step

    with _stepping(make):
        yield


@_mutant("what one peer was sent is sent to the next one, too", ShellLaw, 20)
def _wrong_packet() -> Iterator[None]:
    # links.py encodes the same messages once for all peers, by their identities: here all messages have the same
    with mock.patch("lessor.actors.links.id", return_value=0, create=True):
        yield


@_mutant("an inbox in which more than two messages wait loses one", ShellLaw, 10)
def _inbox_overflows() -> Iterator[None]:
    put = Inbox.put

    def lossy(self: Inbox, envelope: Any, /) -> None:
        put(self, envelope)
        if len(self._queue) > 2:
            self._queue.popleft()

    with mock.patch.object(Inbox, "put", lossy):
        yield


@_mutant("a proposer starts without the promise of its node's journal", Agreement, 100)
def _promise_not_handed_on() -> Iterator[None]:
    init = ProposerShell.__init__

    def forgetful(self: ProposerShell, *arguments: Any) -> None:
        fate, links, port, members, _, applied = arguments
        init(self, fate, links, port, members, NO_BALLOT, applied)

    with mock.patch.object(ProposerShell, "__init__", forgetful):
        yield


@_mutant("a journal is not reconciled with the snapshot in the lease tables", Stops, 100)
def _snapshot_not_handed_on() -> Iterator[None]:
    set_up = LearnerShell.set_up

    def forgetful(self: LearnerShell) -> Any:
        applied, _ = set_up(self)
        return applied, 0

    with mock.patch.object(LearnerShell, "set_up", forgetful):
        yield
