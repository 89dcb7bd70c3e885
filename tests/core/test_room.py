"""The bytes of the state: counted from its records, and past the limit nothing is added, but all can be given back."""

from collections.abc import Callable
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import (
    ANY_VERSION,
    KEEP,
    Amend,
    Break,
    Claim,
    CreateNamespace,
    CreateSemaphore,
    EraseRegister,
    NamespaceConfig,
    Operation,
    Pin,
    PutRegister,
    Release,
    Renew,
    Transact,
    Unpin,
    UpdateSemaphore,
)
from lessor.core.encoding import dumps, encode, to_list
from lessor.core.lease_state import LeaseState
from lessor.core.records import (
    ClaimRecord,
    LapsedRecord,
    NamespaceRecord,
    PinRecord,
    RegisterRecord,
    SemaphoreRecord,
    SessionRecord,
)
from lessor.core.resources import Mode, Resource
from lessor.core.results import ClaimStatus, Denied, Done, Failed, NotHeld, Released, Renewed
from lessor.core.room import weight, weight_of_answer

from ..support.leases import Leases, a_story, check_consistent

MOST = 100_000
DATA = b"z" * 20_000
X = Resource(("x",))


class Desk(Leases):
    """Leases of a service whose state may have a hundred kilobytes; a lease, a semaphore and a pin are there."""

    def __init__(self) -> None:
        super().__init__()
        self.anna = self.session(timeout_ms=600_000)
        held: Any = self.do(Claim("n", (X,), "anna", b"", 60_000, 0, detached=False))
        self.token, self.held = held.token, held.claim
        self.do(CreateSemaphore("n", ("s",), 3, b""))
        self.do(Pin("n", ("p",), "e"))

    def do(self, operation: Operation) -> Any:
        """Have something done by a client that acknowledges each answer."""
        return self.ask(self.anna, operation, acked_below=self.last_number)

    def put(self, number: int, data: bytes = DATA) -> Any:
        return self.do(PutRegister("n", ("x", str(number)), self.token, ANY_VERSION, data))

    def fill(self) -> None:
        for number in range(5):
            self.put(number)
        assert self.state.book.room.full


@pytest.fixture(autouse=True)
def the_limit_is_low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STATE_BYTES_MAX", MOST)


ADDS: list[Callable[[Desk], Operation]] = [
    lambda desk: PutRegister("n", ("x", "new"), desk.token, ANY_VERSION, b""),
    lambda _: Claim("n", (Resource(("y",)),), "ben", b"", 1000, 0, detached=False),
    lambda desk: Amend(desk.held, count=KEEP, new_data=True, data=b"new"),
    lambda _: CreateSemaphore("n", ("t",), 3, b""),
    lambda _: UpdateSemaphore("n", ("s",), b"new"),
    lambda _: Pin("n", ("p",), "f"),
    lambda _: CreateNamespace("m", NamespaceConfig()),
    lambda desk: Transact((), (PutRegister("n", ("x", "new"), desk.token, ANY_VERSION, b""),)),
]


@pytest.mark.parametrize("adds", ADDS)
def test_nothing_is_added_to_a_full_state_and_the_answer_names_the_limit(adds: Callable[[Desk], Operation]) -> None:
    """P10: a state that no snapshot can carry would leave every follower behind that once needs one."""
    desk = Desk()
    desk.fill()
    answer = desk.do(adds(desk))
    assert isinstance(answer, Failed)
    assert answer.code == "too_many"
    assert str(MOST) in answer.detail
    check_consistent(desk.state)
    desk.do(EraseRegister("n", ("x", "1"), desk.token, ANY_VERSION))
    assert not isinstance(desk.do(adds(desk)), Failed), "there is room again"
    check_consistent(desk.state)


