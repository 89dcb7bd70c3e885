"""The recipes of the blocking face with a real node: elections, barriers, parties, workers."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

import lessor
from lessor import AcquireTimeout, BadRequest, LeaseLost, NotHeldError, Unavailable
from lessor.client.caller import Outcome
from lessor.client.recipes import rules, sync_groups
from lessor.recipes import LeadershipChanged
from lessor.testing import Cluster

from ...support.patience import longer, timed_out
from ...support.waiting import until

SOON_S = 60.0


def stands_in_line(client: lessor.Client, name: lessor.client.wants.Name) -> None:
    until(lambda: [view for view in client.describe(name) if view.waiting], "somebody waits")


# --- units and re-entrant locks --------------------------------------------------------------------------------------


def test_a_semaphore_lets_in_so_many_and_no_more(one: lessor.Client, other: lessor.Client) -> None:
    ours, theirs = one.semaphore("s", 2), other.semaphore("s", 2)
    first = ours.acquire()
    with theirs as second:
        assert ours.try_acquire() is None
        assert (first.held, second.held) == (True, True)
        with pytest.raises(AcquireTimeout):
            ours.acquire(timeout=0)
    assert ours.release()
    assert ours.acquire(2, timeout=0).held
    assert ours.release()
    with pytest.raises(BadRequest):
        ours.release()


def test_units_may_have_a_longest_hold_and_word_of_their_loss(one: lessor.Client) -> None:
    pool, lost = one.semaphore("s", 2), threading.Event()
    for acquire in (pool.acquire, pool.try_acquire):
        lost.clear()
        lease = acquire(max_hold=0.2, on_lost=lambda _: lost.set())
        assert lease is not None
        assert lost.wait(SOON_S)
        assert lease.loss is lessor.Loss.MAX_HOLD


def test_a_semaphore_that_was_created_needs_no_limit(one: lessor.Client) -> None:
    one.create_semaphore("s", 3)
    with one.semaphore("s") as lease:
        assert one.semaphores()[0].units == 1
        assert lease.held
    one.delete_semaphore("s")


def test_a_reentrant_lock_lets_its_thread_in_again_and_no_other(
    one: lessor.Client, aside: Callable[..., "Future[Any]"]
) -> None:
    lock = one.reentrant_lock("x")

    def enter() -> int:
        with lock as lease:
            return lease.token

    with lock as outer:
        with lock as inner:
            assert inner is outer
        assert outer.held, "only the last exit releases"
        waiting = aside(enter)
        stands_in_line(one, "x")
    assert waiting.result(SOON_S) > outer.token


def test_a_reentrant_lock_is_released_by_the_last_of_its_releases(one: lessor.Client) -> None:
    lock = one.reentrant_lock("x")
    lease = lock.acquire()
    assert lock.acquire() is lease
    assert (lock.release(), lease.held) == (False, True)
    assert (lock.release(), lease.held) == (True, False)
    with pytest.raises(BadRequest):
        lock.release()


def test_a_reentrant_lock_whose_lease_was_given_back_by_itself_is_acquired_anew(
    one: lessor.Client, other: lessor.Client
) -> None:
    """Also one that was lost, once whoever had it has given it up."""
    lock = one.reentrant_lock("x")
    with lock.acquire(timeout=SOON_S) as first:
        assert first.held
    second = lock.acquire(timeout=SOON_S)
    other.break_lease(second.token, "a test")
    until(lambda: not second.held, "it is lost")
    assert not second.release()
    with lock.acquire(timeout=SOON_S) as third:
        assert third.token > second.token > first.token


def test_whoever_has_acquired_nothing_releases_nothing_of_another_thread(
    one: lessor.Client, aside: Callable[..., "Future[Any]"]
) -> None:
    """P3: neither what it has acquired nor what its `with` has entered."""
    lock, pool = one.reentrant_lock("x"), one.semaphore("s", 2)

    def refused(release: Callable[[], bool]) -> None:
        with pytest.raises(BadRequest):
            release()

    with lock as entered, pool as unit:
        acquired = lock.acquire()
        for release in (lock.release, pool.release):
            aside(refused, release).result(SOON_S)
        assert (entered.held, unit.held, acquired is entered) == (True, True, True)
        assert not lock.release(), "the `with` has it still"


def test_a_reentrant_lock_that_was_lost_lets_nobody_in_on_its_account(one: lessor.Client, other: lessor.Client) -> None:
    lock = one.reentrant_lock("x")
    lease = lock.acquire()
    other.break_lease(lease.token, "a test")
    until(lambda: not lease.held, "it is lost")
    with pytest.raises(LeaseLost):
        lock.acquire()
    assert not lock.release()


# --- elections -------------------------------------------------------------------------------------------------------


def test_candidates_lead_one_after_the_other_and_all_see_who(
    one: lessor.Client, other: lessor.Client, aside: Callable[..., "Future[Any]"]
) -> None:
    """YDB, etcd: campaign, proclaim, resign, leader, observe."""
    ours, theirs = one.election("e"), other.election("e")
    with theirs.observe() as seen:
        assert next(seen) is None
        leading = ours.campaign(b"one:1")
        first = next(seen)
        assert first is not None
        assert (first.holder, first.value, first.token) == ("one", b"one:1", leading.token)
        leading.proclaim(b"one:2")
        assert getattr(next(seen), "value", None) == b"one:2"
        following = aside(theirs.campaign, b"other:1")
        stands_in_line(one, "e")
        assert leading.resign()
        second = following.result(SOON_S)
        assert getattr(next(seen), "value", None) == b"other:1"
        assert second.token > leading.token
        assert not leading.held
        with pytest.raises(LeaseLost):
            leading.check()
        with pytest.raises(NotHeldError):
            leading.proclaim(b"too late")
        second.resign()
        assert next(seen) is None


def test_a_lost_leadership_is_told(one: lessor.Client, other: lessor.Client) -> None:
    """P8."""
    told = threading.Event()
    with pytest.raises(LeaseLost), one.election("e").campaign(on_lost=lambda _: told.set()) as leading:  # noqa: PT012
        other.break_lease(leading.token, "a test")
        assert leading.lost.wait(SOON_S)
    assert told.wait(SOON_S)


def test_an_observation_that_is_closed_ends(one: lessor.Client, aside: Callable[..., "Future[Any]"]) -> None:
    seen = one.election("e").observe()
    assert next(seen) is None
    rest = aside(list, seen)
    seen.close()
    assert rest.result(SOON_S) == []


def test_a_stable_leadership_ends_when_another_one_leads(one: lessor.Client, other: lessor.Client) -> None:
    """Juju's WithStableLeadership."""
    leading = one.election("e").campaign()
    with pytest.raises(LeadershipChanged) as told, other.stable_leadership("e") as scope:  # noqa: PT012
        scope.check()
        leading.proclaim(b"no change")
        assert not scope.changed.wait(0.1)
        leading.resign()
        assert scope.changed.wait(SOON_S)
        with pytest.raises(LeadershipChanged):
            scope.check()
    assert "one" in str(told.value)


