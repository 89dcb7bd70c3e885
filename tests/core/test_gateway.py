"""The gateway's laws: every request is answered once, doubt is called doubt, and no more is under way than allowed."""

import random
from collections.abc import Sequence

import pytest

from lessor.core import limits
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.commands import (
    FOREVER,
    AttachSession,
    Claim,
    Command,
    Describe,
    KeepAlive,
    ListClaims,
    OpenSession,
    Operation,
    Ping,
    Release,
    Renew,
)
from lessor.core.effects import Address, Connection, Effects, Role
from lessor.core.encoding import decode
from lessor.core.gateway import Counters, FromClient, Gateway, NodeFacts
from lessor.core.learner import Applied, Summary
from lessor.core.messages import Leadership, Submit, Tick
from lessor.core.requests import (
    Answer,
    Busy,
    Counter,
    Notice,
    Redirect,
    Rejected,
    Request,
    SessionStolen,
    StatusAnswer,
    StatusRequest,
)
from lessor.core.resources import Resource
from lessor.core.results import (
    SESSION_EXPIRED,
    SESSION_STOLEN,
    ClaimPhase,
    ClaimStatus,
    Failed,
    KeptAlive,
    NotHeld,
    Released,
    Result,
    SessionOpened,
)

from ..support.sockets import seeded

ENDPOINTS = {1: "tcp://h1:7411", 2: "tcp://h2:7411", 3: "tcp://h3:7411"}
FACTS = NodeFacts(2, "test", "1.2.3", ENDPOINTS)
MINE = Ballot(5, 2)
ALICE, BOB = Connection(b"alice"), Connection(b"bob")
PROPOSER = Address(2, Role.PROPOSER)


def claim(name: str = "job", data: bytes = b"") -> Claim:
    return Claim("default", (Resource((name,)),), "me", data, 10_000, FOREVER, detached=False)


def request(number: int, session: int = 7, operation: Operation | None = None, acked_below: int = 1) -> Request:
    return Request(session, number, acked_below, Release(number) if operation is None else operation)


def status(number: int) -> ClaimStatus:
    return ClaimStatus(number, ClaimPhase.HELD, number, 9_000, 0)


class Desk:
    """A gateway whose answers and submitted commands are written down."""

    def __init__(self) -> None:
        self.gateway = Gateway(FACTS)
        self.said: list[tuple[Connection, object]] = []
        self.submitted: list[tuple[Ballot, Command]] = []
        self.now_ms = 0

    def step(self, *messages: object, tick: bool = True) -> list[tuple[Connection, object]]:
        """Hand over a batch as a shell does; return what was said to clients."""
        before = len(self.said)
        self.now_ms += 1
        for message in [*messages, *([Tick(self.now_ms)] if tick else [])]:
            self._note(self.gateway.step(message))  # type: ignore[arg-type]
        return self.said[before:]

    def _note(self, effects: Effects) -> None:
        assert effects.writes == []
        for send in effects.sends:
            if isinstance(send.to, Connection):
                self.said.append((send.to, send.message))
            else:
                assert send.to == PROPOSER
                assert isinstance(send.message, Submit)
                commands = [decode(command) for command in send.message.commands]
                self.submitted += [(send.message.ballot, command) for command in commands]

    def ask(self, *requests: Request, connection: Connection = ALICE) -> list[tuple[Connection, object]]:
        return self.step(*[FromClient(connection, asked) for asked in requests])

    def apply(
        self, answers: Sequence[tuple[int, Result]], ballot: Ballot = MINE, notices: Sequence[Notice] = ()
    ) -> list[tuple[Connection, object]]:
        return self.step(Applied(ballot, 4_000, tuple(answers), tuple(notices)))

    def last_tag(self) -> int:
        return self.submitted[-1][1].tag

    def hear(self, session: int, connection: Connection) -> None:
        """Carry out a request of a session that came over this connection."""
        self.ask(request(1, session=session), connection=connection)
        self.apply([(self.last_tag(), Released())])

    def sign_of_life(self, session: int, expires_at_ms: int, connection: Connection) -> None:
        """Carry out a ping that travels with others."""
        self.ask(request(1, session=session, operation=Ping(())), connection=connection)
        self.now_ms += limits.PING_FOLD_MS
        self.step()
        assert isinstance(self.submitted[-1][1].operation, KeepAlive)
        self.apply([(self.last_tag(), KeptAlive((expires_at_ms,)))])


