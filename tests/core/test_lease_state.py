"""Claims, renewals, retries, sessions and limits in the lease state; P1 to P11 are the promises of the design."""

from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import FOREVER, Cancel, Claim, CloseSession, OpenSession, Operation, Ping, Release, Renew
from lessor.core.encoding import INT_MAX, encode
from lessor.core.lease_state import LeaseState
from lessor.core.resources import Mode, Resource
from lessor.core.results import (
    NO_SUCH_SEMAPHORE,
    NO_TTL,
    SESSION_EXPIRED,
    STALE_NUMBER,
    TOO_MANY,
    Cancelled,
    ClaimPhase,
    ClaimStatus,
    Denied,
    Failed,
    NotHeld,
    Released,
    Renewed,
    SessionClosed,
    SessionOpened,
)
from lessor.core.room import weight_of_answer

from ..support.leases import Leases, claim

HELD, WAITING, GONE = ClaimPhase.HELD, ClaimPhase.WAITING, ClaimPhase.GONE


def test_a_free_name_is_granted_at_once_with_a_token_and_a_deadline() -> None:
    leases = Leases()
    anna = leases.session()
    leases.after(400)
    assert leases.claim(anna, "x", ttl_ms=1000) == ClaimStatus(1, HELD, 1, 1400, 0, ttl_ms=1000)
    held = leases.holder("x")
    assert held is not None
    assert (held.holder, held.session, held.ttl_ms, held.since_ms) == ("holder of x", anna, 1000, 400)


def test_a_try_is_denied_while_somebody_holds_and_says_who_and_until_when() -> None:  # P9
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    before = leases.state.snapshot()
    assert leases.claim(ben, "x") == Denied("holder of x", token=1, expires_at_ms=1000)
    assert LeaseState.restore(before).claims.records() == leases.state.claims.records()


def test_two_claims_of_one_session_exclude_each_other_like_anybodys() -> None:
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x")
    assert isinstance(leases.claim(anna, "x"), Denied)
    assert leases.claim(anna, "x", wait_ms=FOREVER).phase == WAITING


def test_one_name_in_two_namespaces_is_two_resources() -> None:
    leases = Leases()
    anna = leases.session()
    assert leases.claim(anna, "x", namespace="one").phase == HELD
    assert leases.claim(anna, "x", namespace="two").phase == HELD


def test_waiters_are_granted_in_the_order_of_arrival_and_told_so() -> None:  # P7
    leases = Leases()
    sessions = [leases.session() for _ in range(6)]
    claims = [leases.claim(session, "x", wait_ms=FOREVER) for session in sessions]
    assert [status.waiters_ahead for status in claims] == [0, 0, 1, 2, 3, 4]
    for place, session in enumerate(sessions):
        assert leases.holding_token("x") == place + 1
        following = sessions[place + 1] if place < 5 else 0
        leases.release(session, place + 1)
        granted = ClaimStatus(place + 2, HELD, place + 2, leases.state.clock_ms + 10_000, 0)
        assert leases.told(following) == ([granted] if following else [])
    assert leases.state.held == leases.state.waiting == 0


def test_one_who_tries_does_not_overtake_those_who_wait() -> None:  # P7
    leases = Leases()
    anna, ben, carl = leases.session(), leases.session(), leases.session()
    leases.claim(anna, "x")
    leases.claim(ben, "x", wait_ms=FOREVER)
    release = leases.command(anna, Release(1))
    attempt = leases.command(carl, claim("x"))
    assert leases.batch(release, attempt) == [Released(), Denied("holder of x", 2, 10_000)]


def test_a_wait_ends_at_its_time_and_not_before_and_others_move_up() -> None:
    leases = Leases()
    anna, ben, carl = leases.session(), leases.session(), leases.session()
    leases.claim(anna, "x")
    impatient = leases.claim(ben, "x", wait_ms=300).claim
    patient = leases.claim(carl, "x", wait_ms=FOREVER).claim
    leases.after(299)
    assert leases.ping(ben, impatient).claims[0].phase == WAITING
    leases.after(1)
    assert leases.told(ben) == [ClaimStatus(impatient, GONE, 0, 0, 0, why="timed_out")]
    assert leases.ping(ben, impatient).claims[0].phase == GONE
    assert leases.ping(carl, patient).claims[0].waiters_ahead == 0
    leases.after(5000)
    assert leases.ping(carl, patient).claims[0].phase == WAITING


