"""The shell: steps everything that has arrived, commits once, then speaks; what fails ends the node, silently."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pykka
import pytest

from lessor.actors.links import LocalRef
from lessor.actors.shell import Fate, Shell, now_ms
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.messages import Tick

from ..support.waiting import until

SOMEBODY = Address(2, Role.ACCEPTOR)


class FullDisk(Exception):
    """What a journal may fail with."""


@dataclass
class Story:
    """What happened, in order, and what is to go wrong."""

    lines: list[tuple[str, Any]] = field(default_factory=list)
    at: dict[str, Callable[[Any], None]] = field(default_factory=dict)

    def tell(self, what: str, detail: Any = None) -> None:
        """Note the beginning of something, let it go wrong if it is to, and note its end."""
        self.lines.append((what, detail))
        if what in self.at:
            self.at[what](detail)

    def of(self, *kinds: str) -> list[tuple[str, Any]]:
        return [line for line in self.lines if line[0] in kinds]

    def count(self, kind: str) -> int:
        return len(self.of(kind))


class Core:
    """Asks for a write and a send for each message, or for what the message says."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.ticks: list[int] = []
        self.wake_at_ms: int | None = None

    def step(self, message: Any) -> Effects:
        effects = Effects()
        if isinstance(message, Tick):
            self.story.tell("tick", message)
            self.ticks.append(message.now_ms)
            return effects
        self.story.tell("step", message)
        if "w" in message:
            effects.write(message)
        if "s" in message:
            effects.send(SOMEBODY, message)
        return effects


class Links:
    """Takes down what is said."""

    def __init__(self, story: Story) -> None:
        self.story = story

    def speak(self, sends: list[Send]) -> None:
        self.story.tell("speak", [send.message for send in sends])

    def close(self) -> None:
        self.story.tell("links closed")


class FakeShell(Shell):
    role_name = "fake"

    def __init__(self, fate: Fate, story: Story) -> None:
        super().__init__(fate, Links(story))  # type: ignore[arg-type]
        self.story = story

    def set_up(self) -> str:
        self.story.tell("set up")
        self.core = Core(self.story)
        return "what was found"

    def commit(self, writes: Sequence[Any]) -> None:
        self.story.tell("commit", list(writes))
        self.story.lines.append(("committed", list(writes)))

    def finish(self) -> None:
        self.story.tell("finish")

    def tear_down(self) -> None:
        self.story.tell("tear down")


@dataclass
class Stage:
    story: Story
    fate: Fate
    fatal: list[tuple[str, BaseException]]
    ref: "pykka.ActorRef[Any] | None" = None

    def start(self) -> "pykka.ActorRef[Any]":
        self.ref = FakeShell.start(self.fate, self.story)
        assert self.fate.wait_ready() == "what was found"
        until(lambda: self.story.count("tick"), "the first look at the clock", every=0.001)
        return self.ref

    def tell_at_once(self, *messages: str) -> None:
        """Have the messages arrive while the actor is busy with another one, so that they are one batch."""
        assert self.ref is not None
        busy, go = threading.Event(), threading.Event()
        other = self.story.at.get("step", lambda _: None)

        def hold(message: Any) -> None:
            if message == "hold":
                busy.set()
                assert go.wait(60)
            else:
                other(message)

        self.story.at["step"] = hold
        self.ref.tell("hold")
        assert busy.wait(60)
        for message in messages:
            self.ref.tell(message)
        go.set()


@pytest.fixture
def stage() -> Iterator[Stage]:
    fatal: list[tuple[str, BaseException]] = []
    stage = Stage(Story(), Fate(lambda role, error: fatal.append((role, error))), fatal)
    yield stage
    if stage.ref is not None and stage.ref.is_alive():
        stage.ref.stop()


def fail(error: Exception) -> Callable[[Any], None]:
    def failing(_: Any) -> None:
        raise error

    return failing


# --- P2: durable before audible --------------------------------------------------------------------------------------


def test_nothing_is_said_before_what_it_claims_is_committed(stage: Stage) -> None:  # P2
    committing, go = threading.Event(), threading.Event()

    def slow_disk(_: Any) -> None:
        committing.set()
        assert go.wait(60)

    stage.story.at["commit"] = slow_disk
    stage.start().tell("ws")
    assert committing.wait(60)
    assert stage.story.count("speak") == 0
    go.set()
    until(lambda: stage.story.count("speak"), "the word", every=0.001)
    assert stage.story.of("commit", "committed", "speak") == [
        ("commit", ["ws"]),
        ("committed", ["ws"]),
        ("speak", ["ws"]),
    ]