@pytest.fixture
def leader() -> Desk:
    desk = Desk()
    assert desk.step(Leadership("leader", MINE, 2)) == []
    return desk


# --- on the way ------------------------------------------------------------------------------------------------------


def test_a_request_goes_to_the_proposer_with_the_end_of_its_batch_and_its_outcome_back(leader: Desk) -> None:
    asked = request(3, operation=claim(), acked_below=2)
    assert leader.step(FromClient(ALICE, asked), tick=False) == []
    assert leader.submitted == [], "what else has arrived travels along"
    leader.step()
    assert leader.submitted == [(MINE, Command(leader.last_tag(), 7, 3, 2, claim()))]
    assert leader.apply([(leader.last_tag(), status(1))]) == [(ALICE, Answer(3, 4_000, status(1)))]
    assert leader.gateway.answered == 1


def test_what_has_arrived_at_once_is_submitted_at_once_in_order(leader: Desk) -> None:
    effects = [leader.gateway.step(FromClient(ALICE, request(number))) for number in range(1, 6)]
    assert not any(each.sends for each in effects)
    [submit] = leader.gateway.step(Tick(1)).sends
    assert isinstance(submit.message, Submit)
    assert [decode(command).number for command in submit.message.commands] == [1, 2, 3, 4, 5]
    assert leader.gateway.step(Tick(2)).sends == [], "once"


def test_tags_are_never_given_twice(leader: Desk) -> None:
    for round_ in range(5):
        leader.ask(*[request(number) for number in range(1, 4)])
        leader.step(Leadership("follower", NO_BALLOT, 0), Leadership("leader", Ballot(6 + round_, 2), 2))
    tags = [command.tag for _, command in leader.submitted]
    assert len(set(tags)) == len(tags) == 15
    assert 0 not in tags


# --- every request is answered once ----------------------------------------------------------------------------------


def test_an_outcome_that_comes_again_is_not_told_again(leader: Desk) -> None:
    leader.ask(request(3))
    tag = leader.last_tag()
    assert len(leader.apply([(tag, Released())])) == 1
    assert leader.apply([(tag, Released())]) == []
    told = [message for _, message in leader.step(Leadership("follower", Ballot(6, 1), 1))]
    assert told == [Redirect(0, 1, "tcp://h1:7411", indefinite=False)], "nothing but that it leads no more"


def test_who_has_nothing_under_way_is_told_once_that_another_leads(leader: Desk) -> None:  # P7: pushes come from there
    leader.ask(request(3))
    leader.apply([(leader.last_tag(), Released())])
    assert len(leader.step(Leadership("follower", Ballot(6, 2), 2))) == 1
    assert leader.step(Leadership("follower", Ballot(7, 3), 3)) == [], "nobody waits for pushes of a follower"


def test_an_outcome_of_a_tag_that_nobody_waits_for_is_not_told(leader: Desk) -> None:
    assert leader.apply([(77, Released()), (0, NotHeld())]) == []


def test_a_retry_that_comes_while_the_first_is_under_way_is_answered_too_and_to_where_it_came_from(
    leader: Desk,
) -> None:
    """That it has one effect is the business of the lease state: both carry the same session and number (P6)."""
    leader.ask(request(3))
    leader.ask(request(3), connection=BOB)
    first, second = [command for _, command in leader.submitted]
    assert (first.session, first.number) == (second.session, second.number)
    assert first.tag != second.tag
    assert leader.apply([(second.tag, Released()), (first.tag, Released())]) == [
        (BOB, Answer(3, 4_000, Released())),
        (ALICE, Answer(3, 4_000, Released())),
    ]


