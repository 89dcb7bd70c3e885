"""What a user of Juju's leases expects: claim, extend, revoke and check by the holder's name; waits, pins, listings."""

from collections.abc import Generator
from typing import Any

import pytest

from lessor.client import holders
from lessor.client.errors import ServiceBusy
from lessor.client.holders import ClaimDenied, Held
from lessor.client.refusals import NotHeldError
from lessor.core.commands import (
    ANY_VERSION,
    KEEP,
    AlterNamespace,
    Command,
    CreateNamespace,
    HeldBy,
    NamespaceConfig,
    Operation,
    Pin,
    PutRegister,
    Transact,
    Unpin,
)
from lessor.core.errors import BadRequest
from lessor.core.results import ClaimPhase, Declined, Done, Transacted

from .service import Refused, Service, User

HOUR = 3_600_000


@pytest.fixture
def juju(service: Service) -> User:
    """Whoever carries out what is asked for in the name of holders."""
    return service.user("juju", timeout=1800.0)


def claim(user: User, name: str, holder: str, seconds: float, namespace: str = "default") -> Held:
    return user.run(holders.claim(namespace, (name,), holder, round(seconds * 1000)))


def extend(user: User, name: str, holder: str, seconds: float) -> Held:
    return user.run(holders.extend("default", (name,), holder, round(seconds * 1000)))


def revoke(user: User, name: str, holder: str) -> bool:
    return user.run(holders.revoke("default", (name,), holder))


def left(user: User, name: str) -> float:
    left_ms = user.owners(name)[0].expires_at_ms - user.service.state.clock_ms
    return left_ms / 1000


def pin(user: User, name: str, entity: str) -> bool:
    done: Done = user.ask(Pin("default", (name,), entity))
    return done.changed


def unpin(user: User, name: str, entity: str) -> bool:
    done: Done = user.ask(Unpin("default", (name,), entity))
    return done.changed


# --- claim -----------------------------------------------------------------------------------------------------------


def test_claim_lease_holds_for_the_duration_from_the_start_of_the_call(service: Service, juju: User) -> None:
    before = service.state.clock_ms
    held = claim(juju, "redis", "redis/0", 60)
    assert held.expires_at_ms >= before + 60_000
    service.wait(59)
    assert juju.holder("redis") == "redis/0"
    service.wait(1.1)
    assert not juju.owners("redis")


def test_cannot_claim_lease_twice_in_two_names(juju: User) -> None:
    claim(juju, "redis", "redis/0", 60)
    with pytest.raises(ClaimDenied) as caught:
        claim(juju, "redis", "redis/1", 60)
    assert caught.value.holder == "redis/0"
    assert juju.holder("redis") == "redis/0"


def test_claim_by_the_holder_extends_his_lease_and_keeps_its_token(service: Service, juju: User) -> None:
    first = claim(juju, "redis", "redis/0", 60)
    service.wait(50)
    again = claim(juju, "redis", "redis/0", 60)
    assert again.token == first.token
    assert left(juju, "redis") > 59


def test_claim_by_the_holder_never_shortens_his_lease(juju: User) -> None:
    claim(juju, "redis", "redis/0", 60)
    claim(juju, "redis", "redis/0", 5)
    assert left(juju, "redis") > 59


def test_claim_multiple_leases_of_one_holder(juju: User) -> None:
    for name in ("redis", "store", "mongo"):
        claim(juju, name, f"{name}/0", 60)
    assert [info.holder for info in juju.leases()] == ["redis/0", "store/0", "mongo/0"]


def test_claim_notices_early_expiry(service: Service, juju: User) -> None:
    """A lease that has ended is claimed at once, whoever had it: nobody must expire it first."""
    old = claim(juju, "redis", "redis/0", 10)
    service.wait(10)
    assert claim(juju, "redis", "redis/1", 10).token > old.token


def test_claims_across_namespaces_are_isolated(service: Service, juju: User) -> None:
    claim(juju, "redis", "redis/0", 60, "model-a")
    claim(juju, "redis", "redis/1", 60, "model-b")
    for namespace, holder in (("model-a", "redis/0"), ("model-b", "redis/1")):
        assert juju.run(holders.check(namespace, ("redis",), holder)).holder == holder
        with pytest.raises(NotHeldError):
            juju.run(holders.check("default", ("redis",), holder))


