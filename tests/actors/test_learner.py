"""The learner's shell: what its core complains of reaches the operator, once."""

from types import SimpleNamespace
from typing import Any

from lessor.actors.inbox import Batch
from lessor.actors.learner import LearnerShell
from lessor.core.effects import Effects


def test_what_the_core_complains_of_is_counted_once() -> None:
    told: list[tuple[str, str]] = []
    shell: Any = LearnerShell.__new__(LearnerShell)
    shell.core = SimpleNamespace(step=lambda _: Effects(), complaint="a snapshot is too large")
    shell.links = SimpleNamespace(tallies=SimpleNamespace(complain=lambda *what: told.append(what)))
    shell.actor_inbox = SimpleNamespace()
    shell.on_receive(Batch([]))
    shell.on_receive(Batch([]))
    assert told == [("snapshots_refused", "a snapshot is too large")]
