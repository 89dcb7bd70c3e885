"""What a user of YDB's coordination nodes expects of semaphores, restarted and led anew at every step."""

from typing import Any

import pytest

from lessor.client.wants import read, units, write
from lessor.core.commands import CreateSemaphore, DeleteSemaphore, UpdateSemaphore
from lessor.core.errors import BadRequest
from lessor.core.resources import Resource
from lessor.core.results import ClaimPhase, Done

from .service import Refused, Service, Turn, User

S = "default", ("sem",)


def create(user: User, limit: int, data: bytes = b"") -> None:
    user.ask(CreateSemaphore(*S, limit, data))


def acquire(user: User, count: int, **how: Any) -> Turn:
    return user.lock(units("sem", count), **how)


def try_acquire(user: User, count: int) -> Turn | None:
    return user.try_lock(units("sem", count))


def exclusive(name: str = "sem") -> Resource:
    return write(name)


def shared(name: str = "sem") -> Resource:
    return read(name)


# --- create, update, delete ------------------------------------------------------------------------------------------


def test_create_semaphore_with_a_limit_and_data(anna: User) -> None:
    create(anna, 5, b"what it is for")
    about = anna.describe("sem").about[0]
    assert (about.limit, about.data, about.units, about.ephemeral) == (5, b"what it is for", 0, False)
    [info] = anna.listed("semaphores", "default")
    assert (info.path, info.limit, info.units, info.waiting) == (("sem",), 5, 0, 0)


def test_create_semaphore_again_is_refused_and_changes_neither_data_nor_limit(anna: User, ben: User) -> None:
    create(anna, 5, b"first")
    with pytest.raises(Refused, match="semaphore_exists"):
        create(ben, 7, b"second")
    about = anna.describe("sem").about[0]
    assert (about.limit, about.data) == (5, b"first")


def test_create_semaphore_where_an_ephemeral_one_stands_is_refused(anna: User) -> None:
    anna.lock(units("sem", 1, limit=3))
    with pytest.raises(Refused, match="semaphore_in_use"):
        create(anna, 3)


def test_semaphore_data_can_be_replaced_by_anyone(anna: User, ben: User) -> None:
    create(anna, 1, b"old")
    assert ben.ask(UpdateSemaphore(*S, b"new")) == Done(changed=True)
    assert ben.ask(UpdateSemaphore(*S, b"new")) == Done(changed=False)
    about = anna.describe("sem").about[0]
    assert (about.data, about.limit) == (b"new", 1)
    with pytest.raises(Refused, match="no_such_semaphore"):
        ben.ask(UpdateSemaphore("default", ("other",), b"new"))


def test_delete_semaphore_fails_while_it_has_owners_or_waiters(anna: User, ben: User) -> None:
    create(anna, 1)
    owner = acquire(anna, 1)
    waiter = acquire(ben, 1)
    with pytest.raises(Refused, match="semaphore_in_use"):
        anna.ask(DeleteSemaphore(*S, force=False))
    assert (owner.held, waiter.waiting) == (True, True)
    waiter.cancel()
    owner.release()
    anna.ask(DeleteSemaphore(*S, force=False))
    with pytest.raises(Refused, match="no_such_semaphore"):
        anna.ask(DeleteSemaphore(*S, force=False))


def test_delete_semaphore_with_force_tells_waiters_and_owners_too(service: Service, anna: User, ben: User) -> None:
    """YDB drops the owners silently."""
    create(anna, 1)
    owner, waiter = acquire(anna, 1), acquire(ben, 1)
    service.user().ask(DeleteSemaphore(*S, force=True))
    assert owner.gone
    assert waiter.gone
    told = [anna.told, ben.told]
    assert [[status.why for status in each] for each in told] == [["the semaphore was deleted"]] * 2
    with pytest.raises(Refused, match="no_such_semaphore"):
        try_acquire(ben, 1)


# --- acquire ---------------------------------------------------------------------------------------------------------


def test_acquire_semaphore_never_exceeds_the_limit(service: Service) -> None:
    users = [service.user() for _ in range(6)]
    create(users[0], 10)
    turns = [acquire(user, 4) for user in users]
    assert [turn.held for turn in turns] == [True, True, False, False, False, False]
    assert users[0].describe("sem").about[0].units == 8
    turns[0].release()
    assert [turn.held for turn in turns[1:]] == [True, True, False, False, False]
    assert turns[2].token > turns[1].token