class Interrupted:
    """Another client acts between two operations of a composed one, as Juju's transaction hooks do."""

    def __init__(self, user: User, steps: Generator[Operation, Any, Any]) -> None:
        self.user = user
        self.steps = steps
        self.operation = next(steps)

    def step(self) -> None:
        self.operation = self.steps.send(self.user.ask(self.operation))

    def end(self) -> Any:
        try:
            while True:
                self.step()
        except StopIteration as end:
            return end.value


def test_claim_lease_blocked_by_claim_lease_of_another(juju: User, service: Service) -> None:
    one = Interrupted(juju, holders.claim("default", ("redis",), "redis/0", 60_000))
    one.step()
    claim(service.user(), "redis", "redis/1", 60)
    with pytest.raises(ClaimDenied, match="redis/1"):
        one.end()


def test_claim_lease_raced_by_the_same_holder_extends(juju: User, service: Service) -> None:
    one = Interrupted(juju, holders.claim("default", ("redis",), "redis/0", 60_000))
    one.step()
    other = claim(service.user(), "redis", "redis/0", 60)
    assert one.end().token == other.token


def test_claim_lease_that_expires_while_it_is_extended_is_claimed_anew(juju: User, service: Service) -> None:
    old = claim(juju, "redis", "redis/0", 1)
    one = Interrupted(juju, holders.claim("default", ("redis",), "redis/0", 60_000))
    one.step()
    service.wait(2)
    assert one.end().token > old.token


def test_a_name_that_is_a_part_of_what_the_holder_has_is_denied_and_not_tried_for_ever(juju: User) -> None:
    juju.lock(("models",), holder="redis/0")
    with pytest.raises(ClaimDenied, match="redis/0"):
        juju.run(holders.claim("default", ("models", "redis"), "redis/0", 60_000))


def test_a_name_of_which_somebody_has_a_part_is_denied_without_a_holder(juju: User) -> None:
    juju.lock(("models", "redis"), holder="redis/0")
    with pytest.raises(ClaimDenied, match="it is not free") as caught:
        juju.run(holders.claim("default", ("models",), "redis/0", 60_000))
    assert caught.value.holder == ""


# --- extend ----------------------------------------------------------------------------------------------------------


def test_extend_lease_goes_to_the_duration_and_not_by_it(service: Service, juju: User) -> None:
    claim(juju, "redis", "redis/0", 60)
    service.wait(30)
    extend(juju, "redis", "redis/0", 40)
    assert 39 < left(juju, "redis") <= 40


def test_extend_lease_cannot_shorten_lease(juju: User) -> None:
    """Juju's SQL store of today sets the expiry whatever it was, though its interface says otherwise."""
    first = claim(juju, "redis", "redis/0", 60)
    assert extend(juju, "redis", "redis/0", 30).expires_at_ms == first.expires_at_ms


def test_cannot_extend_unheld_lease_nor_that_of_another(juju: User) -> None:
    with pytest.raises(NotHeldError):
        extend(juju, "redis", "redis/0", 60)
    claim(juju, "redis", "redis/1", 60)
    with pytest.raises(NotHeldError):
        extend(juju, "redis", "redis/0", 60)
    assert juju.holder("redis") == "redis/1"


def test_a_stale_lease_can_be_extended_only_while_it_is_pinned(service: Service, juju: User) -> None:
    """What is overdue here is gone at once, so what Juju calls stale is there for as long as a pin keeps it."""
    pin(juju, "redis", "machine-1")
    held = claim(juju, "redis", "redis/0", 10)
    service.wait(15)
    assert left(juju, "redis") < 0
    assert extend(juju, "redis", "redis/0", 60).token == held.token
    unpin(juju, "redis", "machine-1")
    service.wait(59)
    assert juju.holder("redis") == "redis/0"
    service.wait(2)
    with pytest.raises(NotHeldError):
        extend(juju, "redis", "redis/0", 60)


