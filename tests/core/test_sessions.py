"""Sessions: opened, attached by whoever knows the key, stolen, kept alive one by one or in crowds, ended with grace."""

from dataclasses import replace
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.commands import (
    ATTACH_STEP,
    FOREVER,
    Adopt,
    AttachSession,
    Cancel,
    CloseSession,
    CreateNamespace,
    EndSession,
    KeepAlive,
    NamespaceConfig,
    OpenSession,
    Ping,
    Release,
    Renew,
    proof_of,
)
from lessor.core.encoding import encode
from lessor.core.errors import Corrupt
from lessor.core.lease_state import LeaseState
from lessor.core.results import ClaimPhase, Failed, KeptAlive, Pong, Released, Renewed, SessionClosed, SessionOpened

from ..support.leases import Leases, check_consistent, claim

KEY, OTHER = b"k" * 16, b"o" * 16
PROOF = proof_of(KEY)


class Door(Leases):
    """Leases with one session of a known key."""

    def __init__(self) -> None:
        super().__init__()
        self.anna = self.session(timeout_ms=2000, key=KEY)

    def attach(self, times: int, key: bytes = KEY, timeout_ms: int = 2000) -> Any:
        answer = self.ask(0, AttachSession(self.anna, key, times, timeout_ms, "again"))
        check_consistent(self.state)
        return answer

    def say(self, attach: int, operation: Any) -> Any:
        """Ask as whoever has the session since its `attach`-th attachment."""
        return self.ask(self.anna, operation, number=attach * ATTACH_STEP + self.last_number + 1)


def code(answer: Any) -> str:
    assert isinstance(answer, Failed)
    assert answer.detail
    return answer.code


def test_an_attached_session_keeps_its_claims_and_its_places() -> None:  # P7
    door = Door()
    ben = door.session(timeout_ms=60_000)
    door.claim(door.anna, "x")
    door.claim(ben, "y")
    door.claim(door.anna, "y", wait_ms=FOREVER)
    door.after(1500)
    opened = door.attach(1)
    assert (opened.session, opened.expires_at_ms, opened.attach) == (door.anna, 3500, 1)
    pong = door.say(1, Ping((1, 3)))
    assert [status.phase for status in pong.claims] == [ClaimPhase.HELD, ClaimPhase.WAITING]
    door.release(ben, 2)
    assert [status.phase for status in door.told(door.anna)] == [ClaimPhase.HELD]


def test_whoever_attaches_a_session_is_told_the_state_of_all_its_claims() -> None:
    door = Door()
    ben = door.session(timeout_ms=60_000)
    door.claim(door.anna, "x", ttl_ms=9_000)
    door.claim(ben, "y")
    door.claim(door.anna, "y", wait_ms=FOREVER)
    door.after(1000)
    opened = door.attach(1)
    assert [(one.path, one.phase, one.token, one.expires_at_ms) for one in opened.claims] == [
        (("x",), ClaimPhase.HELD, 1, 9_000),
        (("y",), ClaimPhase.WAITING, 0, 0),
    ]
    assert opened.upto == 0
    door.release(ben, 2)
    again = door.attach(1)
    assert [one.phase for one in again.claims] == [ClaimPhase.HELD] * 2, "a repetition tells how it is now"
    assert not door.state.sessions_open[door.anna].replies, "and none of it is kept (P10)"


def test_of_a_session_with_many_claims_a_page_is_told_and_that_there_are_more(monkeypatch: Any) -> None:  # P10
    monkeypatch.setattr(limits, "LIST_PAGE_MAX", 3)
    door = Door()
    for name in ("c", "b", "a"):
        door.claim(door.anna, name)
    assert door.attach(1).upto == 0
    last = door.say(1, claim("d")).claim
    opened = door.attach(2)
    assert ["/".join(one.path) for one in opened.claims] == ["c", "b", "a"]
    assert opened.upto == opened.claims[-1].claim == last - 1


def test_of_claims_with_much_data_no_more_is_told_than_fits_into_an_answer() -> None:  # P10
    door = Door()
    for place in range(9):
        door.ask(door.anna, replace(claim(f"x{place}"), data=b"d" * limits.DATA_BYTES_MAX))
    opened = door.attach(1)
    assert opened.upto
    assert len(encode(opened)) < limits.PAGE_BYTES + 2 * limits.DATA_BYTES_MAX < limits.PACKET_BYTES_MAX