def test_a_request_repeated_within_one_batch_is_answered_as_often_as_it_was_sent(leader: Desk) -> None:
    leader.ask(*[request(3)] * 3)
    answers = leader.apply([(command.tag, Released()) for _, command in leader.submitted])
    assert answers == [(ALICE, Answer(3, 4_000, Released()))] * 3


def test_of_two_clients_with_the_same_numbers_each_gets_its_own_answers(leader: Desk) -> None:
    leader.ask(request(1, session=7))
    leader.ask(request(1, session=8), connection=BOB)
    first, second = [command.tag for _, command in leader.submitted]
    assert leader.apply([(first, Released()), (second, NotHeld())]) == [
        (ALICE, Answer(1, 4_000, Released())),
        (BOB, Answer(1, 4_000, NotHeld())),
    ]


def test_whatever_happens_every_request_is_answered_exactly_once() -> None:
    """Until its answer comes it stays under way; at the end a change of leadership answers all that are left."""
    chance = seeded("every_request_is_answered_exactly_once")
    desk = Desk()
    asked: list[tuple[Connection, int]] = []
    leading = NO_BALLOT
    old: list[tuple[Ballot, int]] = []  # what was submitted, to be answered late, again, or under another ballot
    for turn in range(1, 1500):
        match chance.randrange(8):
            case 0:
                leading = Ballot(turn, chance.choice((1, 2, 2, 3)))
                role = "leader" if leading.node == 2 else "follower"
                desk.step(Leadership(role, leading, leading.node), tick=chance.random() < 0.5)
            case 1:
                desk.step(Leadership("candidate", NO_BALLOT, 0), tick=chance.random() < 0.5)
            case 2 if old:
                ballot, tag = chance.choice(old)
                desk.apply([(tag, Released())], ballot)
            case 3 if old:
                ballot, _ = old[-1]
                desk.apply([(tag, NotHeld()) for _, tag in chance.sample(old, min(5, len(old)))], ballot)
            case _:
                connection = chance.choice((ALICE, BOB))
                numbers = [len(asked) + more for more in range(1, chance.randrange(1, 5))]
                asked += [(connection, number) for number in numbers]
                requests = [FromClient(connection, request(number)) for number in numbers]
                desk.step(*requests, tick=chance.random() < 0.8)
        old = [(ballot, command.tag) for ballot, command in desk.submitted[-20:]]
    desk.step(Leadership("follower", Ballot(10_000, 3), 3))
    answered = [(to, number) for to, message in desk.said if (number := getattr(message, "number", 0))]
    assert sorted(answered, key=repr) == sorted(asked, key=repr)
    assert {type(message) for _, message in desk.said} == {Answer, Redirect}
    assert desk.gateway._pending == {}
    assert desk.gateway._pending_bytes == 0


# --- who leads -------------------------------------------------------------------------------------------------------


def test_who_knows_no_leader_says_so_and_that_nothing_happened(leader: Desk) -> None:
    desk = Desk()
    assert desk.ask(request(3)) == [(ALICE, Redirect(3, 0, "", indefinite=False))]
    assert desk.submitted == []


def test_a_follower_names_the_leader_and_says_that_nothing_happened() -> None:  # P9: definite
    desk = Desk()
    desk.step(Leadership("follower", Ballot(4, 3), 3))
    redirect = Redirect(3, 3, "tcp://h3:7411", indefinite=False)
    assert desk.ask(request(3), request(3)) == [(ALICE, redirect)] * 2
    assert desk.submitted == []


def test_a_follower_checks_nothing_and_remembers_nobody() -> None:
    desk = Desk()
    desk.step(Leadership("follower", Ballot(4, 3), 3))
    [(_, answer)] = desk.ask(request(3, operation=claim("")))
    assert isinstance(answer, Redirect)
    assert not desk.gateway._connections


