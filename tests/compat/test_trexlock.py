"""What a user of TrexLock expects of a lock, each also after a restart of all nodes and after a change of leader."""

from lessor.core.commands import (
    ANY_VERSION,
    CreateNamespace,
    NamespaceConfig,
    PutRegister,
    Release,
    Renew,
)
from lessor.core.results import ClaimStatus, Denied, NotHeld, Released, Renewed, VersionDiffers

from .service import Service, User


def test_should_acquire_a_free_lock_with_a_stamp_and_an_expiry(anna: User) -> None:
    lock = anna.lock("job", ttl=30)
    assert lock.token > 0
    [entry] = anna.owners("job")
    assert (entry.holder, entry.token, entry.ttl_ms) == ("anna", lock.token, 30_000)
    assert entry.expires_at_ms - entry.since_ms == 30_000


def test_try_lock_is_empty_while_somebody_else_holds_it_unexpired(service: Service, anna: User, ben: User) -> None:
    held = anna.lock("job", ttl=30, detached=True)
    service.wait(29)
    assert ben.try_lock("job", ttl=30) is None
    assert [claim.token for claim in ben.describe("job").claims] == [held.token], "who only tries stands in no queue"
    assert held.held


def test_one_of_ten_that_try_at_the_same_time_has_the_lock(service: Service) -> None:
    users = [service.user() for _ in range(10)]
    answers = service.at_once(*[(user, user.claim("job", ttl=30)) for user in users])
    assert [type(answer) for answer in answers] == [ClaimStatus] + [Denied] * 9
    assert users[0].holder("job") == users[0].name


def test_should_release_the_lock_and_say_whether_that_did_anything(anna: User, ben: User) -> None:
    lock = anna.lock("job", ttl=30)
    assert lock.release()
    assert not anna.owners("job")
    assert not lock.release(), "it was released already"
    assert ben.try_lock("job", ttl=30) is not None


def test_should_handle_invalid_lock_release(service: Service, anna: User, ben: User) -> None:
    """An unknown stamp, a stamp of the past, and one to come: nothing happens."""
    first = anna.lock("job", ttl=30)
    first.release()
    second = anna.lock("job", ttl=30)
    for token in (0, first.token, second.token + 1, 2**62):
        assert not ben.release(token)
    assert second.held


def test_any_process_that_has_the_stamp_may_release(anna: User, ben: User) -> None:
    lock = anna.lock("job", ttl=30, detached=True)
    anna.stop()
    assert ben.holder("job") == "anna"
    assert ben.release(lock.token)
    assert not ben.owners("job")


def test_an_expired_lock_is_acquired_again_with_a_higher_stamp(service: Service, anna: User, ben: User) -> None:
    old = anna.lock("job", ttl=30, detached=True)
    service.wait(29.5)
    assert ben.try_lock("job", ttl=30) is None
    service.wait(0.5)
    new = ben.lock("job", ttl=30)
    assert new.token > old.token


def test_a_stale_holder_cannot_release_the_next_holders_lock(service: Service, anna: User, ben: User) -> None:
    old = anna.lock("job", ttl=30)
    service.wait(31)
    new = ben.lock("job", ttl=30)
    assert not anna.release(old.token)
    assert not anna.renew(old.token)
    assert new.held


def test_the_entry_is_readable_after_its_expiry_until_the_lock_is_acquired_again(
    service: Service, anna: User, ben: User
) -> None:
    lock = anna.lock("job", ttl=30, detached=True)
    service.wait(30)
    page = ben.describe("job")
    assert not page.claims
    [entry] = page.about[0].lapsed
    assert (entry.holder, entry.token, entry.why) == ("anna", lock.token, "expired")
    assert 30_000 <= entry.ended_at_ms - entry.since_ms < 30_100
    ben.lock("job", ttl=30)
    assert not ben.describe("job").about[0].lapsed


def test_the_entry_of_an_expired_lock_is_swept_in_the_end(service: Service, anna: User) -> None:
    anna.lock("job", ttl=1, detached=True)
    service.wait(1)
    assert service.leftovers == 1
    service.wait(61)
    assert service.leftovers == 0


def test_stamps_grow_over_all_locks_releases_and_expiries(service: Service, anna: User) -> None:
    tokens = [anna.lock("a", ttl=1, detached=True).token, anna.lock("b", ttl=30).token]
    anna.release(tokens[1])
    service.wait(2)
    tokens += [anna.lock("b", ttl=30).token, anna.lock("a", ttl=30).token]
    assert tokens == sorted(set(tokens))