def test_a_stable_leadership_that_stays_ends_in_silence(one: lessor.Client, other: lessor.Client) -> None:
    with one.election("e").campaign() as leading, other.stable_leadership("e") as scope:
        assert scope.leader is not None
        assert scope.leader.token == leading.token
        with pytest.raises(ZeroDivisionError), one.stable_leadership("e"):
            raise ZeroDivisionError


def test_a_stable_leadership_can_be_entered_again(one: lessor.Client, other: lessor.Client) -> None:
    scope = other.stable_leadership("e")
    for _ in range(2):
        with one.election("e").campaign() as leading:
            with scope:
                assert scope.leader is not None
                assert scope.leader.token == leading.token
            with pytest.raises(LeadershipChanged), scope:  # noqa: PT012
                leading.resign()
                assert scope.changed.wait(SOON_S)


def test_a_stable_leadership_ends_when_a_change_could_not_be_told_any_more(
    one: lessor.Client, other: lessor.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise BadRequest("of a service that is of another version")

    leading, scope = one.election("e").campaign(), other.stable_leadership("e")
    with pytest.raises(LeadershipChanged, match="of another version"), scope:  # noqa: PT012
        monkeypatch.setattr(other, "describe", fail)
        leading.resign()
        assert scope.changed.wait(SOON_S)


def test_leadership_and_its_observers_live_through_the_death_of_the_nodes_leader() -> None:
    with Cluster(3) as cluster, cluster.client(holder="one") as one, cluster.client(holder="other") as other:
        leading = one.election("e", ttl=60).campaign(b"1")
        with other.election("e").observe() as seen, other.stable_leadership("e") as scope:
            assert getattr(next(seen), "value", None) == b"1"
            cluster.kill_leader()
            leading.proclaim(b"2")
            assert getattr(next(seen), "value", None) == b"2"
            assert not scope.changed.is_set()
        leading.resign()


# --- barriers and parties --------------------------------------------------------------------------------------------


def test_a_barrier_opens_when_all_are_here_again_and_again(
    make: Callable[..., lessor.Client], aside: Callable[..., "Future[Any]"]
) -> None:
    clients = [make() for _ in range(3)]
    for _ in range(3):
        early = [aside(client.barrier("b", 3).wait) for client in clients[:2]]
        until(lambda: len(clients[2].describe(("b", "here"))) == 2, "two are here")
        assert not any(one.done() for one in early)
        last = clients[2].barrier("b", 3).wait(SOON_S)
        assert sorted([last, *[one.result(SOON_S) for one in early]]) == [0, 1, 2]


def test_a_barrier_mixes_no_rounds_up_however_fast_its_parties_come_again(
    make: Callable[..., lessor.Client], aside: Callable[..., "Future[Any]"]
) -> None:
    """Nobody is ever a whole round ahead."""
    clients, rounds = [make() for _ in range(3)], [0, 0, 0]

    def run(number: int) -> None:
        barrier = clients[number].barrier("b", 3)
        for _ in range(5):
            rounds[number] += 1
            barrier.wait(SOON_S)
            assert max(rounds) - min(rounds) <= 1
            assert min(rounds) >= rounds[number]

    for one in [aside(run, number) for number in range(3)]:
        one.result(SOON_S)


def test_who_gives_up_at_a_barrier_does_not_count_any_more(
    one: lessor.Client,
    other: lessor.Client,
    aside: Callable[..., "Future[Any]"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync_groups, "LEAVE_S", SOON_S)
    timed_out(one.barrier("b", 2).wait)
    until(lambda: (one.registers(), one.leases()) == ([], []), "nothing is left of it")
    early = aside(other.barrier("b", 2).wait, SOON_S)
    until(lambda: one.describe(("b", "here")), "one is here")
    assert one.barrier("b", 2).wait(SOON_S) == 1
    assert early.result(SOON_S) == 0


def test_who_gives_up_at_a_barrier_is_not_let_through_by_another_one_who_does(
    one: lessor.Client,
    other: lessor.Client,
    make: Callable[..., lessor.Client],
    aside: Callable[..., "Future[Any]"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P9: he took the round, which the other had erased as one that all had left, for one that had been opened."""
    over, given_up, left, leave_s = threading.Event(), threading.Event(), threading.Event(), 123.0
    monkeypatch.setattr(rules.Deadline, "over", property(lambda _: over.is_set()))
    monkeypatch.setattr(sync_groups, "LOOK_S", 0.05)
    monkeypatch.setattr(sync_groups, "LEAVE_S", leave_s)
    acquire, try_acquire, acquire_of_other = one.acquire, one.try_acquire, other.acquire

    def unanswered(*arguments: Any, **options: Any) -> lessor.Lease:
        if options.get("timeout") == leave_s:
            raise Unavailable("no answer", indefinite=True)
        return acquire(*arguments, **options)

    def later(*arguments: Any, **options: Any) -> lessor.Lease | None:
        given_up.set()
        assert left.wait(SOON_S)
        return try_acquire(*arguments, **options)

    def in_between(*arguments: Any, **options: Any) -> lessor.Lease:
        assert options.get("timeout") != leave_s or given_up.wait(SOON_S)
        return acquire_of_other(*arguments, **options)

    monkeypatch.setattr(one, "acquire", unanswered)
    monkeypatch.setattr(one, "try_acquire", later)
    monkeypatch.setattr(other, "acquire", in_between)
    observer = make()
    outcomes = [aside(client.barrier("b", 3).wait) for client in (one, other)]
    until(lambda: [bool(view.data) for view in observer.describe(("b", "here"))] == [True, True], "both are here")
    over.set()
    assert isinstance(outcomes[1].exception(SOON_S), AcquireTimeout)
    left.set()
    assert isinstance(outcomes[0].exception(SOON_S), AcquireTimeout)


def test_who_is_not_counted_at_a_barrier_any_more_is_not_let_through_by_the_end_of_its_round(
    one: lessor.Client, other: lessor.Client, aside: Callable[..., "Future[Any]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: a round that all the others have left and erased looks like one that was opened."""
    monkeypatch.setattr(sync_groups, "LOOK_S", SOON_S)
    acquire, places, seen, may_open = one.acquire, [], [], rules.may_open

    def looked(told: Any) -> bool:
        seen.append(getattr(told, "token", 0))
        return may_open(told)

    monkeypatch.setattr(sync_groups, "may_open", looked)

    def noted(*arguments: Any, **options: Any) -> lessor.Lease:
        places.append(acquire(*arguments, **options))
        return places[-1]

    monkeypatch.setattr(one, "acquire", noted)
    outcome = aside(one.barrier("b", 2).wait)
    until(lambda: [bool(view.data) for view in other.describe(("b", "here"))] == [True], "it is here")
    with other.lock(("b", "gate"), timeout=SOON_S) as gate:
        until(lambda: gate.token in seen, "it has seen who has the gate")
        other.break_lease(places[0].token, "it is not counted")
        until(lambda: not places[0].held, "it is told")
        gate.erase()
    assert isinstance(outcome.exception(2 * SOON_S), LeaseLost)


def test_who_gives_up_at_a_barrier_leaves_nothing_behind_though_its_gate_was_not_answered_in_time(
    one: lessor.Client, other: lessor.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: the register that says which round it is stayed until the next round."""
    acquire, leave_s = one.acquire, 123.0

    def slow(*arguments: Any, **options: Any) -> lessor.Lease:
        if options.get("timeout") == leave_s:
            raise Unavailable("no answer", indefinite=True)
        return acquire(*arguments, **options)

    monkeypatch.setattr(sync_groups, "LEAVE_S", leave_s)
    monkeypatch.setattr(one, "acquire", slow)
    timed_out(one.barrier("b", 2).wait)
    assert (other.leases(), other.registers()) == ([], [])


@pytest.mark.parametrize("part", [(), ("gate",)])
def test_a_barrier_is_given_up_in_time_though_somebody_holds_its_name_or_its_gate(
    one: lessor.Client, other: lessor.Client, aside: Callable[..., "Future[Any]"], part: tuple[str, ...]
) -> None:
    with other.lock(("b", *part), ttl=600):
        timed_out(lambda timeout: aside(one.barrier("b", 2).wait, timeout).result(timeout + SOON_S))
        until(lambda: [view.path for view in other.leases()] == [("b", *part)], "it has left")


def test_who_waits_at_a_barrier_gives_up_in_time_though_its_gate_was_taken_meanwhile(
    one: lessor.Client, other: lessor.Client, aside: Callable[..., "Future[Any]"]
) -> None:
    def gives_up(timeout: float) -> bool:
        outcome = aside(one.barrier("b", 2).wait, timeout)
        until(lambda: one.registers() or outcome.done(), "it has come")
        if outcome.done():  # while this thread stood still
            return False
        with other.lock(("b", "gate"), ttl=600) as gate:
            error = outcome.exception(timeout + SOON_S)
            until(lambda: [view.path for view in other.leases()] == [("b", "gate")], "it has left")
            gate.erase()
        return isinstance(error, AcquireTimeout)

    assert any(gives_up(timeout) for timeout in longer(2.0))


def test_a_double_barrier_lets_nobody_go_on_before_all_have_ended(
    one: lessor.Client, other: lessor.Client, aside: Callable[..., "Future[Any]"]
) -> None:
    ended = threading.Event()

    def work() -> bool:
        with one.double_barrier("d", 2):
            pass
        return ended.is_set()

    early = aside(work)
    with other.double_barrier("d", 2):
        until(lambda: other.describe(("d", "end", "here")), "the other one has ended")
        assert not early.done()
        ended.set()
    assert early.result(SOON_S)


@pytest.mark.parametrize("parties", [0, -1, True, 1.5, "two"])
def test_a_barrier_for_nobody_is_refused(one: lessor.Client, parties: Any) -> None:
    with pytest.raises(BadRequest):
        one.barrier("b", parties)


def test_a_party_shows_who_is_here_in_the_order_of_their_coming(one: lessor.Client, other: lessor.Client) -> None:
    ours, theirs = one.party("p"), other.party("p")
    with ours.observe() as seen:
        assert next(seen) == []
        with theirs.join(b"b"):
            assert [(member.holder, member.data) for member in next(seen)] == [("other", b"b")]
            lease = ours.join(b"a")
            assert [member.data for member in next(seen)] == [b"b", b"a"]
            lease.update(b"c")
            assert [member.data for member in next(seen)] == [b"b", b"c"]
            lease.release()
            assert [member.data for member in next(seen)] == [b"b"]
        assert next(seen) == []


# --- workers ---------------------------------------------------------------------------------------------------------

JOBS = [f"job-{number}" for number in range(10)]


def test_workers_share_tasks_out_by_capacity_and_take_over_what_is_left(make: Callable[..., lessor.Client]) -> None:
    """YDB's example: three workers of capacity 4 have all of ten tasks, each task one worker."""
    shares = [make().workers(JOBS, 4) for _ in range(3)]
    for worker, count in zip(shares, (4, 4, 2), strict=True):
        for _ in range(count):
            assert worker.take(timeout=SOON_S) is not None
    names = [lease.name for worker in shares for lease in worker.held]
    assert sorted(names) == JOBS
    assert shares[2].take(timeout=0.1) is None
    freed = {lease.name for lease in shares[0].held}
    shares[0].close()
    taken = [shares[2].take(timeout=SOON_S) for _ in range(2)]
    assert {lease.name for lease in taken if lease} < freed
    assert shares[1].take(timeout=0.1) is None, "it is full"
    for worker in shares:
        worker.close()


def test_a_worker_takes_another_task_when_one_is_done_or_lost(one: lessor.Client, other: lessor.Client) -> None:
    with one.workers(["a", "b", "c"], 2) as worker:
        first, second = next(worker), next(worker)
        first.release()
        third = worker.take(timeout=SOON_S)
        assert third is not None
        other.break_lease(second.token, "a test")
        until(lambda: not second.held, "it is lost")
        assert worker.take(timeout=SOON_S) is not None
        assert len(worker.held) == 2


def test_a_worker_that_is_closed_ends_its_wait_and_holds_nothing(
    one: lessor.Client, aside: Callable[..., "Future[Any]"]
) -> None:
    worker = one.workers(["a"], 1)
    lease = next(worker)
    waiting = aside(worker.take)
    worker.close()
    assert waiting.result(SOON_S) is None
    assert not lease.held
    assert list(worker) == []


def test_a_worker_that_is_closed_while_it_tries_keeps_nothing_and_yields_nothing(
    one: lessor.Client, other: lessor.Client, monkeypatch: pytest.MonkeyPatch, aside: Callable[..., "Future[Any]"]
) -> None:
    """Grants that come after `close` are nobody's."""
    granted, answer = threading.Barrier(3), threading.Event()
    really = one.try_acquire

    def slow(*arguments: Any) -> Any:
        lease = really(*arguments)
        granted.wait(SOON_S)
        answer.wait(SOON_S)
        return lease

    monkeypatch.setattr(one, "try_acquire", slow)
    worker = one.workers(["a", "b"], 2, ttl=600)
    taken = aside(worker.take)
    granted.wait(SOON_S)
    worker.close()
    answer.set()
    assert taken.result(SOON_S) is None
    assert worker.held == []
    until(lambda: other.leases() == [], "all are given back")


def test_an_interrupted_worker_keeps_nothing_of_what_it_was_granted_beyond_its_capacity(
    one: lessor.Client, other: lessor.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, ours, tried = Outcome.wait, threading.get_ident(), threading.Event()

    def interrupted(self: Outcome) -> Any:
        if threading.get_ident() == ours and tried.is_set():
            tried.clear()
            raise KeyboardInterrupt
        answer = really(self)
        if threading.get_ident() != ours:
            tried.set()
        return answer

    worker = one.workers(["a", "b", "c", "d"], 1, ttl=600)
    with monkeypatch.context() as during:
        during.setattr(Outcome, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.take()
    worker.close()
    until(lambda: other.leases() == [], "all are given back")


def test_two_workers_that_want_the_same_tasks_at_once_end_up_with_all_of_them(
    make: Callable[..., lessor.Client], aside: Callable[..., "Future[Any]"]
) -> None:
    """What is granted beyond the capacity of one is not withheld from the other."""
    for _ in range(5):
        with make().workers(["x", "y"], 1) as one, make().workers(["x", "y"], 1) as other:
            taken = [aside(worker.take, SOON_S) for worker in (one, other)]
            names = [one.result(SOON_S).name for one in taken]
            assert sorted(names) == ["x", "y"]