@pytest.mark.parametrize(("count", "error"), [(0, BadRequest), (11, Refused)])
def test_acquire_of_nothing_or_of_more_than_the_limit_is_refused(
    service: Service, anna: User, count: int, error: type[Exception]
) -> None:
    """What will never succeed does not wait."""
    create(anna, 10)
    with pytest.raises(error, match=r"from 1 to|count_too_large.*11.*10"):
        acquire(anna, count)
    assert service.state.waiting == 0


def test_acquire_of_a_missing_semaphore_is_refused(anna: User) -> None:
    with pytest.raises(Refused, match="no_such_semaphore"):
        acquire(anna, 1)


def test_acquire_ephemeral_must_fit_what_is_there(anna: User, ben: User) -> None:
    create(anna, 10)
    with pytest.raises(Refused, match="limit_differs"):
        anna.lock(units("sem", 1, limit=10))
    anna.lock(units("eph", 1, limit=3))
    with pytest.raises(Refused, match=r"limit_differs.*3"):
        ben.lock(units("eph", 1, limit=4))


def test_acquire_timeout_of_zero_is_granted_only_if_nobody_waits(anna: User, ben: User, carl: User) -> None:
    create(anna, 10)
    acquire(anna, 5)
    waiter = acquire(ben, 8)
    assert try_acquire(carl, 5) is None, "it would fit, but somebody stands in line"
    assert len(anna.waiters("sem")) == 1, "and who only tries is never queued"
    waiter.cancel()
    assert try_acquire(carl, 5) is not None


def test_acquire_timeout_ends_the_wait_and_not_before(service: Service, anna: User, ben: User) -> None:
    create(anna, 1)
    acquire(anna, 1)
    turn = acquire(ben, 1, wait=30)
    service.wait(29)
    assert turn.waiting
    service.wait(1)
    assert turn.gone
    assert [told.phase for told in ben.told] == [ClaimPhase.GONE]


def test_acquire_timeout_after_reboot_goes_on_where_it_stood(service: Service, anna: User, ben: User) -> None:
    """In YDB the wait begins anew from its full length with each restart."""
    create(anna, 1)
    acquire(anna, 1)
    turn = acquire(ben, 1, wait=30)
    service.wait(20)
    service._leases.lead()
    service.wait(9)
    assert turn.waiting
    service.wait(1)
    assert turn.gone


def test_a_wait_without_end_lasts_as_long_as_the_session(service: Service, anna: User) -> None:
    create(anna, 1)
    acquire(anna, 1)
    user = service.user(timeout=30)
    turn = acquire(user, 1)
    for _ in range(4):
        service.wait(29)
        user.ping()
        anna.ping()
    assert turn.waiting
    service.wait(31)
    assert not anna.waiters("sem")


def test_acquire_shared_blocked_behind_a_waiting_exclusive(anna: User, ben: User, carl: User) -> None:
    """The head of the line holds up everybody behind it, though they would fit."""
    reader = anna.lock(shared())
    writer = ben.lock(exclusive())
    behind = carl.lock(shared())
    assert (reader.held, writer.waiting, behind.waiting) == (True, True, True)
    reader.release()
    assert (writer.held, behind.waiting) == (True, True)
    writer.release()
    assert behind.held


def test_grants_loop_from_the_head_while_each_fits(service: Service) -> None:
    users = [service.user() for _ in range(6)]
    create(users[0], 10)
    all_of_it = acquire(users[0], 10)
    turns = [acquire(user, count) for user, count in zip(users[1:], (3, 4, 3, 1, 1), strict=True)]
    all_of_it.release()
    assert [turn.held for turn in turns] == [True, True, True, False, False]
    turns[1].release()
    assert [turn.held for turn in turns] == [True, False, True, True, True]


def test_the_order_number_is_kept_when_a_waiter_becomes_owner(anna: User, ben: User) -> None:
    create(anna, 1)
    first, second = acquire(anna, 1), acquire(ben, 1)
    assert [info.claim for info in anna.waiters("sem")] == [second.number]
    first.release()
    assert [info.claim for info in anna.owners("sem")] == [second.number]
    assert acquire(anna, 1).number > second.number


