"""What a user of YDB's coordination nodes expects of nodes and sessions, restarted and led anew at every step."""

import pytest

from lessor.core import limits
from lessor.core.commands import (
    KEEP,
    Adopt,
    AlterNamespace,
    Amend,
    Break,
    Cancel,
    CloseSession,
    CreateNamespace,
    CreateSemaphore,
    DeleteSemaphore,
    DescribeNamespace,
    DropNamespace,
    KeepAlive,
    NamespaceConfig,
    OpenSession,
    Operation,
    Pin,
    Ping,
    Release,
    Renew,
    Unpin,
    UpdateSemaphore,
    proof_of,
)
from lessor.core.errors import BadRequest
from lessor.core.results import KeptAlive

from .service import Refused, Service, User

KEY = b"another key, 16 b"[:16]


# --- nodes (here: namespaces) ----------------------------------------------------------------------------------------


def test_coordination_node_lifecycle(anna: User) -> None:
    config = NamespaceConfig(default_ttl_ms=30_000, session_grace_ms=10_000)
    anna.ask(CreateNamespace("jobs", config))
    described = anna.ask(DescribeNamespace("jobs"))
    assert (described.created, described.config, described.claims) == (True, config, 0)
    anna.ask(DropNamespace("jobs", force=False))
    assert not anna.ask(DescribeNamespace("jobs")).created
    with pytest.raises(Refused, match="no_such_namespace"):
        anna.ask(DropNamespace("jobs", force=False))


def test_create_of_an_existing_node_is_refused_and_changes_nothing(anna: User) -> None:
    config = NamespaceConfig(default_ttl_ms=30_000)
    anna.ask(CreateNamespace("jobs", config))
    with pytest.raises(Refused, match="namespace_exists"):
        anna.ask(CreateNamespace("jobs", NamespaceConfig()))
    assert anna.ask(DescribeNamespace("jobs")).config == config


def test_alter_keeps_what_is_not_named(anna: User) -> None:
    anna.ask(CreateNamespace("jobs", NamespaceConfig(default_ttl_ms=30_000, claims_max=5)))
    anna.ask(AlterNamespace("jobs", NamespaceConfig(KEEP, 60_000, KEEP, KEEP, KEEP)))
    described = anna.ask(DescribeNamespace("jobs"))
    assert described.config == NamespaceConfig(default_ttl_ms=30_000, ttl_max_ms=60_000, claims_max=5)
    with pytest.raises(Refused, match="no_such_namespace"):
        anna.ask(AlterNamespace("others", NamespaceConfig()))


def test_drop_fails_while_the_node_is_in_use_and_with_force_it_does_not(service: Service, anna: User) -> None:
    anna.ask(CreateNamespace("jobs", NamespaceConfig()))
    user = service.user(namespace="jobs")
    with pytest.raises(Refused, match="namespace_in_use"):
        anna.ask(DropNamespace("jobs", force=False))
    turn = user.lock("x")
    anna.ask(DropNamespace("jobs", force=True))
    assert turn.gone
    assert [told.why for told in user.told] == ["its namespace was dropped"]


def test_settings_of_a_node_count_for_its_claims_and_for_no_others(service: Service, anna: User) -> None:
    anna.ask(CreateNamespace("jobs", NamespaceConfig(default_ttl_ms=5000, claims_max=2)))
    user = service.user(namespace="jobs")
    by_default, longer = user.lock("x"), user.lock("y", ttl=30)
    with pytest.raises(Refused, match="too_many: there are 2 claims in namespace 'jobs'"):
        user.lock("z")
    plain = anna.lock("x")
    service.wait(5)
    assert (by_default.gone, longer.held, plain.held) == (True, True, True)
    assert user.lock("z").held


def test_settings_of_a_node_are_bounded(anna: User) -> None:
    with pytest.raises(BadRequest, match="session grace is from 0 s to 60 s"):
        anna.ask(CreateNamespace("jobs", NamespaceConfig(session_grace_ms=60_001)))
    with pytest.raises(BadRequest, match="default ttl is longer"):
        anna.ask(CreateNamespace("jobs", NamespaceConfig(default_ttl_ms=2000, ttl_max_ms=1000)))