def test_a_claim_that_is_cancelled_while_it_waits_is_never_granted() -> None:
    leases = Leases()
    anna, ben, carl = leases.session(), leases.session(), leases.session()
    leases.claim(anna, "x")
    waiting = leases.claim(ben, "x", wait_ms=FOREVER).claim
    leases.claim(carl, "x", wait_ms=FOREVER)
    assert leases.cancel(ben, waiting) == Cancelled(WAITING)
    leases.release(anna, 1)
    held = leases.holder("x")
    assert held is not None
    assert held.session == carl


def test_cancel_after_the_grant_gives_the_grant_back() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x")
    waiting = leases.claim(ben, "x", wait_ms=FOREVER).claim
    leases.release(anna, 1)  # crosses the cancel on its way
    assert leases.cancel(ben, waiting) == Cancelled(HELD)
    assert leases.cancel(ben, waiting) == Cancelled(GONE)
    assert leases.holder("x") is None


def test_nobody_can_cancel_the_claim_of_another_session() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x")
    assert leases.cancel(ben, 1) == Cancelled(GONE)
    assert leases.holding_token("x") == 1


def test_a_place_in_the_queue_survives_a_change_of_leader() -> None:  # P7
    leases = Leases()
    anna, ben, carl = leases.session(), leases.session(), leases.session()
    leases.claim(anna, "x")
    leases.claim(ben, "x", wait_ms=FOREVER)
    leases.lead()
    leases.claim(carl, "x", wait_ms=FOREVER)
    leases.release(anna, 1)
    assert leases.ping(ben, 2).claims[0].phase == HELD


def test_tokens_grow_over_releases_leaders_and_restarts() -> None:  # P5
    leases = Leases()
    tokens = []
    for _ in range(3):
        anna = leases.session()
        tokens.append(leases.claim(anna, "x").token)
        tokens.append(leases.claim(anna, "y").token)
        leases.close(anna)  # nothing is held that would show which tokens were used
        leases = Leases(LeaseState.restore(leases.state.snapshot()))
        leases.lead()
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 6


# --- renew and release -----------------------------------------------------------------------------------------------


def test_renew_counts_from_now_and_without_a_ttl_uses_the_leases_own() -> None:
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    leases.after(600)
    assert leases.renew(anna, 1) == Renewed(1600)
    assert leases.renew(anna, 1, ttl_ms=3000) == Renewed(3600)


def test_renew_never_shortens() -> None:  # P4; Juju's rewrite in SQL lost just this
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x", ttl_ms=5000)
    assert leases.renew(anna, 1, ttl_ms=100) == Renewed(5000)
    leases.after(4999)
    assert leases.holding_token("x") == 1
    leases.after(1)
    assert leases.holder("x") is None


def test_a_lease_without_a_ttl_cannot_be_renewed() -> None:
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x")
    answer = leases.renew(anna, 1, ttl_ms=1000)
    assert isinstance(answer, Failed)
    assert answer.code == NO_TTL


def test_a_renewed_lease_is_not_ended_by_its_old_deadline() -> None:  # P4; in TrexLock an old index entry did that
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    leases.after(999)
    leases.renew(anna, 1)
    for _ in range(9):
        leases.after(111)
        assert leases.holding_token("x") == 1
    leases.after(1)
    assert leases.holder("x") is None
    assert leases.told(anna) == [ClaimStatus(1, GONE, 1, 0, 0, why="expired")]


def test_a_renewal_stamped_with_the_deadline_itself_comes_too_late() -> None:
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    leases.elapsed_ms = 1000
    assert leases.renew(anna, 1) == NotHeld()


@pytest.mark.parametrize("ended", ["released", "expired", "cancelled"])
@pytest.mark.parametrize("late", [Renew(1, 5000), Release(1)])
def test_a_late_renew_or_release_cannot_touch_the_next_holder(ended: str, late: Operation) -> None:  # P6
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x", ttl_ms=1000)
    leases.claim(ben, "x", ttl_ms=2000, wait_ms=FOREVER)
    match ended:
        case "released":
            leases.release(anna, 1)
        case "expired":
            leases.after(1000)
        case _:
            leases.cancel(anna, 1)
    before = leases.holder("x")
    assert before is not None
    assert before.session == ben
    assert leases.ask(anna, late) == NotHeld()
    assert leases.holder("x") == before


@pytest.mark.parametrize("token", [0, 1, 2, 99])
def test_a_token_that_was_never_granted_is_not_held(token: int) -> None:
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "y")
    leases.release(anna, 1)
    assert leases.release(anna, token) == NotHeld()
    assert leases.renew(anna, token, 1000) == NotHeld()