def test_acquire_returns_the_order_as_a_growing_token(anna: User, ben: User) -> None:
    """YDB shows its order_id only to those who describe the semaphore."""
    create(anna, 2)
    one, two = acquire(anna, 1), acquire(ben, 1)
    assert 0 < one.token < two.token


def test_many_semaphores_in_one_session(anna: User) -> None:
    turns = [anna.lock(units(f"sem-{number}", 1, limit=1)) for number in range(10)]
    assert all(turn.held for turn in turns)
    assert anna.stop() == 10


# --- the same acquisition again (here: amending the claim) -----------------------------------------------------------


def test_acquire_repeat_with_the_same_count_replaces_the_data(anna: User) -> None:
    create(anna, 10)
    turn = acquire(anna, 5, data=b"old")
    token = turn.token
    turn.amend(count=5, data=b"new")
    [owner] = anna.owners("sem")
    assert (owner.data, owner.token, owner.resources[0].count) == (b"new", token, 5)


def test_acquire_downgrade_frees_units_and_serves_the_queue(anna: User, ben: User) -> None:
    create(anna, 10)
    turn = acquire(anna, 8)
    behind = acquire(ben, 5)
    turn.amend(count=6)
    assert behind.waiting
    turn.amend(count=5)
    assert (turn.held, behind.held) == (True, True)
    assert anna.describe("sem").about[0].units == 10


def test_acquire_upgrade_is_refused_and_changes_nothing(anna: User) -> None:
    create(anna, 10)
    turn = acquire(anna, 5)
    with pytest.raises(Refused, match=r"cannot_grow.*5.*6"):
        turn.amend(count=6)
    assert anna.owners("sem")[0].resources[0].count == 5


def test_an_exclusive_acquisition_becomes_a_shared_one_and_readers_come_in(anna: User, ben: User) -> None:
    turn = anna.lock(exclusive())
    reader = ben.lock(shared())
    turn.amend(to_read=True)
    assert (turn.held, reader.held) == (True, True)


def test_acquire_waiter_downgrade_keeps_the_place_and_may_be_granted(anna: User, ben: User, carl: User) -> None:
    create(anna, 10)
    acquire(anna, 8)
    waiter, behind = acquire(ben, 5), acquire(carl, 1)
    waiter.amend(count=2)
    assert (waiter.held, behind.waiting) == (True, True)


def test_acquire_waiter_upgrade_is_refused(anna: User, ben: User) -> None:
    create(anna, 10)
    acquire(anna, 8)
    waiter = acquire(ben, 5)
    with pytest.raises(Refused, match="cannot_grow"):
        waiter.amend(count=6)
    assert (waiter.waiting, waiter.ahead) == (True, 0)


def test_acquire_waiter_change_of_timeout_counts_anew(service: Service, anna: User, ben: User) -> None:
    create(anna, 1)
    acquire(anna, 1)
    turn = acquire(ben, 1, wait=30)
    service.wait(20)
    turn.amend(wait=30)
    service.wait(29)
    assert turn.waiting
    service.wait(1)
    assert turn.gone


def test_acquire_waiter_change_of_timeout_to_zero_gives_up_unless_it_can_be_granted(
    anna: User, ben: User, carl: User
) -> None:
    create(anna, 10)
    acquire(anna, 8)
    hopeless, hopeful = acquire(ben, 5), acquire(carl, 5)
    assert hopeless.amend(wait=0).phase == ClaimPhase.GONE
    assert hopeful.amend(count=2, wait=0).phase == ClaimPhase.HELD
    assert not anna.waiters("sem")


def test_two_acquisitions_of_one_session_exclude_each_other(anna: User) -> None:
    """YDB has one for a session and a name, so that two threads of one session both "hold" it."""
    assert anna.lock(exclusive()).held
    assert anna.try_lock(exclusive()) is None


# --- release ---------------------------------------------------------------------------------------------------------


def test_release_lock_failure_is_no_error_but_says_so(anna: User, ben: User) -> None:
    create(anna, 1)
    turn = acquire(anna, 1)
    assert turn.release()
    assert not turn.release()
    assert not ben.release(10**6)


def test_acquire_waiter_release_takes_it_out_of_the_line(anna: User, ben: User, carl: User) -> None:
    create(anna, 10)
    acquire(anna, 8)
    waiter, behind = acquire(ben, 5), acquire(carl, 2)
    assert waiter.cancel() == ClaimPhase.WAITING
    assert behind.held
    assert waiter.cancel() == ClaimPhase.GONE