# --- starting and restoring ------------------------------------------------------------------------------------------


def test_session_numbers_grow_and_are_never_given_twice(service: Service) -> None:
    first, second = service.user(), service.user()
    second.stop()
    third = service.user()
    assert first.session < second.session < third.session


def test_a_session_is_restored_within_its_timeout_with_all_that_it_holds_and_waits_for(
    service: Service, anna: User, ben: User
) -> None:
    mine = ben.lock("mine")
    anna.lock("theirs")
    waiting = ben.lock("theirs")
    service.wait(50)
    anna.ping()
    ben.attach(1)
    assert (mine.held, waiting.waiting) == (True, True)
    service.wait(50)
    assert (mine.held, waiting.waiting) == (True, True), "its timeout counts from the attachment"


def test_an_unknown_session_cannot_be_restored(service: Service, anna: User) -> None:
    service.wait(61)
    with pytest.raises(Refused, match="session_expired"):
        anna.attach(1)


def test_attach_out_of_sequence_is_refused_and_an_equal_number_is_a_repetition(anna: User) -> None:
    first = anna.attach(3)
    with pytest.raises(Refused, match="out_of_sequence"):
        anna.attach(2)
    anna.attached = 3
    again = anna.attach(3)
    assert (again.session, again.attach) == (first.session, first.attach)


def test_session_stealing_takes_the_right_key(anna: User) -> None:
    lock = anna.lock("x")
    with pytest.raises(Refused, match="wrong_key"):
        anna.attach(1, key=KEY)
    assert lock.held
    assert anna.attach(1).attach == 1


def test_whoever_had_a_stolen_session_is_told_so_and_can_do_nothing_more(service: Service, anna: User) -> None:
    lock = anna.lock("x")
    thief = service.user()
    thief.session, thief.key = anna.session, anna.key
    thief.attach(1)
    for operation in (Ping(()), Release(lock.token), CloseSession()):
        with pytest.raises(Refused, match="session_stolen"):
            anna.ask(operation)
    assert service._leases.ask(0, KeepAlive((anna.session, 99, 0, proof_of(anna.key)))) == KeptAlive((1,))
    assert thief.release(lock.token)


def test_timeout_and_description_may_be_changed_on_attachment(service: Service, anna: User) -> None:
    anna.attach(1, timeout=120.0, description="the second life of anna")
    [info] = [info for info in anna.listed("sessions") if info.number == anna.session]
    assert (info.timeout_ms, info.description, info.attach) == (120_000, "the second life of anna", 1)
    service.wait(119)
    assert anna.ping().expires_at_ms > service.state.clock_ms + 119_000


def test_sessions_are_listed_with_what_they_hold_and_wait_for(service: Service, ben: User) -> None:
    user = service.user("worker", description="a worker of the night")
    user.lock("x")
    user.lock("y")
    ben.lock("z")
    user.lock("z")
    [_, info] = user.listed("sessions", "default")
    assert (info.description, info.held, info.waiting, info.timeout_ms) == ("a worker of the night", 2, 1, 60_000)


# --- the end of a session --------------------------------------------------------------------------------------------


def test_session_timeout_after_detach_frees_what_it_held_and_waited_for_in_one_step(
    service: Service, anna: User, ben: User, carl: User
) -> None:
    dead = service.user(timeout=10.0)
    dead.lock("a")
    dead.lock("b")
    carl.lock("c")
    dead.lock("c")
    behind = [ben.lock(name) for name in "abc"]
    service.wait(9.9)
    assert [turn.waiting for turn in behind] == [True] * 3
    service.wait(0.2)
    assert [turn.held for turn in behind] == [True, True, False]
    assert behind[2].ahead == 0
    with pytest.raises(Refused, match="session_expired"):
        dead.ping()


def test_a_session_that_gives_signs_of_life_does_not_time_out(service: Service) -> None:
    user = service.user(timeout=10.0)
    lock = user.lock("x")
    for _ in range(5):
        service.wait(9)
        user.ping()
    assert lock.held