# --- retries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        claim("x"),
        claim("y"),
        claim("x", wait_ms=1000),
        claim("y", ttl_ms=1000, detached=True),
        Cancel(1),
        Cancel(2),
        Cancel(99),
        Renew(1, 5000),
        Renew(99, 5000),
        Release(1),
        Release(99),
    ],
    ids=str,
)
def test_a_retried_command_has_one_effect_and_one_answer(operation: Operation) -> None:  # P6
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x", ttl_ms=9000)
    leases.claim(ben, "x", ttl_ms=9000, wait_ms=FOREVER)
    command = leases.command(anna, operation)
    first = leases.batch(command)
    after_first, revision = leases.state.claims.records(), leases.state.revision
    leases.lead()  # the retry may reach another leader, long after
    leases.after(700)
    assert leases.batch(command, command) == first * 2
    assert leases.state.claims.records() == after_first
    assert leases.state.revision == revision


def test_a_retried_release_gets_its_old_answer_even_when_the_name_is_held_again() -> None:  # P6
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x")
    release = leases.command(anna, Release(1))
    assert leases.batch(release) == [Released()]
    leases.claim(anna, "x")
    assert leases.batch(release) == [Released()]
    assert leases.holding_token("x") == 2


def test_the_numbers_of_two_sessions_have_nothing_to_do_with_each_other() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    assert leases.ask(anna, claim("x"), number=7) == ClaimStatus(1, HELD, 1, 10_000, 0)
    assert isinstance(leases.ask(ben, claim("x"), number=7), Denied)


def test_answers_that_the_client_has_seen_are_dropped_and_their_numbers_refused() -> None:  # P10
    leases = Leases()
    anna = leases.session()
    for number in range(1, 11):
        leases.ask(anna, claim(f"x{number}"), number=number)
    leases.ask(anna, Ping(()), acked_below=8)
    record = leases.state.sessions_open.record(anna)
    assert record is not None
    assert [reply.number for reply in record.replies] == [8, 9, 10]
    answer = leases.ask(anna, claim("y"), number=7)
    assert isinstance(answer, Failed)
    assert answer.code == STALE_NUMBER
    assert leases.holder("y") is None
    assert leases.ask(anna, claim("x8"), number=8).phase == HELD  # type: ignore[union-attr]  # its old answer


def test_a_client_with_too_many_unseen_answers_is_refused_until_it_says_what_it_saw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # P10
    monkeypatch.setattr(limits, "REPLIES_PER_SESSION_MAX", 3)
    leases = Leases()
    anna = leases.session()
    for number in (1, 2, 3):
        leases.ask(anna, claim(f"x{number}"), number=number)
    refused = leases.ask(anna, claim("y"), number=4)
    assert isinstance(refused, Failed)
    assert refused.code == TOO_MANY
    assert leases.holder("y") is None
    assert leases.ask(anna, claim("x1"), number=1) == ClaimStatus(1, HELD, 1, 10_000, 0)
    assert leases.ask(anna, claim("y"), number=5, acked_below=3) == ClaimStatus(4, HELD, 4, 10_000, 0)


def test_a_client_with_unseen_answers_of_too_many_bytes_is_refused_until_it_says_what_it_saw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # P10
    monkeypatch.setattr(limits, "REPLIES_BYTES_PER_SESSION_MAX", 3000)
    leases = Leases()
    anna = leases.session()
    too_long = Claim("n", (Resource(("p" * 900,), Mode.COUNT, 1),), "h", b"", 0, 0, detached=False)
    answers = [leases.ask(anna, too_long, number=number) for number in range(1, 5)]
    assert all(isinstance(answer, Failed) and answer.code == NO_SUCH_SEMAPHORE for answer in answers)
    refused = leases.ask(anna, claim("y"), number=5)
    assert isinstance(refused, Failed)
    assert refused.code == TOO_MANY
    kept_bytes = leases.state.sessions_open[anna].kept_bytes
    assert 3000 < sum(len(encode(answer)) for answer in answers) <= kept_bytes
    assert LeaseState.restore(leases.state.snapshot()).sessions_open[anna].kept_bytes == kept_bytes, (
        "on every node (P1)"
    )
    assert leases.ask(anna, too_long, number=2) == answers[1], "what is kept is still answered (P6)"
    assert leases.ask(anna, claim("y"), number=5).code == TOO_MANY  # type: ignore[union-attr]
    granted: Any = leases.ask(anna, claim("y"), number=6, acked_below=5)
    assert granted.phase == HELD
    leases.ask(anna, Ping(()), acked_below=7)
    assert leases.state.sessions_open[anna].kept_bytes == 0