def test_semaphore_release_reacquire_stands_at_the_end_of_the_line(anna: User, ben: User) -> None:
    create(anna, 1)
    turn, waiter = acquire(anna, 1), acquire(ben, 1)
    turn.release()
    again = acquire(anna, 1)
    assert (waiter.held, again.waiting) == (True, True)


def test_a_stale_release_cannot_free_a_newer_acquisition_of_the_same_session(anna: User) -> None:
    """YDB's release names the semaphore, so it hits whatever the session has of it by then."""
    create(anna, 1)
    old = acquire(anna, 1)
    old.release()
    new = acquire(anna, 1)
    assert not old.release()
    assert new.held


# --- ephemeral, shared, exclusive ------------------------------------------------------------------------------------


def test_an_ephemeral_semaphore_comes_with_its_first_claim_and_goes_with_its_last(
    service: Service, anna: User, ben: User
) -> None:
    one, two = anna.lock(units("eph", 2, limit=3)), ben.lock(units("eph", 2, limit=3))
    about = anna.describe("eph").about[0]
    assert (about.limit, about.ephemeral, about.units) == (3, True, 2)
    one.release()
    assert two.held
    with pytest.raises(Refused, match="no_such_semaphore"):
        anna.ask(UpdateSemaphore("default", ("eph",), b"data"))
    two.release()
    assert service.leftovers == 0
    assert anna.lock(units("eph", 7, limit=7)).held


def test_exclusive_and_shared_make_a_lock_for_readers_and_writers(anna: User, ben: User, carl: User) -> None:
    readers = [anna.lock(shared()), ben.lock(shared())]
    assert all(turn.held for turn in readers)
    assert carl.try_lock(exclusive()) is None
    writer = carl.lock(exclusive())
    for turn in readers:
        turn.release()
    assert writer.held
    assert anna.try_lock(shared()) is None


def test_exclusive_takes_all_units_of_a_created_semaphore_and_shared_takes_one(anna: User, ben: User) -> None:
    create(anna, 3)
    whole = anna.lock(exclusive())
    assert try_acquire(ben, 1) is None
    whole.release()
    acquire(anna, 2)
    assert ben.lock(shared()).held
    assert ben.try_lock(shared()) is None
    assert ben.describe("sem").about[0].units == 3


# --- describe and watch ----------------------------------------------------------------------------------------------


def test_describe_tells_owners_and_waiters_with_their_data_counts_and_order(anna: User, ben: User, carl: User) -> None:
    create(anna, 10, b"about it")
    acquire(anna, 6, data=b"a")
    acquire(ben, 7, data=b"b")
    acquire(carl, 1, data=b"c", wait=30)
    page = anna.describe("sem")
    told = [(info.holder, info.session, info.data, info.resources[0].count, bool(info.token)) for info in page.claims]
    assert told == [
        ("anna", anna.session, b"a", 6, True),
        ("ben", ben.session, b"b", 7, False),
        ("carl", carl.session, b"c", 1, False),
    ]
    assert [info.claim for info in page.claims] == sorted(info.claim for info in page.claims)
    assert (page.waiting, page.about[0].units, page.about[0].limit, page.about[0].data) == (2, 6, 10, b"about it")


def test_describe_of_a_missing_semaphore_says_that_there_is_none(anna: User) -> None:
    page = anna.describe("sem")
    assert (page.claims, page.about[0].limit) == ((), 0)


def told(seen: set[str], *words: str) -> bool:
    """What a watcher must learn: these changes, or that some may have been lost."""
    return seen in (set(words), {"lost"})


def test_describe_semaphore_watches_tell_changes_of_data_and_owners_and_the_end(anna: User, ben: User) -> None:
    create(anna, 2)
    watch = ben.watch("sem")
    anna.ask(UpdateSemaphore(*S, b"new"))
    assert told(watch.seen(), "data")
    turn = acquire(anna, 1)
    assert told(watch.seen(), "owners")
    turn.amend(data=b"of the owner")
    assert told(watch.seen(), "owners")
    turn.release()
    assert told(watch.seen(), "owners")
    anna.ask(DeleteSemaphore(*S, force=True))
    assert told(watch.seen(), "deleted")