def test_whoever_had_the_session_before_is_told_that_it_was_stolen() -> None:
    door = Door()
    door.attach(1)
    for operation in (Ping(()), claim("x")):
        assert code(door.say(0, operation)) == "session_stolen"
    assert door.state.held == 0
    expires_at_ms = door.state.sessions_open[door.anna].record.expires_at_ms
    door.after(500)
    door.say(0, Ping(()))
    assert door.state.sessions_open[door.anna].record.expires_at_ms == expires_at_ms, "it is not kept alive by a thief"
    assert door.say(1, claim("x")).phase == ClaimPhase.HELD


STRANGE = {
    "by its number alone": (0, 0),
    "with another session's key": (0, proof_of(OTHER)),
    "under numbers of an attachment that is yet to come": (1, PROOF),
}
ACTS: list[Any] = [CloseSession(), Ping((1,)), claim("y"), Cancel(1), Release(1), Renew(1, 60_000), Adopt(1)]


@pytest.mark.parametrize("operation", ACTS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("how", STRANGE)
def test_a_stranger_who_names_a_session_does_nothing_in_it_and_it_is_as_if_it_were_not_there(
    how: str, operation: Any
) -> None:
    door = Door()
    door.claim(door.anna, "x", ttl_ms=5_000)
    door.after(500)
    before = door.state.snapshot()
    attach, proof = STRANGE[how]
    command = door.command(door.anna, operation, number=attach * ATTACH_STEP + 9, acked_below=ATTACH_STEP)
    [answer] = door.batch(replace(command, proof=proof))
    assert code(answer) == "session_expired"
    alive = door.ask(0, KeepAlive((door.anna, attach * ATTACH_STEP + 9, ATTACH_STEP, proof)))
    assert alive == KeptAlive((0,))
    assert LeaseState.restore(before).sessions_open.records() == door.state.sessions_open.records(), "nor kept alive"
    assert door.state.claims.records() == LeaseState.restore(before).claims.records()


def test_who_had_the_session_before_does_nothing_in_it_though_he_guesses_the_numbers_of_the_thief() -> None:
    door = Door()
    door.claim(door.anna, "x")
    door.ask(0, AttachSession(door.anna, KEY, 1, 2000, "the thief", OTHER))
    for attach, told in ((0, "session_stolen"), (1, "session_expired"), (2, "session_expired")):
        command = door.command(door.anna, CloseSession(), number=attach * ATTACH_STEP + 9)
        assert code(door.batch(replace(command, proof=PROOF))[0]) == told
    assert door.say(1, Release(1)) == Released(), "of the thief"


def test_a_token_is_the_right_to_release_and_to_renew_whoevers_session_asks() -> None:  # tickets; TrexLock
    door = Door()
    ben = door.session()
    token = door.claim(door.anna, "x", ttl_ms=1_000).token
    assert door.renew(ben, token, 1_500) == Renewed(1_500)
    assert door.release(ben, token) == Released()
    assert [status.phase for status in door.told(door.anna)] == [ClaimPhase.GONE], "and the holder is told"


def test_an_operator_ends_a_session_by_its_number_once() -> None:
    door = Door()
    door.claim(door.anna, "x")
    assert door.ask(0, EndSession(door.anna)) == SessionClosed(1)
    assert door.state.held == door.state.sessions == 0
    assert door.ask(0, EndSession(door.anna)) == SessionClosed(0), "a repetition finds nothing more to do"
    check_consistent(door.state)


def test_an_attachment_out_of_sequence_is_refused_and_a_repeated_one_is_answered_again() -> None:
    door = Door()
    assert isinstance(door.attach(3), SessionOpened)
    for times in (1, 2):
        assert code(door.attach(times)) == "out_of_sequence"
    assert door.attach(3) == SessionOpened(door.anna, 2000, 3), "of a session without claims, none"


def test_a_retry_after_a_repeated_attachment_still_finds_its_answer() -> None:  # P6
    door = Door()
    door.attach(1)
    command = door.command(door.anna, claim("x"), number=ATTACH_STEP + 1)
    answer = door.batch(command)
    door.attach(1)
    assert door.batch(command) == answer
    assert door.state.held == 1


def test_answers_from_before_an_attachment_are_gone_and_so_are_late_requests() -> None:  # P6, P10
    door = Door()
    late = door.command(door.anna, claim("x"), number=7)
    door.attach(1)
    assert code(door.batch(late)[0]) == "session_stolen"
    assert door.state.held == 0
    assert not door.state.sessions_open[door.anna].replies


def test_a_wrong_key_opens_nothing_and_keeps_nothing_alive() -> None:
    door = Door()
    assert code(door.attach(1, OTHER)) == "wrong_key"
    assert isinstance(door.say(0, Ping(())), Pong), "nobody was robbed"
    door.after(1000)
    door.attach(2, OTHER)
    door.after(1000)
    assert code(door.attach(1)) == "session_expired"


def test_a_session_that_has_ended_cannot_be_attached() -> None:
    door = Door()
    door.after(2000)
    assert code(door.attach(1)) == "session_expired"
    assert code(door.ask(0, AttachSession(99, KEY, 1, 2000, ""))) == "session_expired"


def test_an_attachment_may_change_the_timeout_but_shortens_nothing_that_was_promised() -> None:  # P4
    door = Door()
    assert door.attach(1, timeout_ms=500).expires_at_ms == 2000
    door.after(1800)
    assert door.say(1, Ping(())).expires_at_ms == 2300


def test_many_sessions_are_kept_alive_by_one_command() -> None:
    door = Door()
    ben, carl = door.session(timeout_ms=2000), door.session(timeout_ms=2000, key=OTHER)
    door.ask(0, AttachSession(carl, OTHER, 1, 2000, ""))
    door.after(1500)
    answer = door.ask(0, KeepAlive((door.anna, 8, 0, PROOF, 99, 1, 0, 0, carl, 9, 0, proof_of(OTHER))))
    assert answer == KeptAlive((3500, 0, 1)), "alive; never was; stolen"
    door.after(500)
    assert door.state.sessions_open.get(ben) is None
    assert door.state.sessions_open.get(carl) is None, "a thief's ping kept nothing alive"
    check_consistent(door.state)


def test_a_sign_of_life_among_many_acknowledges_answers_as_a_ping_does() -> None:  # P10
    door = Door()
    door.ask(door.anna, claim("x"), number=5)
    assert len(door.state.sessions_open[door.anna].replies) == 1
    door.ask(0, KeepAlive((door.anna, 7, 6, PROOF)))
    assert not door.state.sessions_open[door.anna].replies


def test_signs_of_life_that_do_not_come_in_fours_are_no_command() -> None:
    with pytest.raises(Corrupt, match="in fours"):
        Door().ask(0, KeepAlive((1, 2, 3)))


def test_grace_after_a_change_of_leader_is_what_the_namespace_says() -> None:
    leases = Leases()
    operator = leases.session(timeout_ms=600_000)
    leases.ask(operator, CreateNamespace("n", NamespaceConfig(session_grace_ms=3000)))
    there: Any = leases.ask(0, OpenSession(KEY, 1000, "", "n"))
    elsewhere: Any = leases.ask(0, OpenSession(OTHER, 1000, "", "other"))
    leases.after(900)
    leases.lead()
    leases.after(100)
    assert leases.state.sessions_open.get(elsewhere.session) is None
    leases.after(3800)
    assert leases.state.sessions_open.get(there.session) is not None
    leases.after(100)
    assert leases.state.sessions_open.get(there.session) is None, "900 + 1000 + 3000"


class Passes(dict[int, Any]):
    """Sessions that count how often all of them are gone through."""

    passes = 0

    def values(self) -> Any:
        self.passes += 1
        return super().values()


@pytest.mark.parametrize("namespaces", [0, 1, 5])
def test_a_change_of_leader_goes_through_the_sessions_once_however_many_namespaces_there_are(
    namespaces: int,
) -> None:  # P10
    leases = Leases()
    operator = leases.session(timeout_ms=600_000)
    for number in range(namespaces):
        leases.ask(operator, CreateNamespace(f"n{number}", NamespaceConfig(session_grace_ms=1000 * (number + 1))))
        leases.ask(0, OpenSession(bytes([number]) * 16, 1000, "", f"n{number}"))
    leases.state.sessions_open._sessions = found = Passes(leases.state.sessions_open._sessions)
    leases.lead()
    assert found.passes == min(namespaces, 1)
    ends_ms = [record.expires_at_ms for record in leases.state.sessions_open.records()[1:]]
    assert ends_ms == [1000 + 1000 * (number + 1) for number in range(namespaces)], "each its own grace"


def test_ten_thousand_sessions_cost_little_to_keep_alive() -> None:  # P10
    state = LeaseState()
    leases = Leases(state)
    leases.lead()
    keys = {number: b"\xff" * 8 + number.to_bytes(8, "big") for number in range(1, 501)}
    opened = [(leases.session(key=key), proof_of(key)) for key in keys.values()]
    leases.ask(0, KeepAlive(tuple(part for session, proof in opened for part in (session, 10, 0, proof))))
    assert not leases.log[-1].commands[0][15_000:], "thirty bytes for each"  # type: ignore[union-attr]
    assert limits.PINGS_FOLDED_MAX * 40 < limits.BATCH_BYTES_MAX