def test_extend_lease_works_despite_a_concurrent_extension(juju: User, service: Service) -> None:
    claim(juju, "redis", "redis/0", 10)
    one = Interrupted(juju, holders.extend("default", ("redis",), "redis/0", 30_000))
    one.step()
    longer = extend(service.user(), "redis", "redis/0", 60)
    assert one.end() == longer


def test_extend_lease_works_despite_an_expire_and_reclaim_by_the_same_holder(juju: User, service: Service) -> None:
    claim(juju, "redis", "redis/0", 1)
    one = Interrupted(juju, holders.extend("default", ("redis",), "redis/0", 60_000))
    one.step()
    service.wait(1)
    anew = claim(juju, "redis", "redis/0", 1)
    assert one.end().token == anew.token


def test_extend_lease_blocked_by_expire_then_reclaim_by_a_different_holder(juju: User, service: Service) -> None:
    claim(juju, "redis", "redis/0", 1)
    one = Interrupted(juju, holders.extend("default", ("redis",), "redis/0", 60_000))
    one.step()
    service.wait(1)
    claim(juju, "redis", "redis/1", 1)
    with pytest.raises(NotHeldError):
        one.end()
    assert left(juju, "redis") <= 1, "the lease of the other was not touched"


def test_extend_lease_of_a_pathological_state_gives_up_and_says_so(juju: User) -> None:
    claim(juju, "redis", "redis/0", 60)
    one = Interrupted(juju, holders.extend("default", ("redis",), "redis/0", 60_000))

    def never_ends() -> None:
        while True:
            one.step()
            revoke(juju, "redis", "redis/0")
            claim(juju, "redis", "redis/0", 60)
            one.step()

    with pytest.raises(ServiceBusy, match="changes too quickly"):
        never_ends()


# --- expire and revoke -----------------------------------------------------------------------------------------------


def test_cannot_expire_lease_before_expiry(service: Service, juju: User) -> None:
    """P4: nobody can, as there is no such call; what lapses is decided by the lease clock alone."""
    claim(juju, "redis", "redis/0", 10)
    extend(juju, "redis", "redis/0", 60)
    service.wait(59)
    assert juju.holder("redis") == "redis/0", "the deadline of before ended nothing"


def test_leases_expire_by_themselves_each_in_its_time(service: Service, juju: User) -> None:
    for seconds in (30, 10, 20):
        claim(juju, f"for-{seconds}", "x/0", seconds)
    found = []
    for _ in range(4):
        found.append([info.path[0] for info in juju.leases()])
        service.wait(10)
    assert found == [["for-30", "for-10", "for-20"], ["for-30", "for-20"], ["for-30"], []]


def test_revoke_lease_ends_it_at_once(juju: User) -> None:
    claim(juju, "redis", "redis/0", 60)
    assert revoke(juju, "redis", "redis/0")
    assert claim(juju, "redis", "redis/1", 60).token


def test_revoke_of_an_absent_lease_is_fine_and_of_anothers_is_not(juju: User) -> None:
    assert not revoke(juju, "redis", "redis/0")
    claim(juju, "redis", "redis/1", 60)
    with pytest.raises(NotHeldError, match="redis/1"):
        revoke(juju, "redis", "redis/0")
    assert juju.holder("redis") == "redis/1"


def test_revoke_cannot_touch_a_lease_that_was_claimed_meanwhile(juju: User, service: Service) -> None:
    claim(juju, "redis", "redis/0", 1)
    one = Interrupted(juju, holders.revoke("default", ("redis",), "redis/0"))
    one.step()
    service.wait(1)
    claim(juju, "redis", "redis/1", 60)
    with pytest.raises(NotHeldError):
        one.end()
    assert juju.holder("redis") == "redis/1"


def test_a_pinned_lease_can_be_revoked(juju: User) -> None:
    """In Juju's SQL store of today this breaks a foreign key, and the manager with it."""
    pin(juju, "redis", "machine-1")
    claim(juju, "redis", "redis/0", 60)
    assert revoke(juju, "redis", "redis/0")
    assert not juju.owners("redis")


