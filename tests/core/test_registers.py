"""Fenced registers: only whoever holds a grant that covers the path may write, and a token of the past never (P5)."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import ANY_VERSION, Claim, EraseRegister, GetRegister, PutRegister
from lessor.core.resources import Mode, Resource
from lessor.core.results import Done, Failed, NotHeld, Register, VersionDiffers

from ..support.leases import Leases, check_consistent

X = ("default", ("x",))


class Desk(Leases):
    """Leases of one session that writes registers."""

    def __init__(self) -> None:
        super().__init__()
        self.anna = self.session(timeout_ms=600_000)

    def put(self, token: int, version: int = ANY_VERSION, data: bytes = b"r", path: tuple[str, ...] = ("x",)) -> Any:
        answer = self.ask(self.anna, PutRegister("default", path, token, version, data))
        check_consistent(self.state)
        return answer

    def get(self) -> Any:
        return self.ask(self.anna, GetRegister(*X))


def test_a_holder_writes_and_everybody_reads() -> None:
    desk = Desk()
    token = desk.claim(desk.anna, "x", ttl_ms=1000).token
    assert desk.get() == Register(0, 0, b"")
    one = desk.put(token, 0, b"one").version
    two = desk.put(token, one, b"two").version
    assert 0 < one < two == desk.state.revision, "a version is the revision of the write"
    assert desk.ask(0, GetRegister(*X)) == Register(two, token, b"two")


def test_a_write_under_another_version_changes_nothing_and_tells_the_version() -> None:
    desk = Desk()
    token = desk.claim(desk.anna, "x").token
    one = desk.put(token, 0).version
    for version in (0, one - 1, one + 1):
        assert desk.put(token, version, b"late") == VersionDiffers(one)
    assert desk.get().data == b"r"


def test_a_token_of_the_past_writes_nothing() -> None:  # P5
    desk = Desk()
    old = desk.claim(desk.anna, "x", ttl_ms=1000).token
    mine = desk.put(old, data=b"mine").version
    desk.after(1000)
    assert desk.put(old, data=b"late") == NotHeld()
    new = desk.claim(desk.anna, "x").token
    assert desk.put(old, data=b"late") == NotHeld()
    assert desk.put(new, mine, b"next").token == new, "it stays over a change of holder"
    assert desk.get().data == b"next"


@pytest.mark.parametrize(
    ("resource", "path", "covered"),
    [
        (Resource(("x",)), ("x", "below"), True),
        (Resource(()), ("x",), True),
        (Resource(("x", "below")), ("x",), False),
        (Resource(("y",)), ("x",), False),
        (Resource(("x",), Mode.READ), ("x",), False),
        (Resource(("x",), Mode.COUNT, 3, 3), ("x",), False),
    ],
)
def test_only_a_claim_to_write_covers_a_path_and_all_below(
    resource: Resource,
    path: tuple[str, ...],
    covered: bool,  # noqa: FBT001
) -> None:
    desk = Desk()
    held: Any = desk.ask(desk.anna, Claim("default", (resource,), "h", b"", 0, 0, detached=False))
    answer = desk.put(held.token, path=path)
    assert isinstance(answer, Register) if covered else answer.code == "not_covered"


def test_a_token_of_another_namespace_covers_nothing_here() -> None:
    desk = Desk()
    token = desk.claim(desk.anna, "x", namespace="other").token
    assert desk.put(token).code == "not_covered"


def test_a_register_stays_until_it_is_erased() -> None:  # P10
    desk = Desk()
    token = desk.claim(desk.anna, "x").token
    one = desk.put(token, 0).version
    assert desk.ask(desk.anna, EraseRegister(*X, token, one + 1)) == VersionDiffers(one)
    assert desk.ask(desk.anna, EraseRegister(*X, token, one)) == Done(changed=True)
    assert desk.ask(desk.anna, EraseRegister(*X, token, ANY_VERSION)) == Done(changed=False)
    assert desk.get() == Register(0, 0, b"")
    assert len(desk.state.registers.shelf) == 0


def test_a_version_never_comes_back_so_that_a_late_write_spoils_no_later_register() -> None:  # P10
    """Who read a version, and writes under it after the register was erased and written anew, meant the former one."""
    desk = Desk()
    token = desk.claim(desk.anna, "x").token
    seen: list[int] = []
    for _ in range(5):
        seen.append(desk.put(token, 0, b"a life").version)
        seen.append(desk.put(token, seen[-1], b"a change").version)
        for version in seen[:-1]:
            assert desk.put(token, version, b"late") == VersionDiffers(seen[-1])
        desk.ask(desk.anna, EraseRegister(*X, token, ANY_VERSION))
        for version in seen:
            assert desk.put(token, version, b"late") == VersionDiffers(0)
    assert seen == sorted(set(seen))
    assert not desk.state.registers.shelf.records(), "nothing is left behind that would remember them"


def test_there_are_not_more_registers_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "REGISTERS_MAX", 1)
    desk = Desk()
    token = desk.ask(desk.anna, Claim("default", (Resource(()),), "h", b"", 0, 0, detached=False))
    assert isinstance(desk.put(token.token), Register)  # type: ignore[union-attr]
    refused = desk.put(token.token, path=("y",))  # type: ignore[union-attr]
    assert isinstance(refused, Failed)
    assert (refused.code, "1 registers" in refused.detail) == ("too_many", True)
    assert isinstance(desk.put(token.token, data=b"again"), Register), "those there may be written"  # type: ignore[union-attr]