def test_signs_of_life_of_many_sessions_travel_in_one_command(service: Service) -> None:
    users = [service.user(timeout=10.0) for _ in range(3)]
    users[2].stop()
    service.wait(8)
    pings = [number for user in users for number in (user.session, user.number(), 0, proof_of(user.key))]
    kept = service._leases.ask(0, KeepAlive(tuple(pings)))
    assert isinstance(kept, KeptAlive)
    assert [bool(at) for at in kept.expires_at_ms] == [True, True, False]
    service.wait(8)
    assert users[0].ping().expires_at_ms > service.state.clock_ms
    with pytest.raises(Refused, match="session_expired"):
        users[2].ping()


def test_session_timeout_after_reboot_gets_the_grace_of_its_namespace(service: Service, anna: User) -> None:
    """In a namespace with a grace, whoever takes over lets each session live its whole timeout and so much longer."""
    anna.ask(CreateNamespace("jobs", NamespaceConfig(session_grace_ms=10_000)))
    user = service.user(namespace="jobs", timeout=60.0)
    lock = user.lock("x")
    service.wait(50)
    service._leases.lead()
    service.wait(60)
    assert lock.held
    service._leases.lead()
    service.wait(69)
    assert user.holder("x")
    if service.way == "plain":
        service.wait(2)
        assert not user.owners("x")


def test_without_a_grace_a_change_of_leader_costs_a_session_nothing_and_gives_it_nothing(service: Service) -> None:
    """The lease clock stands still while nobody leads, so no grace is needed for what an election takes."""
    user = service.user(timeout=60.0)
    user.lock("x")
    service.wait(30)
    service._leases.lead()
    service.wait(29)
    assert user.owners("x")
    service.wait(1)
    assert not user.owners("x")


def test_session_destroy_releases_everything_at_once(anna: User, ben: User) -> None:
    anna.lock("x")
    anna.lock("y", ttl=30)
    ben.lock("z")
    anna.lock("z")
    behind = [ben.lock("x"), ben.lock("y")]
    assert anna.stop() == 2
    assert all(turn.held for turn in behind)
    assert [waiter.holder for waiter in ben.waiters("z")] == []


@pytest.mark.parametrize(
    "operation",
    [
        Release(1),
        Renew(1, 0),
        Cancel(1),
        Amend(1),
        Adopt(1),
        Break(1, "no reason"),
        CreateSemaphore("default", ("s",), 1, b""),
        UpdateSemaphore("default", ("x",), b""),
        DeleteSemaphore("default", ("x",), force=True),
        Pin("default", ("x",), "entity"),
        Unpin("default", ("x",), "entity"),
        CreateNamespace("jobs", NamespaceConfig()),
        Ping(()),
        CloseSession(),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_semaphore_session_failures_every_operation_of_a_dead_session_fails(
    service: Service, anna: User, ben: User, operation: Operation
) -> None:
    anna.stop()
    held = ben.lock("x")
    with pytest.raises(Refused, match="session_expired"):
        anna.ask(operation)
    assert held.held
    assert service.leftovers == 1


def test_attach_timeout_too_big_is_refused_with_the_limit(anna: User) -> None:
    with pytest.raises(BadRequest, match=r"a session timeout is from 0\.5 s to 1800 s"):
        anna.attach(1, timeout=1801.0)


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (OpenSession(bytes(16), 499, ""), "from 0.5 s"),
        (OpenSession(bytes(15), 10_000, ""), "16 bytes, not 15"),
        (OpenSession(bytes(16), 10_000, "d" * (limits.DESCRIPTION_BYTES_MAX + 1)), "1024 bytes"),
        (OpenSession(bytes(16), 10_000, "", "n" * (limits.NAMESPACE_BYTES_MAX + 1)), "255 bytes"),
    ],
)
def test_what_is_wrong_with_a_session_is_refused_with_the_limit(
    service: Service, operation: Operation, text: str
) -> None:
    with pytest.raises(BadRequest, match=text):
        service.ask(0, operation)
    assert service.state.sessions == 0