# --- waiting until it is free ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["expiry", "revoke"])
def test_wait_until_expired_ends_when_the_lease_does(service: Service, juju: User, end: str) -> None:
    claim(juju, "redis", "redis/0", 30)
    waits = [service.user().wait_until_free("redis") for _ in range(3)]
    assert all(wait.waiting for wait in waits)
    if end == "expiry":
        service.wait(30)
    else:
        revoke(juju, "redis", "redis/0")
    assert all(wait.gone for wait in waits), "all wake together: nobody of them stands in line"
    [told] = waits[0].user.told
    assert (told.claim, told.phase, told.why) == (waits[0].number, ClaimPhase.GONE, "it is free")
    assert not juju.owners("redis")


def test_wait_until_expired_of_an_unheld_lease_ends_at_once(juju: User) -> None:
    """Juju's first rule; the later one, never at once, was made against loops on a stale replica."""
    wait = juju.wait_until_free("redis")
    assert wait.number == 0
    assert juju.service.leftovers == 0


def test_wait_until_expired_is_not_woken_by_an_extension(service: Service, juju: User) -> None:
    claim(juju, "redis", "redis/0", 30)
    wait = service.user().wait_until_free("redis")
    service.wait(20)
    extend(juju, "redis", "redis/0", 30)
    service.wait(20)
    assert wait.waiting
    service.wait(11)
    assert wait.gone


def test_wait_until_expired_is_woken_though_the_lease_is_claimed_again_in_the_same_moment(
    service: Service, juju: User, anna: User, ben: User
) -> None:
    """No lost wake-up: in Juju a lease that changes hands between two ticks wakes nobody."""
    held = anna.lock("redis", ttl=30, detached=True)
    next_one = ben.lock("redis", ttl=30)
    wait = juju.wait_until_free("redis")
    held.release()
    assert next_one.held
    assert wait.gone
    assert [told.why for told in juju.told] == ["it is free"]


def test_wait_until_expired_waits_for_what_overlaps_above_and_below(service: Service, anna: User, ben: User) -> None:
    above, below = anna.lock(("models",)), ben.lock(("units", "redis", "0"))
    waits = [service.user().wait_until_free(name) for name in (("models", "redis"), ("units", "redis"))]
    beside = service.user().wait_until_free(("units", "store"))
    assert [wait.waiting for wait in waits] == [True, True]
    assert beside.number == 0
    above.release()
    assert [wait.waiting for wait in waits] == [False, True]
    below.release()
    assert not waits[1].waiting


def test_cancel_wait_leaves_nothing_behind(juju: User, service: Service) -> None:
    claim(juju, "redis", "redis/0", 30)
    wait = service.user().wait_until_free("redis")
    rows = service.leftovers
    assert wait.cancel() == ClaimPhase.WAITING
    assert service.leftovers == rows - 1
    brief = juju.wait_until_free("redis", wait=5)
    service.wait(6)
    assert brief.gone
    assert juju.holder("redis") == "redis/0"


def test_waits_across_namespaces_are_isolated(service: Service, juju: User) -> None:
    claim(juju, "redis", "redis/0", 30, "model-a")
    other = service.user(namespace="model-b")
    assert other.wait_until_free("redis").number == 0


# --- check -----------------------------------------------------------------------------------------------------------


def test_token_check_succeeds_for_the_holder_alone(service: Service, juju: User) -> None:
    token = holders.Token("default", ("redis",), "redis/0")
    with pytest.raises(NotHeldError):
        juju.run(token.check())
    held = claim(juju, "redis", "redis/0", 60)
    assert juju.run(token.check()).token == held.token
    with pytest.raises(NotHeldError):
        juju.run(holders.Token("default", ("redis",), "redis/1").check())
    service.wait(60)
    with pytest.raises(NotHeldError):
        juju.run(token.check())


def test_a_check_does_not_take_who_waits_or_holds_a_part_for_the_holder(juju: User, anna: User, ben: User) -> None:
    anna.lock(("redis",))
    ben.lock(("redis",))
    anna.lock(("store", "part"))
    for name, holder in (("redis", "ben"), ("store", "anna")):
        with pytest.raises(NotHeldError):
            juju.run(holders.check("default", (name,), holder))