def test_a_full_state_keeps_its_promises_and_lets_everything_be_given_back() -> None:  # P4, P6, P10
    desk = Desk()
    desk.fill()
    assert isinstance(desk.do(Renew(desk.token, 0)), Renewed)
    assert desk.do(Unpin("n", ("p",), "e")) == Done(changed=True)
    newcomer = desk.session()
    assert desk.ask(newcomer, Break(desk.token, "to make room")) == Released()
    desk.close(newcomer)
    desk.state.registers.shelf.drop(("n", ("x", "0")))
    check_consistent(desk.state)
    assert not desk.state.book.room.full


def test_data_that_is_replaced_counts_once() -> None:
    desk = Desk()
    for number in range(100):
        assert not isinstance(desk.put(1), Failed), number
        assert not isinstance(desk.do(Amend(desk.held, count=KEEP, new_data=True, data=DATA)), Failed), number
    check_consistent(desk.state)


def test_answers_that_nobody_acknowledges_count_until_their_session_ends() -> None:
    desk = Desk()
    idle, before = desk.session(), desk.state.book.room.taken
    for _ in range(50):
        desk.ask(idle, Release(999), acked_below=0)
    check_consistent(desk.state)
    assert desk.state.book.room.taken >= before + 50 * len(encode(NotHeld()))
    desk.close(idle)
    assert desk.state.book.room.taken < before


def test_few_answers_are_kept_of_a_session_while_the_state_is_full() -> None:  # P10
    desk = Desk()
    idle = desk.session()
    desk.fill()
    for _ in range(limits.REPLIES_WHEN_FULL_MAX):
        assert desk.ask(idle, Release(999), acked_below=0) == NotHeld()
    assert isinstance(desk.ask(idle, Release(999), acked_below=0), Failed)
    assert desk.ask(idle, Release(999), acked_below=desk.last_number) == NotHeld()


@pytest.mark.parametrize(
    "answer",
    [
        ClaimStatus(2**62, 2, 2**62, 2**62, 2**62, 2**62, 2**62, "é" * 400),
        Denied("é" * 127, 2**62, 2**62, "é" * 500),
        Denied("", 0, 2**62, "é" * 500),
        Failed("too_many", "é" * 500),
        Renewed(2**62),
    ],
)
def test_no_answer_takes_more_than_it_counts_for(answer: Any) -> None:
    assert weight_of_answer(answer) >= len(encode(answer)) + 12, "its number and its frame beside it"


BIG = 2**62
PATH = tuple(["s"] * limits.PATH_SEGMENTS_MAX)
RESOURCES = (Resource(("é" * 400,), Mode.COUNT, BIG, BIG), *[Resource(()) for _ in range(30)])


@pytest.mark.parametrize(
    "record",
    [
        ClaimRecord(BIG, "", (), "", b"", BIG, True, *[BIG] * 8),
        ClaimRecord(1, "n", RESOURCES, "é" * 100, b"z" * 70_000, 1, True, *[BIG] * 8),
        LapsedRecord(BIG, BIG, "é" * 100, RESOURCES, "é" * 100, BIG, BIG, BIG, BIG, "é" * 500),
        SessionRecord(BIG, b"k" * 16, BIG, "é" * 500, BIG, BIG, BIG, (), "é" * 100, BIG),
        SemaphoreRecord(BIG, "n", PATH, BIG, b"z" * 70_000),
        PinRecord(BIG, "n", PATH, tuple(["é" * 200] * limits.PINS_PER_NAME_MAX)),
        RegisterRecord(BIG, "n", PATH, BIG, BIG, b"z" * 70_000),
        NamespaceRecord(BIG, "é" * 100, NamespaceConfig(*[BIG] * 5)),
    ],
)
def test_no_record_takes_more_than_it_counts_for(record: Any) -> None:
    assert weight(record) >= len(dumps(to_list(record)))


def test_the_count_is_the_same_after_a_restart_in_the_middle_of_a_story() -> None:  # P1
    story = a_story()
    state = LeaseState()
    for slot, entry in enumerate(story.log, start=1):
        state.apply(slot, entry)
        assert LeaseState.restore(state.snapshot()).book.room.taken == state.book.room.taken
    assert state.book.room.taken == story.state.book.room.taken
