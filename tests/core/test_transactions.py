"""Transactions: every check holds and every step is carried out, or nothing at all happens."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import (
    ANY_VERSION,
    CreateSemaphore,
    EraseRegister,
    GetRegister,
    HeldBy,
    Pin,
    PutRegister,
    RegisterIs,
    Release,
    Renew,
    TokenHeld,
    Transact,
    Unheld,
    Unpin,
    UpdateSemaphore,
)
from lessor.core.results import Declined, Done, Register, Released, Renewed, Transacted

from ..support.leases import Leases, check_consistent

X, Y, S = ("default", ("x",)), ("default", ("y",)), ("default", ("s",))


class Desk:
    """One session that holds `x` under token 1, and makes transactions."""

    def __init__(self) -> None:
        self.leases = Leases()
        self.anna = self.leases.session(timeout_ms=600_000)
        self.leases.claim(self.anna, "x", ttl_ms=5000)
        self.leases.ask(self.anna, CreateSemaphore(*S, 2, b"old"))

    def transact(self, checks: Any = (), steps: Any = ()) -> Any:
        before, events = self.leases.state.snapshot(), len(self.leases.events)
        answer = self.leases.ask(self.anna, Transact(tuple(checks), tuple(steps)))
        check_consistent(self.leases.state)
        if isinstance(answer, Declined):
            assert len(self.leases.events) == events, "nothing at all happened"
            assert len(self.leases.state.snapshot()) < len(before) + 300, "but for the answer that is kept"
        return answer


def test_the_steps_are_carried_out_together_and_answered_in_their_order() -> None:
    desk = Desk()
    steps = [
        Release(1),
        PutRegister(*X, 1, 0, b"state"),
        Pin(*Y, "e"),
        UpdateSemaphore(*S, b"new"),
        Unpin(*Y, "nobody"),
    ]
    done = desk.transact([HeldBy(*X, "holder of x"), TokenHeld(1), Unheld(*Y), RegisterIs(*X, 0)], steps)
    written: Any = desk.leases.ask(desk.anna, GetRegister(*X))
    assert (written.token, written.data) == (1, b"state")
    told = Register(written.version, 1, b"")
    expected = (Released(), told, Done(changed=True), Done(changed=True), Done(changed=False))
    assert done == Transacted(expected), "the register was written before the token was given back"
    assert desk.leases.holder("x") is None


@pytest.mark.parametrize(
    "check",
    [
        HeldBy(*X, "somebody else"),
        HeldBy(*Y, "holder of x"),
        TokenHeld(2),
        Unheld(*X),
        Unheld("default", ()),
        Unheld("default", ("x", "below")),
        RegisterIs(*X, 1),
    ],
)
def test_a_check_that_does_not_hold_stops_everything(check: Any) -> None:
    desk = Desk()
    declined = desk.transact([TokenHeld(1), check], [PutRegister(*X, 1, 0, b"state"), Release(1)])
    assert (declined.part, declined.index) == ("check", 1)
    assert declined.reason
    assert desk.leases.holding_token("x") == 1


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Release(2), "not held"),
        (Renew(2, 1000), "not held"),
        (PutRegister(*Y, 1, 0, b""), "does not cover"),
        (PutRegister(*X, 2, 0, b""), "not held"),
        (PutRegister(*X, 1, 7, b""), "version 0"),
        (EraseRegister(*X, 1, 7), "version 0"),
        (UpdateSemaphore(*Y, b""), "no semaphore"),
    ],
)
def test_a_step_that_is_not_possible_stops_everything(step: Any, reason: str) -> None:
    desk = Desk()
    declined = desk.transact([], [Pin(*X, "e"), step])
    assert (declined.part, declined.index) == ("step", 1)
    assert reason in declined.reason
    assert desk.leases.state.pins.of(*X) == ()


def test_a_lease_without_a_ttl_cannot_be_renewed_in_a_transaction_either() -> None:
    desk = Desk()
    held = desk.leases.claim(desk.anna, "y")
    assert "lives as long as its session" in desk.transact([], [Renew(held.token, 0)]).reason


def test_an_overdue_lease_is_renewed_before_its_last_pin_goes() -> None:
    desk = Desk()
    desk.leases.ask(desk.anna, Pin(*X, "e"))
    desk.leases.after(6000)
    done = desk.transact([TokenHeld(1)], [Unpin(*X, "e"), Renew(1, 2000)])
    assert done == Transacted((Done(changed=True), Renewed(8000)))
    assert desk.leases.holding_token("x") == 1
    desk.leases.after(2000)
    assert desk.leases.holder("x") is None


def test_an_overdue_lease_is_released_before_its_last_pin_goes() -> None:
    desk = Desk()
    desk.leases.ask(desk.anna, Pin(*X, "e"))
    desk.leases.after(6000)
    assert desk.transact([], [Unpin(*X, "e"), Release(1)]) == Transacted((Done(changed=True), Released()))


def test_steps_that_have_no_room_together_are_declined_together(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "PINS_PER_NAME_MAX", 2)
    monkeypatch.setattr(limits, "PINS_MAX", 2)
    monkeypatch.setattr(limits, "REGISTERS_MAX", 1)
    desk = Desk()
    assert desk.transact([], [Pin(*X, "e"), Pin(*X, "f"), Pin(*X, "g")]).index == 2
    assert desk.transact([], [Pin("default", (name,), "e") for name in "abc"]).index == 2
    desk.leases.claim(desk.anna, "y", ttl_ms=5000)
    both = [PutRegister(*X, 1, 0, b""), PutRegister(*Y, 2, 0, b"")]
    assert desk.transact([], both).index == 1
    assert isinstance(desk.transact([], [Pin(*X, "e"), Pin(*X, "f"), both[0]]), Transacted)


def test_checks_alone_may_be_asked() -> None:
    desk = Desk()
    assert desk.transact([TokenHeld(1)]) == Transacted(())


def test_a_retry_finds_the_answer_and_does_nothing_twice() -> None:  # P6
    desk = Desk()
    asked = Transact((), (PutRegister(*X, 1, ANY_VERSION, b"n"),))
    done: Any = desk.leases.ask(desk.anna, asked, number=900)
    assert isinstance(done.results[0], Register)
    for _ in range(3):
        assert desk.leases.ask(desk.anna, asked, number=900) == done
    assert desk.leases.kinds().count("written") == 1
