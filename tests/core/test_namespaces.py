"""Namespaces: created with a config, altered, described, dropped; one that is merely used leaves nothing behind."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import (
    FOREVER,
    KEEP,
    AlterNamespace,
    Claim,
    CreateNamespace,
    CreateSemaphore,
    DescribeNamespace,
    DropNamespace,
    ListRecords,
    NamespaceConfig,
    OpenSession,
    Pin,
    PutRegister,
    Renew,
)
from lessor.core.resources import Resource
from lessor.core.results import ClaimPhase, ClaimStatus, Done, Failed, NamespaceInfo, RecordPage

from ..support.leases import Leases, check_consistent, claim


class Desk(Leases):
    """Leases of an operator."""

    def __init__(self, **config: int) -> None:
        super().__init__()
        self.anna = self.session(timeout_ms=600_000)
        if config:
            assert self.do(CreateNamespace("n", NamespaceConfig(**config))) == Done(changed=True)

    def do(self, operation: Any, *, strict: bool = False) -> Any:
        self.last_number += 1
        command = self.command(self.anna, operation)
        command = type(command)(command.tag, command.session, command.number, 0, operation, strict)
        answer = self.batch(command)[0]
        check_consistent(self.state)
        return answer

    def take(self, name: str, ttl_ms: int = 0) -> Any:
        return self.do(claim(name, ttl_ms=ttl_ms, namespace="n"))

    def info(self, name: str = "n") -> Any:
        return self.ask(0, DescribeNamespace(name))


def code(answer: Any) -> str:
    assert isinstance(answer, Failed)
    return answer.code


def test_a_namespace_is_created_once() -> None:
    desk = Desk(lock_delay_ms=100)
    assert code(desk.do(CreateNamespace("n", NamespaceConfig()))) == "namespace_exists"
    assert desk.info().config.lock_delay_ms == 100


def test_a_namespace_that_is_only_used_is_there_while_it_is_used() -> None:  # P10
    desk = Desk()
    assert desk.info() == NamespaceInfo(0, "n", created=False, config=NamespaceConfig(), claims=0, sessions=0)
    token = desk.take("x").token
    assert desk.info().claims == 1
    desk.release(desk.anna, token)
    assert desk.info().claims == 0
    assert not desk.state.claims.queues


@pytest.mark.parametrize(
    "operation",
    [
        claim("x", namespace="n"),
        CreateSemaphore("n", ("s",), 1, b""),
    ],
)
def test_a_strict_service_makes_no_namespace_by_its_being_used(operation: Any) -> None:
    desk = Desk()
    assert code(desk.do(operation, strict=True)) == "no_such_namespace"
    assert not desk.state.claims.queues
    desk.do(CreateNamespace("n", NamespaceConfig()))
    assert not isinstance(desk.do(operation, strict=True), Failed)


def test_a_strict_service_opens_no_session_in_a_namespace_that_there_is_not() -> None:
    desk = Desk()
    assert code(desk.do(OpenSession(b"z" * 16, 1000, "", "n"), strict=True)) == "no_such_namespace"


def test_in_a_strict_service_the_first_namespace_can_be_created_by_a_session_in_the_default_one() -> None:
    desk = Desk()
    assert not isinstance(desk.do(OpenSession(b"z" * 16, 1000, "", "default"), strict=True), Failed)
    assert code(desk.do(claim("x", namespace="default"), strict=True)) == "no_such_namespace"


def test_the_default_ttl_is_that_of_a_claim_that_names_none() -> None:
    desk = Desk(default_ttl_ms=700)
    assert desk.take("x").expires_at_ms == 700
    assert desk.take("y", ttl_ms=900).expires_at_ms == 900
    desk.after(700)
    assert desk.state.held == 1


def test_no_ttl_is_longer_than_the_maximum() -> None:
    desk = Desk(ttl_max_ms=1000)
    refused = desk.take("x", ttl_ms=1001)
    assert (code(refused), "up to 1 s, not 1.001 s" in refused.detail) == ("ttl_too_long", True)
    token = desk.take("x", ttl_ms=1000).token
    assert code(desk.do(Renew(token, 1001))) == "ttl_too_long"
    assert desk.do(Renew(token, 1000)).expires_at_ms == 1000


def test_no_more_claims_are_taken_in_than_the_config_allows() -> None:  # P10
    desk = Desk(claims_max=2)
    held = desk.take("x").token
    desk.do(claim("x", wait_ms=FOREVER, namespace="n"))
    refused = desk.take("y")
    assert (code(refused), "2 claims in namespace 'n'" in refused.detail) == ("too_many", True)
    assert isinstance(desk.do(claim("y", namespace="other")), ClaimStatus), "others are free to claim"
    desk.release(desk.anna, held)
    assert desk.take("y").phase == ClaimPhase.HELD


def test_a_change_of_config_keeps_what_it_does_not_name_and_what_was_promised() -> None:  # P4
    desk = Desk(default_ttl_ms=1000, lock_delay_ms=300)
    desk.take("x")
    keep = NamespaceConfig(KEEP, KEEP, KEEP, KEEP, KEEP)
    assert desk.do(AlterNamespace("n", keep)) == Done(changed=False)
    change = NamespaceConfig(default_ttl_ms=100, ttl_max_ms=500, session_grace_ms=KEEP, lock_delay_ms=KEEP)
    assert desk.do(AlterNamespace("n", change)) == Done(changed=True)
    assert desk.info().config == NamespaceConfig(100, 500, 0, 300, 0)
    desk.after(999)
    assert desk.state.held == 1, "it was promised a second"


def test_settings_that_would_contradict_each_other_change_nothing() -> None:
    desk = Desk(default_ttl_ms=1000)
    change = NamespaceConfig(KEEP, 500, KEEP, KEEP, KEEP)
    assert code(desk.do(AlterNamespace("n", change))) == "bad_config"
    assert desk.info().config == NamespaceConfig(default_ttl_ms=1000)


@pytest.mark.parametrize("operation", [AlterNamespace("n", NamespaceConfig()), DropNamespace("n", force=True)])
def test_what_was_not_created_is_neither_altered_nor_dropped(operation: Any) -> None:
    desk = Desk()
    desk.take("x")
    assert code(desk.do(operation)) == "no_such_namespace"
    assert desk.state.held == 1


USES: list[Any] = [
    claim("x", namespace="n"),
    CreateSemaphore("n", ("s",), 1, b""),
    Pin("n", ("x",), "e"),
    OpenSession(b"z" * 16, 60_000, "", "n"),
]


@pytest.mark.parametrize("use", USES, ids=lambda use: type(use).__name__)
def test_a_namespace_in_use_is_dropped_by_force_alone(use: Any) -> None:
    desk = Desk(lock_delay_ms=0, claims_max=5)
    assert not isinstance(desk.do(use), Failed)
    assert code(desk.do(DropNamespace("n", force=False))) == "namespace_in_use"
    assert desk.do(DropNamespace("n", force=True)) == Done(changed=True)
    assert not desk.info().created
    assert desk.info().claims == 0
    assert not desk.state.claims.queues


def test_whoever_holds_or_waits_in_a_namespace_that_is_dropped_is_told_and_nobody_is_granted() -> None:
    desk = Desk(claims_max=50)
    ben = desk.session(timeout_ms=600_000)
    held = desk.take("x")
    desk.do(PutRegister("n", ("x",), held.token, 0, b"r"))
    wanted = Claim("n", (Resource(("x",)), Resource(("y",))), "ben", b"", 0, FOREVER, detached=False)
    desk.ask(ben, wanted)
    desk.kinds()
    desk.do(DropNamespace("n", force=True))
    assert desk.kinds() == ["cancelled", "broken", "namespace_dropped"]
    for session in (desk.anna, ben):
        [told] = desk.told(session)
        assert (told.phase, told.why) == (ClaimPhase.GONE, "its namespace was dropped")
    assert len(desk.state.registers.shelf) == 0


def test_the_claims_of_other_namespaces_are_left_alone() -> None:
    desk = Desk(claims_max=5)
    desk.claim(desk.anna, "x")
    desk.take("x")
    desk.do(DropNamespace("n", force=True))
    assert desk.state.held == 1


def test_there_are_not_more_namespaces_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "NAMESPACES_MAX", 1)
    desk = Desk(claims_max=5)
    assert code(desk.do(CreateNamespace("m", NamespaceConfig()))) == "too_many"


def test_a_listing_shows_what_was_created_and_what_is_merely_used() -> None:
    desk = Desk(claims_max=5)
    desk.claim(desk.anna, "x", namespace="used")
    page = desk.ask(0, ListRecords("namespaces", "", 0, 10))
    assert isinstance(page, RecordPage)
    assert [(info.name, info.created) for info in page.records] == [  # type: ignore[union-attr]
        ("n", True),
        ("default", False),
        ("used", False),
    ]
    names, after = [], 0
    while True:
        page = desk.ask(0, ListRecords("namespaces", "", after, 1))
        assert isinstance(page, RecordPage)
        names += [info.name for info in page.records]  # type: ignore[union-attr]
        after = page.upto
        if not after:
            break
    assert names == ["n", "default", "used"], "page by page, too"