def test_a_watch_is_silent_about_what_is_no_change(anna: User, ben: User) -> None:
    create(anna, 1, b"same")
    acquire(anna, 1)
    watch = ben.watch("sem")
    anna.ask(UpdateSemaphore(*S, b"same"))
    acquire(ben, 1)
    ben.lock("another")
    assert told(watch.seen())


def test_a_watch_sees_every_change_and_not_only_the_first(service: Service, anna: User, ben: User) -> None:
    """YDB's watches tell once and are gone; here a watcher goes on from a revision."""
    create(anna, 1)
    watch = ben.watch("sem")
    for number in range(3):
        acquire(anna, 1).release()
        anna.ask(UpdateSemaphore(*S, b"%d" % number))
        assert told(watch.seen(), "owners", "data")
    assert service.way == "restarted" or watch.seen() == set()


def test_a_watch_of_a_prefix_sees_what_happens_below(anna: User, ben: User) -> None:
    watch, other = ben.watch("jobs", below=True), ben.watch("jobs")
    anna.lock(("jobs", "night"))
    assert told(watch.seen(), "owners")
    assert told(other.seen())


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (CreateSemaphore(*S, 0, b""), "a limit is from 1"),
        (CreateSemaphore(*S, 2**62 + 1, b""), "a limit is from 1 to 4611686018427387904"),
        (CreateSemaphore("default", ("s" * 1025,), 1, b""), "a name may have 1024 bytes"),
        (CreateSemaphore("default", ("",), 1, b""), "a name must not be empty"),
        (CreateSemaphore(*S, 1, bytes(65537)), "data of 65537 bytes is more than 65536"),
        (UpdateSemaphore(*S, bytes(65537)), "data of 65537 bytes is more than 65536"),
    ],
)
def test_what_is_wrong_with_a_semaphore_is_refused_with_the_limit(
    service: Service, anna: User, operation: Any, text: str
) -> None:
    with pytest.raises(BadRequest, match=text):
        anna.ask(operation)
    assert service.leftovers == 0


def test_a_wait_is_bounded_by_a_day_or_without_end(anna: User) -> None:
    with pytest.raises(BadRequest, match="a wait is from 0 s to 86400 s"):
        anna.lock("x", wait=86_401)


# --- the examples ----------------------------------------------------------------------------------------------------


def test_the_lock_example_hands_over_when_the_holder_dies(service: Service, anna: User) -> None:
    holder = service.user(timeout=5)
    holder.lock(exclusive(), data=b"host-1")
    waiter = anna.lock(exclusive())
    service.wait(4)
    assert waiter.waiting
    assert anna.told == []
    service.wait(1.1)
    assert waiter.held
    assert [(told.claim, told.phase) for told in anna.told] == [(waiter.number, ClaimPhase.HELD)], "told without asking"


def test_the_workers_example_shares_the_jobs_out_by_capacity(service: Service) -> None:
    """Each worker asks for every job at once, keeps the first four, and leaves the rest to the others."""
    workers = [service.user() for _ in range(3)]
    jobs = [f"job-{number}" for number in range(10)]
    kept: list[list[str]] = []
    for worker in workers:
        turns = {job: worker.lock(exclusive(job)) for job in jobs}
        mine = [job for job, turn in turns.items() if turn.held][:4]
        for job, turn in turns.items():
            if job not in mine:
                turn.cancel()
        kept.append(mine)
    assert [len(mine) for mine in kept] == [4, 4, 2]
    assert sorted(job for mine in kept for job in mine) == sorted(jobs)
    assert service.state.waiting == 0


def test_an_election_is_campaigned_for_proclaimed_observed_and_resigned(
    service: Service, anna: User, ben: User, carl: User
) -> None:
    """What YDB's JavaScript client calls an election: the owner's data say who leads, and a watch who came next."""
    leader, next_one = anna.lock(exclusive(), data=b"anna:1"), ben.lock(exclusive(), data=b"ben:1")
    observer = carl.watch("sem")
    leader.amend(data=b"anna:2")
    assert told(observer.seen(), "owners")
    assert [info.data for info in carl.owners("sem")] == [b"anna:2"]
    leader.release()
    assert told(observer.seen(), "owners")
    assert next_one.held
    assert [info.data for info in carl.owners("sem")] == [b"ben:1"]