# --- leadership ------------------------------------------------------------------------------------------------------


def test_a_tracker_that_claims_for_twice_the_duration_is_always_leader_for_one_more(
    service: Service, juju: User
) -> None:
    """A true ticket is good for a duration without another call; whoever is denied waits for its release."""
    claim(juju, "redis", "redis/0", 60)
    for _ in range(4):
        service.wait(30)
        assert left(juju, "redis") > 29
        claim(juju, "redis", "redis/0", 60)
    with pytest.raises(ClaimDenied):
        claim(juju, "redis", "redis/1", 60)
    minion = service.user(timeout=1800.0).wait_until_free("redis")
    service.wait(30)
    assert minion.waiting
    service.wait(31)
    assert minion.gone
    assert claim(juju, "redis", "redis/1", 60).token


# --- the trapdoor ----------------------------------------------------------------------------------------------------


def gated(user: User, holder: str, token: int, data: bytes) -> Any:
    write = PutRegister("default", ("note",), token, ANY_VERSION, data)
    return user.ask(Transact((HeldBy("default", ("redis",), holder),), (write,)))


def test_a_transaction_passes_when_the_lease_is_still_held_despite_an_extension(service: Service, juju: User) -> None:
    note = juju.lock("note")
    claim(juju, "redis", "redis/0", 30)
    service.wait(20)
    extend(service.user(), "redis", "redis/0", 30)
    service.wait(20)
    assert isinstance(gated(juju, "redis/0", note.token, b"leader was here"), Transacted)
    assert service.state.registers.get("default", ("note",)).data == b"leader was here"


def test_a_transaction_aborts_when_the_lease_is_vacant_or_anothers(service: Service, juju: User) -> None:
    note = juju.lock("note")
    claim(juju, "redis", "redis/0", 30)
    service.wait(30)
    assert isinstance(gated(juju, "redis/0", note.token, b"too late"), Declined)
    claim(juju, "redis", "redis/1", 30)
    assert isinstance(gated(juju, "redis/0", note.token, b"too late"), Declined)
    assert service.state.registers.version("default", ("note",)) == 0


# --- pins ------------------------------------------------------------------------------------------------------------


def test_pin_unpin_keeps_a_lease_beyond_its_time_and_then_lets_it_go(service: Service, juju: User) -> None:
    claim(juju, "redis", "redis/0", 30)
    assert pin(juju, "redis", "machine-1")
    service.wait(600)
    assert juju.holder("redis") == "redis/0"
    assert unpin(juju, "redis", "machine-1")
    assert not juju.owners("redis"), "it was overdue: it goes at once"


def test_unpin_of_one_entity_leaves_the_pins_of_the_others(service: Service, juju: User) -> None:
    claim(juju, "redis", "redis/0", 30)
    pin(juju, "redis", "machine-1")
    pin(juju, "redis", "machine-2")
    assert not pin(juju, "redis", "machine-2"), "idempotent"
    service.wait(60)
    assert unpin(juju, "redis", "machine-1")
    assert not unpin(juju, "redis", "machine-1")
    service.wait(60)
    assert juju.holder("redis") == "redis/0"
    unpin(juju, "redis", "machine-2")
    assert not juju.owners("redis")


def test_a_pin_survives_a_change_of_holder(service: Service, juju: User) -> None:
    pin(juju, "redis", "machine-1")
    claim(juju, "redis", "redis/0", 30)
    revoke(juju, "redis", "redis/0")
    claim(juju, "redis", "redis/1", 30)
    service.wait(60)
    assert juju.holder("redis") == "redis/1"


def test_a_pin_on_an_absent_lease_waits_for_the_next_claimant(service: Service, juju: User) -> None:
    """In Juju's SQL store of today it is silently lost."""
    assert pin(juju, "redis", "machine-1")
    service.wait(600)
    claim(juju, "redis", "redis/0", 30)
    service.wait(60)
    assert juju.holder("redis") == "redis/0"
    unpin(juju, "redis", "machine-1")
    assert service.leftovers == 1, "the lapsed lease, for those who want to read it"


