"""The acceptor against every order of ballot, slot and vote, the expectation written as the rule (P1, P2, P10, P11)."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, combinations, product
from typing import Any

import pytest

from lessor.core import limits
from lessor.core.acceptor import Acceptor
from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.effects import Address, Effects, Role, Send
from lessor.core.messages import (
    Accept,
    Accepted,
    Chosen,
    Fetch,
    Fetched,
    Installed,
    Learn,
    Prepare,
    Progress,
    Promise,
    Refuse,
    SnapshotNeeded,
    Tick,
    Truncate,
    Vote,
    Watermark,
    WritePromise,
    WriteVote,
    WriteWatermark,
)

from ..support.consensus import CheckedAcceptor, Disk

ME = 2
MEMBERS = (1, 2, 3)
STRANGER = 9
NODES = (*MEMBERS, STRANGER)
MY_LEARNER = Address(ME, Role.LEARNER)

OLD = Ballot(4, 1)
PROMISES = (NO_BALLOT, *(Ballot(5, node) for node in MEMBERS))
BALLOTS = tuple(Ballot(counter, node) for counter in (4, 5, 6) for node in NODES)  # every order to every promise
PROPOSALS = tuple(ballot for ballot in BALLOTS if ballot.node in MEMBERS)

TRUNCATED, APPLIED = 3, 5  # where these worlds stand: slots 1 to 3 are forgotten, 4 and 5 applied, the rest is open
WATERMARKS = ((NO_BALLOT, 0), (Ballot(5, 1), 3), (Ballot(5, 2), 4), (Ballot(5, 2), 6), (Ballot(6, 3), 4))


def world(
    promised: Ballot,
    votes: tuple[Vote, ...] = (),
    *,
    truncated_upto: int = TRUNCATED,
    applied_upto: int = APPLIED,
    watermark: tuple[Ballot, int] = (NO_BALLOT, 0),
) -> CheckedAcceptor:
    """A checked acceptor whose disk holds this."""
    disk = Disk(promised, {vote.slot: vote for vote in votes}, truncated_upto, watermark)
    return CheckedAcceptor.on(disk, ME, MEMBERS, applied_upto)


def rows(*wanted: tuple[bool, Any]) -> list[Any]:
    """What of this is wanted, in this order."""
    return [row for is_wanted, row in wanted if is_wanted]


def refusal(ballot: Ballot, promised: Ballot) -> Effects:
    """Nothing is written; the proposer of the ballot is told what was promised."""
    return Effects([], [Send(Address(ballot.node, Role.PROPOSER), Refuse(ballot, ME, promised))])


def subsets(slots: range) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(slots, count) for count in range(len(slots) + 1))


def vote(slot: int, ballot: Ballot = OLD, entry: bytes = b"value") -> Vote:
    return Vote(slot, ballot, entry)


# --- phase 1 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("promised", PROMISES, ids=str)
def test_a_prepare_is_promised_unless_a_higher_ballot_was_and_shows_every_vote_from_its_slot_on(
    promised: Ballot,
) -> None:
    """P1 and P2, for every ballot, every first slot and every set of votes; who is no member is not answered (P11)."""
    for ballot, first, slots in product(BALLOTS, range(9), subsets(range(4, 8))):
        votes = tuple(vote(slot, min(promised, OLD)) for slot in slots)
        acceptor = world(promised, votes)
        effects = acceptor.step(Prepare(ballot, first))
        shown = tuple(seen for seen in votes if seen.slot >= first)
        if ballot.node not in MEMBERS:
            expected = Effects()
        elif ballot < promised:
            expected = refusal(ballot, promised)
        else:
            answer = Promise(ballot, ME, first, shown, 0, TRUNCATED)
            expected = Effects(
                rows((ballot > promised, WritePromise(ballot))), [Send(Address(ballot.node, Role.PROPOSER), answer)]
            )
        assert effects == expected, (ballot, first, slots)
        obeyed = ballot.node in MEMBERS
        assert acceptor.live.promised == (max(promised, ballot) if obeyed else promised)
        assert acceptor.live.votes == {seen.slot: seen for seen in votes}, "a promise changes no vote"


# --- phase 2 ---------------------------------------------------------------------------------------------------------


def accept_cases(promised: Ballot) -> Iterator[tuple[Ballot, int, Vote | None, bytes]]:
    """Every ballot, in a slot truncated, just truncated, applied or open, over every vote that there can be."""
    for ballot, slot in product(BALLOTS, (TRUNCATED - 1, TRUNCATED, APPLIED, APPLIED + 2)):
        yield ballot, slot, None, b"value"
        if slot > TRUNCATED:
            for before, entry in product(PROPOSALS, (b"value", b"other")):
                if before <= promised:
                    yield ballot, slot, vote(slot, before, entry), b"value"


def accept_expected(promised: Ballot, mine: Vote | None, accept: Accept, watermark: tuple[Ballot, int]) -> Effects:
    """The rule of phase 2."""
    ballot, slot = accept.ballot, accept.slot
    if ballot.node not in MEMBERS:
        return Effects()
    if ballot < promised:
        return refusal(ballot, promised)
    from_peer, kept, again = ballot.node != ME, slot > TRUNCATED, mine is not None and mine.ballot == ballot
    # one ballot proposes one value in a slot: what was accepted under it stays
    held = mine if mine is not None and again else Vote(slot, ballot, accept.entry)
    mark = (ballot, accept.chosen_upto)
    return Effects(
        rows(
            (ballot > promised, WritePromise(ballot)),
            (kept and not again, WriteVote(held)),
            (mark > watermark, WriteWatermark(*mark)),
        ),
        rows(
            (kept, Send(MY_LEARNER, Learn(held))),
            (from_peer, Send(Address(ballot.node, Role.LEARNER), Accepted(ballot, ME, slot))),
            (from_peer, Send(MY_LEARNER, Watermark(*mark))),
        ),
    )


@pytest.mark.parametrize("promised", PROMISES, ids=str)
def test_an_accept_at_or_above_the_promise_is_written_and_told_and_one_below_is_refused(promised: Ballot) -> None:
    """P1 and P2. A truncated slot is chosen: it is acknowledged unread. Who is no member changes nothing (P11)."""
    for ballot, slot, mine, entry in accept_cases(promised):
        acceptor = world(promised, (mine,) if mine else ())
        accept = Accept(ballot, slot, entry, 2)
        assert acceptor.step(accept) == accept_expected(promised, mine, accept, (NO_BALLOT, 0)), (ballot, slot, mine)
        obeyed = ballot.node in MEMBERS and ballot >= promised
        assert acceptor.live.promised == (ballot if obeyed else promised)


@pytest.mark.parametrize("promised", PROMISES, ids=str)
def test_a_watermark_is_kept_if_its_ballot_or_within_its_ballot_its_slot_is_higher(promised: Ballot) -> None:
    """The marks of two ballots are not to be mixed (decision 6); the same mark is not written twice."""
    for ballot, watermark, chosen_upto in product(BALLOTS, WATERMARKS, range(2, 8)):
        if watermark[0] > promised:
            continue  # a mark comes with an Accept, which is a promise
        acceptor = world(promised, watermark=watermark)
        accept = Accept(ballot, 6, b"value", chosen_upto)
        assert acceptor.step(accept) == accept_expected(promised, None, accept, watermark), (ballot, watermark)
        assert acceptor.live.watermark >= watermark, "the watermark fell"


@pytest.mark.parametrize("promised", PROMISES, ids=str)
def test_a_message_that_is_repeated_is_answered_again_and_writes_nothing(promised: Ballot) -> None:
    """P2: what was said the first time is on disk, so it may be said again."""
    for ballot, slot in product(BALLOTS, (2, 3, 5, 7)):
        for message in (Prepare(ballot, slot), Accept(ballot, slot, b"value", 4)):
            acceptor = world(promised, (vote(5, min(promised, OLD)),))
            first = acceptor.step(message)
            second = acceptor.step(message)
            if isinstance(message, Accept) or first.writes == []:
                assert second == Effects([], first.sends), message
            else:
                assert second.writes == [], message


# --- catch-up: serving -----------------------------------------------------------------------------------------------


def test_a_fetch_of_a_peer_is_answered_with_the_applied_votes_without_a_gap_or_with_the_truncation_point() -> None:
    """P1: nothing that is not applied, nothing behind a hole; no answer to who is no peer or asks for what is open."""
    for asking, first, applied, truncated in product(NODES, range(9), (0, 3, 4, 5, 7), (0, 3)):
        journals = subsets(range(4, 8)) if truncated else iter([(1, 2, 3, 4, 5, 6, 7), (1, 2, 4, 5), (2, 3)])
        for slots in journals:
            votes = {slot: vote(slot) for slot in slots}
            acceptor = world(Ballot(5, 1), tuple(votes.values()), truncated_upto=truncated, applied_upto=applied)
            effects = acceptor.step(Fetch(asking, first))
            if asking in {ME, STRANGER} or first > applied:
                assert effects == Effects(), (asking, first, applied, slots)
                continue
            asked = range(max(first, 1), applied + 1)
            holes = [slot for slot in asked if slot not in votes]
            run = tuple(votes[slot] for slot in asked if not holes or slot < holes[0])
            upto = truncated if run else max(truncated, first)
            expected = Effects([], [Send(Address(asking, Role.ACCEPTOR), Fetched(ME, run, upto))])
            assert effects == expected, (asking, first, applied, slots)


# --- catch-up: taking ------------------------------------------------------------------------------------------------


def fetched_cases(promised: Ballot) -> Iterator[tuple[Vote | None, Vote]]:
    """A fetched vote in every kind of slot, over every vote that there can be: the values differ only below it."""
    for ballot, slot in product(PROPOSALS, (TRUNCATED - 1, TRUNCATED, APPLIED, APPLIED + 2)):
        came = vote(slot, ballot)
        yield None, came
        if slot > TRUNCATED:
            for before, entry in product(PROPOSALS, (b"value", b"other")):
                if before <= promised and (entry == came.entry or before < ballot):
                    yield vote(slot, before, entry), came


def fetched_expected(promised: Ballot, mine: dict[int, Vote | None], page: tuple[Vote, ...]) -> Effects:
    """The rule: whatever is not truncated is chosen; what is newer than the own vote is written, and promised."""
    effects = Effects()
    for came in page:
        before = mine[came.slot]
        if came.slot <= TRUNCATED:
            continue
        if before is None or before.ballot < came.ballot:
            effects.writes += rows((came.ballot > promised, WritePromise(came.ballot)), (True, WriteVote(came)))
            promised = max(promised, came.ballot)
        effects.sends.append(Send(MY_LEARNER, Chosen(came)))
    return effects


@pytest.mark.parametrize("promised", PROMISES, ids=str)
def test_a_fetched_value_replaces_a_lower_vote_and_is_told_as_chosen(promised: Ballot) -> None:
    """P1 and P2: it is journalled before it is applied (decision 5)."""
    for mine, came in fetched_cases(promised):
        acceptor = world(promised, (mine,) if mine else ())
        effects = acceptor.step(Fetched(1, (came,), 0))
        assert effects == fetched_expected(promised, {came.slot: mine}, (came,)), (mine, came)


@pytest.mark.parametrize("promised", PROMISES, ids=str)
def test_a_fetched_value_is_a_promise_so_that_no_lower_ballot_replaces_it(promised: Ballot) -> None:
    """P1: what the node serves to others as chosen stays, whatever arrives late (decision 6)."""
    for mine, came in fetched_cases(promised):
        if came.slot <= TRUNCATED:
            continue
        acceptor = world(promised, (mine,) if mine else ())
        acceptor.step(Fetched(1, (came,), 0))
        held = acceptor.live.votes[came.slot]
        assert held.entry == came.entry
        for late in PROPOSALS:
            if late < came.ballot:
                effects = acceptor.step(Accept(late, came.slot, b"late", 0))
                assert effects == refusal(late, acceptor.live.promised), (mine, came, late)
        assert acceptor.disk.votes[came.slot] == held


@pytest.mark.parametrize("promised", PROMISES, ids=str)
def test_a_page_of_two_fetched_values_is_the_same_as_one_after_the_other(promised: Ballot) -> None:
    """P1, for every pair of a truncated, an empty, a lower, an equal and a higher slot."""
    ballots = (Ballot(4, 1), Ballot(5, 3), Ballot(6, 1))
    for first, second in product(
        product(ballots, (None, *ballots), (2, 6)), product(ballots, (None, *ballots), (3, 7))
    ):
        mine: dict[int, Vote | None] = {}
        for _, before, slot in (first, second):
            legal = before is not None and before <= promised and slot > TRUNCATED
            mine[slot] = vote(slot, before) if legal and before is not None else None
        page = (vote(first[2], first[0]), vote(second[2], second[0]))
        held = tuple(before for before in mine.values() if before is not None)
        together, apart = world(promised, held), world(promised, held)
        effects = together.step(Fetched(3, page, 0))
        assert effects == fetched_expected(promised, mine, page), (mine, page)
        one, two = (apart.step(Fetched(3, (came,), 0)) for came in page)
        assert Effects(one.writes + two.writes, one.sends + two.sends) == effects
        assert vars(together.live) == vars(apart.live)


@pytest.mark.parametrize("upto", [0, 3, 4, 9])
def test_an_empty_page_means_that_a_snapshot_is_needed_from_its_sender(upto: int) -> None:
    for sender in (1, 3):
        effects = world(Ballot(5, 1), (vote(4),)).step(Fetched(sender, (), upto))
        assert effects == Effects([], [Send(MY_LEARNER, SnapshotNeeded(sender))])


# --- paging ----------------------------------------------------------------------------------------------------------


def pages_of(votes: list[Vote], slots_max: int, bytes_max: int) -> list[tuple[Vote, ...]]:
    """The rule: a page ends when it has so many slots, or when what it holds has reached so many bytes."""
    pages: list[tuple[Vote, ...]] = [()]
    for item in votes:
        if len(pages[-1]) == slots_max or sum(len(seen.entry) for seen in pages[-1]) >= bytes_max:
            pages.append(())
        pages[-1] += (item,)
    return pages


@pytest.mark.parametrize(
    "sizes", [(1,) * 7, (5,) * 7, (0,) * 7, (20, 1, 1, 20, 1, 1, 1), (1, 2, 3, 4, 5, 6, 7)], ids=str
)
def test_promises_and_fetches_are_paged_and_the_pages_are_everything_once(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10, for every number of slots and of bytes in a page, with and without holes."""
    for slots_max, bytes_max, hole in product(range(1, 9), range(1, 24), (0, 6)):
        monkeypatch.setattr(limits, "PAGE_SLOTS", slots_max)
        monkeypatch.setattr(limits, "PAGE_BYTES", bytes_max)
        votes = [vote(slot, entry=bytes(size)) for slot, size in enumerate(sizes, 4) if slot != hole]
        acceptor = world(Ballot(5, 1), tuple(votes), applied_upto=10)
        first, seen = 1, []
        while first:
            (send,) = acceptor.step(Prepare(Ballot(5, 1), first)).sends
            assert send.message.from_slot == first
            seen.append(send.message.votes)
            first = send.message.next_page
        assert seen == pages_of(votes, slots_max, bytes_max), (slots_max, bytes_max, hole)

        first, seen = 4, []
        while first <= 10 and first != hole:
            (send,) = acceptor.step(Fetch(1, first)).sends
            seen.append(send.message.votes)
            first = send.message.votes[-1].slot + 1
        below = [item for item in votes if not hole or item.slot < hole]
        assert seen == pages_of(below, slots_max, bytes_max), (slots_max, bytes_max, hole)