def test_all_that_has_arrived_is_one_commit_and_is_said_after_it_in_order(stage: Stage) -> None:  # P2
    stage.start()
    stage.tell_at_once("ws1", "s2", "w3", "ws4", "-")
    until(lambda: stage.story.count("speak"), "the words", every=0.001)
    assert stage.story.of("step", "commit", "speak") == [
        ("step", "hold"),
        *[("step", message) for message in ("ws1", "s2", "w3", "ws4", "-")],
        ("commit", ["ws1", "w3", "ws4"]),
        ("speak", ["ws1", "s2", "ws4"]),
    ]


def test_under_whatever_load_every_word_follows_its_commit(stage: Stage) -> None:  # P2
    ref = stage.start()
    for number in range(2_000):
        ref.tell(f"ws{number}")
    until(lambda: sum(len(said) for _, said in stage.story.of("speak")) == 2_000, "all the words", every=0.005)
    durable: set[str] = set()
    said: list[str] = []
    for what, detail in stage.story.of("committed", "speak"):
        if what == "committed":
            durable.update(detail)
        else:
            assert durable.issuperset(detail)
            said += detail
    assert said == [f"ws{number}" for number in range(2_000)]


def test_what_writes_nothing_is_said_without_a_commit_and_what_says_nothing_is_committed(stage: Stage) -> None:
    ref = stage.start()
    ref.tell("s")
    until(lambda: stage.story.count("speak"), "the word", every=0.001)
    assert stage.story.count("commit") == 0
    ref.tell("w")
    until(lambda: stage.story.count("commit"), "the commit", every=0.001)
    assert stage.story.count("speak") == 1


def test_a_role_that_writes_nothing_must_not_be_asked_to(stage: Stage) -> None:
    shell = FakeShell(stage.fate, stage.story)
    with pytest.raises(NotImplementedError, match="fake writes nothing"):
        Shell.commit(shell, ["a write"])
    shell.inbox.close()


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["commit", "step", "tick", "speak"])
def test_a_failure_anywhere_ends_the_role_and_the_node_hears_of_it_once(stage: Stage, place: str) -> None:
    ref = stage.start()
    error = FullDisk("no space left on device")
    stage.story.at[place] = fail(error)
    ref.tell("ws")
    until(lambda: stage.fatal, "the end to be told", every=0.001)
    assert stage.fatal == [("fake", error)]
    until(lambda: stage.story.count("links closed"), "the role to close", every=0.001)
    assert not ref.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("ws")
    steps = stage.story.count("step")
    local = LocalRef()
    local._ref = ref
    local.tell("ws")  # from a role that has not stopped yet: no error
    assert (stage.story.count("step"), len(stage.fatal)) == (steps, 1)


def test_a_role_that_cannot_read_its_sockets_ends_the_node(stage: Stage) -> None:
    class Reader(FakeShell):
        def set_up(self) -> str:
            self.inbox.look_with(self.look)
            return super().set_up()

        def look(self) -> int:
            self.story.tell("read")
            return 10

    error = FullDisk("no space left on device")
    stage.story.at["read"] = fail(error)
    Reader.start(stage.fate, stage.story)
    until(lambda: stage.fatal == [("fake", error)], "the end to be told", every=0.001)
    until(lambda: stage.story.count("links closed"), "the role to close", every=0.001)


def test_after_a_commit_that_failed_nothing_is_said(stage: Stage) -> None:  # P2
    stage.start()
    stage.story.at["commit"] = fail(FullDisk())
    stage.tell_at_once("s1", "ws2", "s3")
    until(lambda: stage.story.count("links closed"), "the role to close", every=0.001)
    assert stage.story.of("commit", "committed", "speak") == [("commit", ["ws2"])]


def test_after_a_step_that_failed_nothing_of_its_batch_is_committed_or_said(stage: Stage) -> None:  # P2
    stage.start()
    stage.story.at["step"] = lambda message: fail(FullDisk())(message) if message == "ws2" else None
    stage.tell_at_once("ws1", "ws2", "ws3")
    until(lambda: stage.story.count("links closed"), "the role to close", every=0.001)
    assert stage.story.of("commit", "speak") == []