@pytest.mark.parametrize(
    ("after", "endpoint"),
    [
        (Leadership("follower", Ballot(6, 3), 3), "tcp://h3:7411"),
        (Leadership("follower", NO_BALLOT, 0), ""),
        (Leadership("candidate", NO_BALLOT, 0), ""),
        (Leadership("leader", Ballot(6, 2), 2), "tcp://h2:7411"),
    ],
)
def test_a_change_of_leadership_answers_all_that_is_under_way_as_indefinite(
    leader: Desk, after: Leadership, endpoint: str
) -> None:  # P9: it was passed on, and a later leader may find it
    leader.ask(request(3), request(4))
    leader.ask(request(9, session=8), connection=BOB)
    assert leader.step(after) == [
        (ALICE, Redirect(3, after.leader, endpoint, indefinite=True)),
        (ALICE, Redirect(4, after.leader, endpoint, indefinite=True)),
        (BOB, Redirect(9, after.leader, endpoint, indefinite=True)),
    ]
    assert leader.step(after) == [], "once"


def test_what_was_let_in_but_not_passed_on_is_not_passed_on_after_a_change_of_leadership(leader: Desk) -> None:
    leader.step(FromClient(ALICE, request(3)), tick=False)
    [(_, answer)] = leader.step(Leadership("leader", Ballot(6, 2), 2))
    assert isinstance(answer, Redirect)
    assert leader.submitted == []


def test_to_hear_again_of_the_same_leader_changes_nothing(leader: Desk) -> None:
    leader.ask(request(3))
    assert leader.step(Leadership("leader", MINE, 2)) == []
    assert leader.apply([(leader.last_tag(), Released())]) == [(ALICE, Answer(3, 4_000, Released()))]