# --- truncation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retain", [(4, 1000), (1000, 20), (4, 20), (1, 1), (8, 8)], ids=str)
def test_the_journal_is_cut_to_its_bounds_but_never_beyond_what_is_saved(
    retain: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: by count and by bytes. What is not in the lease tables yet is kept, since a restart replays it."""
    slots, size = retain
    monkeypatch.setattr(limits, "JOURNAL_RETAIN_SLOTS", slots)
    monkeypatch.setattr(limits, "JOURNAL_RETAIN_BYTES", size)
    cuts = 0
    for count, saved, behind, sizes in product(
        (0, 1, 2, 4, 5, 6, 9), range(14), (0, 2), ((1, 1), (5, 5), (9, 0), (0, 9))
    ):
        for hole in (0, 4, 6):
            votes = {slot: vote(slot, entry=bytes(sizes[slot % 2])) for slot in range(4, 4 + count) if slot != hole}

            def left(upto: int, votes: dict[int, Vote] = votes) -> tuple[int, int]:
                kept = [item for slot, item in votes.items() if slot > upto]
                return len(kept), sum(len(item.entry) for item in kept)

            acceptor = world(Ballot(5, 1), tuple(votes.values()), applied_upto=0)
            effects = acceptor.step(Progress(saved + behind, saved))
            upto = TRUNCATED
            if left(upto)[0] > slots * 5 // 4 or left(upto)[1] > size:
                # as little as brings it within the bounds, with some room so that not every step cuts
                while upto < saved and (left(upto)[0] > slots or left(upto)[1] > size * 3 // 4):
                    upto += 1
            assert effects == Effects(rows((upto > TRUNCATED, Truncate(upto)))), (count, saved, sizes, hole)
            assert acceptor.live.truncated_upto == upto <= max(saved, TRUNCATED)
            assert sorted(acceptor.live.votes) == [slot for slot in votes if slot > upto]
            assert acceptor.live.applied_upto == saved + behind
            cuts += upto > TRUNCATED
    assert cuts > 20, "this bound was hardly reached"


def test_progress_never_takes_back_what_was_applied() -> None:
    """P1: what is served to others goes by it."""
    for before, after in product(range(8), range(8)):
        acceptor = world(Ballot(5, 1), (vote(4), vote(5)), applied_upto=before)
        assert acceptor.step(Progress(after, 0, Ballot(9, 3))) == Effects()
        assert acceptor.live.applied_upto == max(before, after)
        assert acceptor.live.promised == Ballot(5, 1)


def test_an_installed_snapshot_truncates_up_to_its_slot_and_no_slot_beyond() -> None:
    """P1: a vote beyond the snapshot may be the only one that makes its value chosen."""
    for slot, truncated, applied, slots in product(range(9), (0, 3), (0, 3, 5, 7), subsets(range(4, 8))):
        votes = {item: vote(item) for item in slots}
        acceptor = world(Ballot(5, 1), tuple(votes.values()), truncated_upto=truncated, applied_upto=applied)
        assert acceptor.step(Installed(slot)) == Effects(rows((slot > truncated, Truncate(slot))))
        upto = max(truncated, slot)
        assert acceptor.live.truncated_upto == upto
        assert acceptor.live.applied_upto == max(applied, slot)
        assert acceptor.live.votes == {item: votes[item] for item in slots if item > upto or slot <= truncated}
        assert acceptor.live.promised == Ballot(5, 1)


# --- restart and time ------------------------------------------------------------------------------------------------


def test_after_a_restart_the_learner_is_told_every_vote_that_is_not_applied_in_order_then_the_watermark() -> None:
    """P2: what was acknowledged before is learnt again; telling changes nothing."""
    marks = [(NO_BALLOT, 0), *((Ballot(5, node), upto) for node in MEMBERS for upto in range(3, 9))]
    for slots, applied, watermark in product(subsets(range(4, 8)), range(3, 9), marks):
        votes = tuple(vote(slot) for slot in reversed(slots))
        acceptor = world(Ballot(5, 3), votes, applied_upto=applied, watermark=watermark).live
        before = dict(vars(acceptor))
        told = [Send(MY_LEARNER, Learn(vote(slot))) for slot in slots if slot > applied]
        told += rows((watermark[1] > applied, Send(MY_LEARNER, Watermark(*watermark))))
        assert acceptor.recover() == Effects([], told), (slots, applied, watermark)
        assert vars(acceptor) == before


def test_time_means_nothing_to_an_acceptor() -> None:
    acceptor = world(Ballot(5, 1), (vote(4), vote(6)))
    before = dict(vars(acceptor.live))
    for now_ms in (0, 1, 10**12):
        assert acceptor.step(Tick(now_ms)) == Effects()
    assert vars(acceptor.live) == before


def test_an_acceptor_belongs_to_its_members() -> None:
    with pytest.raises(AssertionError):
        Acceptor(STRANGER, MEMBERS)


# --- whatever comes, in any order ------------------------------------------------------------------------------------


def test_the_laws_hold_in_every_state_that_these_messages_bring_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1 and P2 after every step: the promise never falls, no vote gives way to a lower one, a restart changes nothing.

    In slot 1 the value of ballot 2.3 is chosen, so every higher ballot proposes it too; ballot 1.1 proposed another.
    """
    monkeypatch.setattr(limits, "JOURNAL_RETAIN_SLOTS", 1)
    low, middle, high = Ballot(1, 1), Ballot(2, 3), Ballot(3, 2)
    alphabet: list[Any] = [Prepare(ballot, 1) for ballot in (low, middle, high)]
    alphabet += [Accept(low, 1, b"other", 0), Accept(middle, 1, b"value", 0), Accept(high, 1, b"value", 1)]
    alphabet += [Accept(low, 2, b"low", 0), Accept(middle, 2, b"middle", 1), Accept(high, 2, b"high", 1)]
    alphabet += [Fetched(3, (Vote(1, middle, b"value"),), 0), Fetched(3, (), 1), Installed(1), Fetch(1, 1)]
    alphabet += [Progress(1, 0, middle), Progress(1, 1, middle)]
    reached = [(Disk(), 0)]
    seen = [str(reached[0])]
    for disk, applied in reached:  # grows while it is walked, until nothing new turns up
        for message in alphabet:
            acceptor = CheckedAcceptor.on(replace(disk, votes=dict(disk.votes)), ME, MEMBERS, applied)
            acceptor.step(message)
            acceptor.disk.votes = dict(sorted(acceptor.disk.votes.items()))
            state = (acceptor.disk, acceptor.live.applied_upto)
            if str(state) not in seen:
                seen.append(str(state))
                reached.append(state)
    assert len(reached) > 80, "these messages reach fewer states than they should"