def test_after_a_failure_nothing_more_is_written_but_all_is_closed(stage: Stage) -> None:
    ref = stage.start()
    stage.story.at["commit"] = fail(FullDisk())
    ref.tell("w")
    stage.fate.wait_ended(60)
    assert stage.story.of("finish", "tear down", "links closed") == [("tear down", None), ("links closed", None)]


def test_what_arrives_while_a_role_fails_is_dropped(stage: Stage) -> None:
    stage.start()
    stage.story.at["commit"] = fail(FullDisk())
    stage.tell_at_once("w1")
    assert stage.ref is not None
    try:
        for _ in range(10_000):
            stage.ref.tell("w2")
    except pykka.ActorDeadError:
        pass
    stage.fate.wait_ended(60)
    assert stage.story.count("commit") == 1
    assert len(stage.fatal) == 1


# --- beginnings and ends ---------------------------------------------------------------------------------------------


def test_a_role_that_cannot_start_says_why_and_leaves_nothing_running(stage: Stage) -> None:
    error = FullDisk("no journal")
    stage.story.at["set up"] = fail(error)
    ref = FakeShell.start(stage.fate, stage.story)
    with pytest.raises(FullDisk, match="no journal"):
        stage.fate.wait_ready()
    stage.fate.wait_ended(60)
    assert not ref.is_alive()
    assert stage.fatal == [], "whoever starts the node is told"
    assert stage.story.of("tear down", "finish", "links closed") == [("tear down", None), ("links closed", None)]


def test_a_role_that_cannot_start_and_cannot_even_be_torn_down_still_says_why(stage: Stage) -> None:
    stage.story.at["set up"] = fail(FullDisk("no journal"))
    stage.story.at["tear down"] = fail(FullDisk("nothing to tear down"))
    FakeShell.start(stage.fate, stage.story)
    with pytest.raises(FullDisk, match="no journal"):
        stage.fate.wait_ready()


def test_a_role_that_stops_finishes_what_it_has_then_closes(stage: Stage) -> None:
    stage.start()
    stage.tell_at_once("ws1", "ws2")
    assert stage.ref is not None
    stage.ref.stop()
    assert stage.story.of("speak", "finish", "tear down", "links closed") == [
        ("speak", ["ws1", "ws2"]),
        ("finish", None),
        ("tear down", None),
        ("links closed", None),
    ]
    stage.fate.wait_ended(0)


def test_a_role_that_cannot_finish_still_closes(stage: Stage) -> None:
    ref = stage.start()
    stage.story.at["finish"] = fail(FullDisk())
    ref.stop()
    assert stage.story.count("links closed") == 1
    assert stage.fatal == [], "the node is stopping anyway"


# --- time ------------------------------------------------------------------------------------------------------------


def test_each_batch_ends_with_the_time_at_which_all_of_it_had_arrived(stage: Stage) -> None:
    ref = stage.start()
    before = now_ms()
    stage.tell_at_once("s1", "s2")
    until(lambda: stage.story.count("speak"), "the words", every=0.001)
    kinds = [what for what, _ in stage.story.of("step", "tick", "speak")]
    assert kinds[-4:] == ["step", "step", "tick", "speak"]
    tick = stage.story.of("tick")[-1][1]
    assert before <= tick.now_ms <= now_ms()
    assert 0 <= tick.luck < 1
    ticks = [line[1].now_ms for line in stage.story.of("tick")]
    assert ticks == sorted(ticks)
    assert ref.is_alive()


def test_a_core_is_woken_when_it_wants_to_be_and_not_more_often(stage: Stage) -> None:
    wishes: list[int] = []

    def wish(tick: Tick) -> None:
        core = cores[0]
        core.wake_at_ms = tick.now_ms + 30 if len(wishes) < 3 else None
        if core.wake_at_ms is not None:
            wishes.append(core.wake_at_ms)

    cores: list[Core] = []

    class WishingShell(FakeShell):
        def set_up(self) -> str:
            found = super().set_up()
            cores.append(self.core)
            return found

    stage.story.at["tick"] = wish
    ref = stage.ref = WishingShell.start(stage.fate, stage.story)
    assert stage.fate.wait_ready()
    until(lambda: stage.story.count("tick") == 4, "three wake-ups after the first look", every=0.001)
    ticks = cores[0].ticks
    assert all(tick >= wish for tick, wish in zip(ticks[1:], wishes, strict=True))
    ref.tell("s")
    until(lambda: stage.story.count("speak"), "the word", every=0.001)
    assert stage.story.count("tick") == 5