def test_unpin_of_a_lease_that_is_not_due_lets_it_live_its_time(service: Service, juju: User) -> None:
    claim(juju, "redis", "redis/0", 60)
    pin(juju, "redis", "machine-1")
    service.wait(30)
    unpin(juju, "redis", "machine-1")
    service.wait(29)
    assert juju.holder("redis") == "redis/0"
    service.wait(2)
    assert not juju.owners("redis")


def test_pinned_lists_every_pin_and_who_pins(juju: User) -> None:
    for name, entity in (("redis", "machine-1"), ("redis", "machine-2"), ("store", "machine-1")):
        pin(juju, name, entity)
    listed = [(info.path, info.entities) for info in juju.listed("pins", "default")]
    assert listed == [(("redis",), ("machine-1", "machine-2")), (("store",), ("machine-1",))]
    assert juju.describe("redis").about[0].pins == ("machine-1", "machine-2")


# --- listings --------------------------------------------------------------------------------------------------------


def test_leases_are_listed_by_name_by_group_and_all(juju: User) -> None:
    for namespace, name in (("model-a", "redis"), ("model-a", "store"), ("model-b", "redis")):
        claim(juju, name, f"{name}/0", 60, namespace)
    assert [info.path[0] for info in juju.leases("model-a")] == ["redis", "store"]
    assert len(juju.leases("")) == 3
    [one] = juju.describe("redis", namespace="model-b").claims
    assert (one.namespace, one.holder) == ("model-b", "redis/0")


# --- validation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "holder", "ttl_ms", "text"),
    [
        ("", "redis/0", 60_000, "a name must not be empty"),
        ("re\ndis", "redis/0", 60_000, "a name must be printable"),
        ("redis", "", 60_000, "a holder's name must not be empty"),
        ("redis", "redis\t0", 60_000, "a holder's name must be printable"),
        ("redis", "redis/0", 99, "a ttl is from 0.1 s"),
        ("redis", "redis/0", 8 * 24 * HOUR, "a ttl is from 0.1 s to 604800 s"),
        ("redis", "redis/0", 0, "a detached claim needs a ttl"),
        ("r" * 1025, "redis/0", 60_000, "a name may have 1024 bytes"),
        ("redis", "r" * 256, 60_000, "a holder's name may have 255 bytes"),
    ],
)
def test_what_is_wrong_in_itself_is_refused_with_the_limit_and_changes_nothing(
    service: Service, juju: User, name: str, holder: str, ttl_ms: int, text: str
) -> None:
    with pytest.raises(BadRequest, match=text):
        juju.run(holders.claim("default", (name,), holder, ttl_ms))
    assert service.leftovers == 0


def test_durations_can_be_bounded_for_a_namespace(service: Service, juju: User) -> None:
    """Juju's leadership facade takes 5 s to 5 minutes; here a namespace says what is too long."""
    juju.ask(CreateNamespace("leadership", NamespaceConfig(ttl_max_ms=300_000)))
    with pytest.raises(Refused, match=r"ttl_too_long.* 300 s, not 301 s"):
        claim(juju, "redis", "redis/0", 301, "leadership")
    held = claim(juju, "redis", "redis/0", 300, "leadership")
    juju.ask(AlterNamespace("leadership", NamespaceConfig(KEEP, 60_000, KEEP, KEEP, KEEP)))
    with pytest.raises(Refused, match="ttl_too_long"):
        juju.renew(held.token, 61)


def test_an_unknown_namespace_is_refused_where_the_service_is_strict(service: Service, juju: User) -> None:
    """Juju knows two namespaces, and a claim in a third one succeeds for everybody in its store of today."""
    operation = juju.claim("redis", ttl=60)
    command = Command(1, juju.session, juju.number(), 0, operation, strict=True)
    [refused] = service._leases.batch(command)
    assert refused.code == "no_such_namespace"  # type: ignore[union-attr]
    juju.ask(CreateNamespace("default", NamespaceConfig()))
    [granted] = service._leases.batch(Command(1, juju.session, juju.number(), 0, operation, strict=True))
    assert granted.phase == ClaimPhase.HELD  # type: ignore[union-attr]