def test_usual_answers_are_bounded_by_their_number_alone() -> None:
    usual = weight_of_answer(ClaimStatus(INT_MAX, HELD, INT_MAX, INT_MAX, INT_MAX, INT_MAX, INT_MAX, "expired"))
    assert limits.REPLIES_PER_SESSION_MAX * usual < limits.REPLIES_BYTES_PER_SESSION_MAX


def test_a_command_that_was_refused_stays_without_effect_when_a_copy_of_it_arrives_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # P6, P9: the client was told "no effect", so a lock granted now would be held by nobody
    monkeypatch.setattr(limits, "REPLIES_PER_SESSION_MAX", 3)
    leases = Leases()
    anna = leases.session()
    for number in (1, 2, 3):
        leases.ask(anna, claim(f"x{number}"), number=number)
    refused = leases.command(anna, claim("y"), number=4)
    assert isinstance(leases.batch(refused)[0], Failed)
    leases.ask(anna, Ping(()), acked_below=3)
    assert isinstance(leases.batch(refused)[0], Failed)
    assert leases.holder("y") is None


# --- sessions --------------------------------------------------------------------------------------------------------


def test_the_end_of_a_session_ends_what_has_no_ttl_and_what_waits_at_once() -> None:
    leases = Leases()
    anna, ben = leases.session(timeout_ms=1000), leases.session()
    leases.claim(anna, "x")
    leases.claim(ben, "y")
    leases.claim(anna, "y", wait_ms=FOREVER)
    leases.claim(anna, "y", ttl_ms=9000, wait_ms=9000, detached=True)
    leases.elapsed_ms = 999
    leases.ping(ben)
    assert leases.state.sessions == 2
    leases.after(1)
    assert leases.state.sessions == 1
    assert leases.holder("x") is None
    leases.release(ben, 2)
    assert leases.holder("y") is None, "nothing dead stays in a queue (P7)"
    assert leases.state.held == leases.state.waiting == 0


def test_a_grant_with_a_ttl_outlives_its_session_until_its_deadline() -> None:  # P4
    leases = Leases()
    anna, ben = leases.session(timeout_ms=1000), leases.session()
    leases.claim(anna, "x", ttl_ms=5000)
    leases.after(1000)
    assert leases.state.sessions == 1
    held = leases.holder("x")
    assert held is not None
    assert (held.token, held.expires_at_ms, held.session) == (1, 5000, 0)
    assert leases.renew(ben, 1) == Renewed(6000), "whoever has the token can keep it"
    leases.elapsed_ms = 5999
    assert leases.holding_token("x") == 1
    leases.after(1)
    assert leases.holder("x") is None


def test_closing_a_session_releases_all_that_it_holds_and_withdraws_what_waits() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(anna, "x")
    leases.claim(anna, "x", wait_ms=FOREVER)
    leases.claim(anna, "y", ttl_ms=9000)
    leases.claim(ben, "x", wait_ms=FOREVER)
    leases.claim(ben, "y", wait_ms=FOREVER)
    assert leases.close(anna) == SessionClosed(released=2)
    assert [status.phase for status in leases.told(ben)] == [HELD, HELD]
    assert leases.state.held == 2
    assert leases.state.waiting == 0


@pytest.mark.parametrize("end", ["close", "expiry"])
def test_a_detached_lease_survives_its_session_and_any_session_can_keep_or_release_it(end: str) -> None:
    leases = Leases()
    anna, ben = leases.session(timeout_ms=1000), leases.session(timeout_ms=20_000)
    leases.claim(anna, "x", ttl_ms=3000, detached=True)
    if end == "close":
        assert leases.close(anna) == SessionClosed(released=0)
    else:
        leases.after(1000)
    assert leases.state.sessions == 1
    leases.elapsed_ms = 2999
    assert leases.renew(ben, 1) == Renewed(5999)
    assert leases.release(ben, 1) == Released()


def test_each_command_of_a_session_keeps_it_alive_and_a_read_does_not() -> None:
    leases = Leases()
    anna = leases.session(timeout_ms=1000)
    for operation in (Ping(()), claim("x"), claim("x"), Cancel(9), Renew(1, 1000), Release(9)):
        leases.elapsed_ms += 999
        assert leases.ask(anna, operation) != Failed(SESSION_EXPIRED, "")
        assert leases.ping(anna).expires_at_ms == leases.state.clock_ms + 1000
    leases.elapsed_ms += 500
    leases.describe("x")
    leases.list_claims()
    leases.after(500)
    assert leases.state.sessions == 0


def test_opening_a_session_again_with_its_key_attaches_to_it_and_keeps_it_alive() -> None:
    leases = Leases()
    key = b"k" * limits.SESSION_KEY_BYTES
    anna = leases.session(timeout_ms=1000, key=key)
    leases.claim(anna, "x")
    leases.after(900)
    assert leases.session(timeout_ms=1000, key=key) == anna
    leases.after(999)
    assert leases.ping(anna, 1).claims[0].phase == HELD
    assert leases.kinds().count("session_opened") == 1