def test_tags_of_an_old_ballot_are_never_answered(leader: Desk) -> None:
    leader.ask(request(3))
    old_tag = leader.last_tag()
    leader.step(Leadership("leader", Ballot(6, 2), 2))
    leader.ask(request(4))
    new_tag = leader.last_tag()
    said = len(leader.said)
    for ballot in (MINE, NO_BALLOT, Ballot(7, 2), Ballot(6, 1)):
        assert leader.apply([(old_tag, Released()), (new_tag, Released())], ballot) == []
    assert leader.apply([(old_tag, Released())], Ballot(6, 2)) == []
    assert leader.apply([(new_tag, NotHeld())], Ballot(6, 2)) == [(ALICE, Answer(4, 4_000, NotHeld()))]
    assert len(leader.said) == said + 1


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_more_requests_than_may_be_under_way_are_answered_busy_until_others_are_done(
    leader: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr(limits, "GATEWAY_IN_FLIGHT_MAX", 3)
    said = leader.ask(*[request(number) for number in range(1, 6)])
    assert said == [(ALICE, Busy(4)), (ALICE, Busy(5))]
    assert [command.number for _, command in leader.submitted] == [1, 2, 3]
    leader.apply([(leader.submitted[0][1].tag, Released())])
    assert leader.ask(request(4), request(5)) == [(ALICE, Busy(5))]
    assert leader.gateway.busy == 3


def test_more_bytes_than_may_be_under_way_are_answered_busy_and_smaller_requests_still_get_in(
    leader: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr(limits, "GATEWAY_IN_FLIGHT_BYTES_MAX", 2_500)
    large = [request(number, operation=claim(data=bytes(1_000))) for number in range(1, 4)]
    assert leader.ask(*large) == [(ALICE, Busy(3))]
    assert leader.ask(request(4)) == []
    tags = [command.tag for _, command in leader.submitted]
    leader.apply([(tag, status(tag)) for tag in tags])
    assert leader.gateway._pending_bytes == 0
    assert leader.ask(large[2]) == []


def test_a_change_of_leadership_makes_room(leader: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_IN_FLIGHT_MAX", 2)
    leader.ask(request(1), request(2))
    assert leader.ask(request(3)) == [(ALICE, Busy(3))]
    leader.step(Leadership("leader", Ballot(6, 2), 2))
    assert leader.ask(request(3), request(4)) == []


def test_what_is_answered_busy_or_rejected_leaves_no_trace(leader: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_IN_FLIGHT_MAX", 0)
    leader.ask(request(1), request(2, operation=claim("")))
    assert [type(message) for _, message in leader.said] == [Busy, Rejected]
    assert leader.submitted == []
    assert not leader.gateway._pending
    assert not leader.gateway._connections
    assert leader.step(Leadership("follower", Ballot(6, 1), 1)) == []


@pytest.mark.parametrize(
    "operation",
    [
        claim(""),
        claim("a\nb"),
        claim("x" * (limits.NAME_BYTES_MAX + 1)),
        claim(data=bytes(limits.DATA_BYTES_MAX + 1)),
        Claim("default", (), "me", b"", 0, 0, detached=False),
        Claim("default", (Resource(("a",)),), "me", b"", limits.TTL_MS_MIN - 1, 0, detached=False),
        Claim("default", (Resource(("a",)),), "me", b"", 0, 0, detached=True),
        OpenSession(b"short", 10_000, ""),
        OpenSession(bytes(limits.SESSION_KEY_BYTES), limits.SESSION_TIMEOUT_MS_MAX + 1, ""),
        Renew(1, limits.TTL_MS_MAX + 1),
        Describe("", ("a",)),
        ListClaims("", 0, limits.LIST_PAGE_MAX + 1),
    ],
)
def test_a_request_that_is_wrong_in_itself_is_rejected_with_the_reason(leader: Desk, operation: Operation) -> None:
    [(connection, answer)] = leader.ask(request(3, operation=operation))
    assert connection == ALICE
    assert isinstance(answer, Rejected)
    assert answer.number == 3
    assert len(answer.reason) > 10
    assert leader.submitted == []


def test_p11_a_command_that_no_entry_of_the_log_has_room_for_is_refused(
    leader: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BATCH_BYTES_MAX", 100)
    [(connection, answer)] = leader.ask(request(3, operation=OpenSession(b"k" * 16, 10_000, "x" * 100)))
    assert connection == ALICE
    assert isinstance(answer, Rejected)
    assert answer.number == 3
    assert "at most 100 bytes" in answer.reason
    assert leader.submitted == []


# --- pushes ----------------------------------------------------------------------------------------------------------


def test_a_push_goes_to_the_connection_over_which_its_session_was_heard_last(leader: Desk) -> None:
    notices = [Notice(session, 4_000, status(session)) for session in (7, 8)]
    leader.hear(7, ALICE)
    leader.hear(8, ALICE)
    leader.hear(7, BOB)
    assert leader.apply([], notices=notices) == [(BOB, notices[0]), (ALICE, notices[1])]
    leader.sign_of_life(7, 9_000, ALICE)
    assert leader.apply([], notices=notices[:1]) == [(ALICE, notices[0])]


@pytest.mark.parametrize("code", [SESSION_EXPIRED, SESSION_STOLEN])
def test_who_only_names_a_session_gets_none_of_its_pushes(leader: Desk, code: str) -> None:
    notice = Notice(7, 4_000, status(7))
    leader.hear(7, ALICE)
    leader.ask(request(5), connection=BOB)
    assert leader.apply([], notices=[notice]) == [(ALICE, notice)], "while it is open whose request this is"
    leader.apply([(leader.last_tag(), Failed(code, "as it is"))])
    leader.ask(request(6, operation=Describe("default", ("job",))), connection=BOB)
    leader.apply([(leader.last_tag(), NotHeld())])
    leader.sign_of_life(7, 0 if code == SESSION_EXPIRED else 1, BOB)
    assert leader.apply([], notices=[notice]) == [(ALICE, notice)]


def test_who_has_attached_a_session_gets_its_pushes_and_who_had_it_is_told(leader: Desk) -> None:
    leader.hear(7, ALICE)
    attach = AttachSession(7, bytes(limits.SESSION_KEY_BYTES), 1, 10_000, "the heir")
    opened = SessionOpened(7, 14_000, 1)
    for told in ([(BOB, Answer(1, 4_000, opened)), (ALICE, SessionStolen(7, 1))], [(BOB, Answer(1, 4_000, opened))]):
        leader.ask(request(1, session=0, operation=attach), connection=BOB)
        assert leader.apply([(leader.last_tag(), opened)]) == told, "he is told, and told once"
    notice = Notice(7, 4_000, status(7))
    assert leader.apply([], notices=[notice]) == [(BOB, notice)]


def test_a_push_follows_the_answers_of_its_batch(leader: Desk) -> None:
    leader.ask(request(1))
    notice = Notice(7, 4_000, status(9))
    answers = leader.apply([(leader.last_tag(), Released())], notices=[notice])
    assert answers == [(ALICE, Answer(1, 4_000, Released())), (ALICE, notice)]


def test_a_push_for_a_session_that_was_not_heard_here_is_dropped(leader: Desk) -> None:
    leader.ask(request(1, session=0, operation=OpenSession(bytes(limits.SESSION_KEY_BYTES), 10_000, "")))
    assert leader.apply([], notices=[Notice(9, 4_000, status(1)), Notice(0, 4_000, status(1))]) == []


def test_connections_are_forgotten_with_the_leadership(leader: Desk) -> None:
    leader.ask(request(1))
    ballot = Ballot(6, 2)
    leader.step(Leadership("leader", ballot, 2))
    assert leader.apply([], ballot, [Notice(7, 4_000, status(1))]) == []


def test_of_too_many_sessions_the_one_heard_least_recently_gets_no_pushes(
    leader: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:  # P10
    monkeypatch.setattr(limits, "CONNECTIONS_TRACKED_MAX", 3)
    for session in (1, 2, 3, 1, 4):
        leader.hear(session, ALICE)
    notices = [Notice(session, 4_000, status(1)) for session in (1, 2, 3, 4)]
    assert [message for _, message in leader.apply([], notices=notices)] == [notices[0], notices[2], notices[3]]


# --- status ----------------------------------------------------------------------------------------------------------


def test_the_status_tells_what_the_node_knows_of_itself(leader: Desk) -> None:
    leader.step(Summary(40, 39, 5_000, 3, 2, 1, 17, 9, 8, 7, 6, 5), Counters((Counter("packets_malformed", 4),)))
    assert leader.step(FromClient(BOB, StatusRequest(12))) == [
        (
            BOB,
            StatusAnswer(
                number=12,
                node=2,
                cluster="test",
                version="1.2.3",
                role="leader",
                ballot=MINE,
                leader=2,
                leader_endpoint="tcp://h2:7411",
                chosen_upto=40,
                applied_upto=39,
                clock_ms=5_000,
                sessions=3,
                held=2,
                waiting=1,
                revision=17,
                counters=(Counter("packets_malformed", 4),),
                namespaces=9,
                semaphores=8,
                pins=7,
                registers=6,
                lapsed=5,
            ),
        )
    ]
    assert leader.submitted == []


def test_the_status_is_told_by_followers_too_and_however_busy_the_node_is(
    leader: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GATEWAY_IN_FLIGHT_MAX", 0)
    leader.step(Leadership("follower", Ballot(9, 1), 1))
    [(_, answer)] = leader.step(FromClient(ALICE, StatusRequest(1)))
    assert isinstance(answer, StatusAnswer)
    assert (answer.role, answer.leader, answer.leader_endpoint) == ("follower", 1, "tcp://h1:7411")
    leader.step(Leadership("candidate", NO_BALLOT, 0))
    [(_, answer)] = leader.step(FromClient(ALICE, StatusRequest(2)))
    assert isinstance(answer, StatusAnswer)
    assert (answer.role, answer.leader, answer.leader_endpoint) == ("candidate", 0, "")


def test_the_same_messages_have_the_same_effects() -> None:
    def run() -> list[tuple[Connection, object]]:
        chance = random.Random(5)
        desk = Desk()
        for turn in range(200):
            desk.step(
                Leadership("leader", Ballot(turn // 20, 2), 2),
                *[FromClient(chance.choice((ALICE, BOB)), request(chance.randrange(50))) for _ in range(3)],
            )
            desk.apply([(chance.randrange(600), Released())], Ballot(turn // 20, 2))
        return desk.said

    assert run() == run()