def test_the_stamp_is_given_by_the_log_so_a_repeated_request_has_the_same_one(anna: User, ben: User) -> None:
    """TrexLock re-sends a command under the same id without looking whether it was carried out; here it is once."""
    number = anna.number()
    first = anna.ask(anna.claim("job", ttl=30), number)
    assert isinstance(first, ClaimStatus)
    assert anna.ask(anna.claim("job", ttl=30), number) == first
    late = anna.number()
    assert anna.ask(Release(first.token), late) == Released()
    new = ben.lock("job", ttl=30)
    assert anna.ask(Release(first.token), late) == Released(), "the answer of then"
    assert new.held


def test_a_lock_can_be_renewed(service: Service, anna: User) -> None:
    """TrexLock means to (its rule of the same stamp), but cannot: each acquisition has a stamp of its own there."""
    lock = anna.lock("job", ttl=30)
    service.wait(20)
    assert lock.renew()
    service.wait(20)
    assert lock.held
    assert lock.token == lock.status().token
    service.wait(11)
    assert lock.gone


def test_who_expires_is_decided_by_the_log_and_not_by_the_clock_of_a_node(service: Service, anna: User) -> None:
    """A try and an expiry at the same moment come out alike on every node: `Service.check` replays the log on another.

    TrexLock reads the wall clock while it applies, so two replicas may decide differently.
    """
    anna.lock("job", ttl=30, detached=True)
    other = service.user("other")
    service.wait(29)
    left = anna.owners("job")[0].expires_at_ms - service.state.clock_ms
    assert 0 < left <= 1000
    service.wait(left / 1000)
    assert other.try_lock("job", ttl=30) is not None


def test_two_locks_that_expire_in_the_same_millisecond_both_do_and_touch_no_later_holder(
    service: Service, anna: User, ben: User
) -> None:
    """TrexLock keys its expiries by the millisecond alone, and sweeps by name: a later holder's lock may vanish."""
    service.at_once((anna, anna.claim("a", ttl=30)), (anna, anna.claim("b", ttl=30)))
    released = anna.owners("a")[0].token
    anna.release(released)
    later = ben.lock("a", ttl=120)
    service.wait(31)
    assert not ben.owners("b")
    assert later.held


def test_a_safety_gap_keeps_the_name_closed_after_an_expiry(service: Service, anna: User) -> None:
    """TrexLock is given a gap and does not use it; here it is the namespace's lock-delay."""
    anna.ask(CreateNamespace("gap", NamespaceConfig(lock_delay_ms=10_000)))
    holder, other = service.user("holder", namespace="gap"), service.user("other", namespace="gap")
    holder.lock("job", ttl=30, detached=True)
    service.wait(31)
    assert not other.owners("job")
    assert other.try_lock("job", ttl=30) is None
    waiter = other.lock("job", ttl=30)
    service.wait(10)
    assert waiter.held
    assert waiter.release()
    assert other.try_lock("job", ttl=30) is not None, "a clean release closes nothing"


def test_a_lock_is_no_lock_on_the_thing_but_its_stamp_can_guard_it(service: Service, anna: User, ben: User) -> None:
    """Whoever lost the lock cannot write what it guards: the fenced register refuses his stamp."""
    old = anna.lock("job", ttl=30)
    first = anna.ask(PutRegister("default", ("job",), old.token, ANY_VERSION, b"anna was here")).version
    service.wait(31)
    new = ben.lock("job", ttl=30)
    assert anna.ask(PutRegister("default", ("job",), old.token, ANY_VERSION, b"anna again")) == NotHeld()
    for version in (0, first + 1):
        assert ben.ask(PutRegister("default", ("job",), new.token, version, b"on a guess")) == VersionDiffers(first)
    written = ben.ask(PutRegister("default", ("job",), new.token, first, b"ben now"))
    assert (written.version > first, written.token) == (True, new.token)


def test_renewing_by_another_process_with_the_stamp_works_too(service: Service, anna: User, ben: User) -> None:
    lock = anna.lock("job", ttl=30, detached=True)
    anna.stop()
    service.wait(20)
    assert isinstance(ben.ask(Renew(lock.token, 0)), Renewed)
    service.wait(20)
    assert ben.holder("job") == "anna"