def test_the_key_of_a_session_that_ended_opens_a_new_one_with_a_new_number() -> None:
    leases = Leases()
    key = b"k" * limits.SESSION_KEY_BYTES
    anna = leases.session(key=key)
    leases.claim(anna, "x")
    leases.close(anna)
    again = leases.session(key=key)
    assert again > anna
    assert leases.ping(again, 1).claims[0].phase == GONE


@pytest.mark.parametrize("operation", [Ping(()), CloseSession(), claim("x"), Cancel(1), Renew(1, 1000), Release(1)])
@pytest.mark.parametrize("session", [0, 1, 99])
def test_a_session_that_ended_or_never_was_can_do_nothing(operation: Operation, session: int) -> None:
    leases = Leases()
    assert leases.session() == 1
    other = leases.session()
    leases.claim(other, "x", ttl_ms=9000)
    leases.close(1)
    revision = leases.state.revision
    answer = leases.ask(session, operation)
    assert isinstance(answer, Failed)
    assert answer.code == SESSION_EXPIRED
    assert leases.state.revision == revision


def test_a_retry_after_the_end_of_its_session_is_refused_though_the_first_copy_may_have_had_its_effect() -> None:  # P9
    leases = Leases()
    anna = leases.session(timeout_ms=1000)
    command = leases.command(anna, claim("x", ttl_ms=30_000))
    leases.batch(command)  # its answer is lost
    leases.after(1000)
    refused = leases.batch(command)[0]
    assert isinstance(refused, Failed)
    assert refused.code == SESSION_EXPIRED
    assert leases.holding_token("x") == 1, "so a client that had sent it before must not take this for a definite no"


def test_a_ping_answers_with_the_state_of_the_claims_of_its_own_session() -> None:
    leases = Leases()
    anna, ben = leases.session(), leases.session()
    leases.claim(ben, "x", ttl_ms=700)
    leases.claim(anna, "y")
    leases.claim(anna, "x", wait_ms=FOREVER)
    leases.claim(anna, "x", wait_ms=FOREVER)
    assert leases.ping(anna, 2, 4, 3, 1, 99).claims == (
        ClaimStatus(2, HELD, 2, 10_000, 0),
        ClaimStatus(4, WAITING, 0, 0, 1),
        ClaimStatus(3, WAITING, 0, 0, 0),
        ClaimStatus(1, GONE, 0, 0, 0),
        ClaimStatus(99, GONE, 0, 0, 0),
    )


def test_a_place_far_back_in_a_queue_is_counted_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "WAITERS_COUNTED_MAX", 3)
    leases = Leases()
    anna = leases.session()
    ahead = [leases.claim(anna, "x", wait_ms=FOREVER).waiters_ahead for _ in range(8)]
    assert ahead == [0, 0, 1, 2, 3, 3, 3, 3]


# --- limits ----------------------------------------------------------------------------------------------------------


def test_one_session_too_many_is_refused_and_room_is_made_by_an_end(monkeypatch: pytest.MonkeyPatch) -> None:  # P10
    monkeypatch.setattr(limits, "SESSIONS_MAX", 2)
    leases = Leases()
    anna, _ = leases.session(key=b"a" * 16), leases.session(key=b"b" * 16)
    open_third = leases.command(0, OpenSession(b"c" * 16, 1000, ""))
    refused = leases.batch(open_third)[0]
    assert isinstance(refused, Failed)
    assert refused.code == TOO_MANY
    assert leases.session(key=b"a" * 16) == anna, "an open session can still be attached to"
    leases.close(anna)
    assert isinstance(leases.batch(open_third)[0], SessionOpened)


@pytest.mark.parametrize("wait_ms", [0, 1000, FOREVER])
def test_one_claim_too_many_is_refused_and_room_is_made_by_an_end(
    monkeypatch: pytest.MonkeyPatch, wait_ms: int
) -> None:  # P10
    monkeypatch.setattr(limits, "CLAIMS_MAX", 2)
    leases = Leases()
    anna = leases.session()
    leases.claim(anna, "x")
    leases.claim(anna, "x", wait_ms=FOREVER)
    refused = leases.claim(anna, "y", wait_ms=wait_ms)
    assert isinstance(refused, Failed)
    assert refused.code == TOO_MANY
    leases.release(anna, 1)
    assert leases.claim(anna, "y", wait_ms=wait_ms).phase == HELD
