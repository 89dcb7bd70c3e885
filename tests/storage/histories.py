"""Random histories of journals and of lease states, and the plain model that a journal is compared with."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lessor.core.ballot import NO_BALLOT, Ballot
from lessor.core.commands import (
    FOREVER,
    Cancel,
    Claim,
    CloseSession,
    Command,
    OpenSession,
    Operation,
    Ping,
    Release,
    Renew,
    proof_of,
)
from lessor.core.encoding import encode
from lessor.core.entries import Batch, Entry, Lead, NoOp
from lessor.core.lease_state import LeaseState
from lessor.core.messages import Truncate, Vote, WritePromise, WriteVote, WriteWatermark
from lessor.core.resources import Resource
from lessor.core.results import ClaimPhase, ClaimStatus, SessionOpened
from lessor.storage.directory import Identity
from lessor.storage.journal import JournalContents, JournalWrite

ALICE = Identity("lessor", 1, (1, 2, 3))
"""The node to whom the data directories of these tests belong."""


@dataclass
class ModelJournal:
    """What a journal is, said in the plainest way: each write on its own, in order."""

    promised: Ballot = NO_BALLOT
    votes: dict[int, Vote] = field(default_factory=dict)
    truncated_upto: int = 0
    watermark: tuple[Ballot, int] = (NO_BALLOT, 0)

    def commit(self, writes: Sequence[JournalWrite]) -> None:
        for write in writes:
            match write:
                case WritePromise(ballot):
                    self.promised = ballot
                case WriteVote(vote):
                    self.votes[vote.slot] = vote
                case WriteWatermark(ballot, chosen_upto):
                    self.watermark = (ballot, chosen_upto)
                case Truncate(upto):
                    self.truncated_upto = max(self.truncated_upto, upto)
                    self.votes = {slot: vote for slot, vote in self.votes.items() if slot > upto}

    def load(self) -> JournalContents:
        votes = [self.votes[slot] for slot in sorted(self.votes)]
        return JournalContents(self.promised, votes, self.truncated_upto, self.watermark)


def journal_writes(chance: random.Random) -> Iterator[list[JournalWrite]]:
    """Batches without end, as an acceptor could write them: slots move on, are overwritten, and are forgotten."""
    ballot, slot, truncated = Ballot(1, 1), 0, 0
    while True:
        writes: list[JournalWrite] = []
        for _ in range(chance.choice((0, 1, 1, 1, 2, 5, 20))):
            what = chance.random()
            if what < 0.08:
                ballot = Ballot(ballot.counter + chance.randint(1, 3), chance.randint(1, 3))
                writes.append(WritePromise(ballot))
            elif what < 0.2:
                writes.append(WriteWatermark(ballot, chance.randint(0, slot)))
            elif what < 0.25 and slot > truncated:
                truncated = chance.randint(truncated, slot)
                writes.append(Truncate(truncated))
            elif what < 0.35 and slot > truncated:
                writes.append(vote(chance.randint(truncated + 1, slot), ballot, some_bytes(chance)))
            else:
                slot += chance.choice((1, 1, 1, 1, 2))
                writes.append(vote(slot, ballot, some_bytes(chance)))
        yield writes


FIRST = Ballot(1, 1)


def vote(slot: int, ballot: Ballot = FIRST, entry: bytes = b"entry") -> WriteVote:
    return WriteVote(Vote(slot, ballot, entry))


def some_bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 50, 200, 200, 200, 3_000)))


@dataclass
class LeaseHistory:
    """A growing log of leases: applies to `state` what some clients could ask for, and remembers the entries."""

    chance: random.Random
    state: LeaseState = field(default_factory=LeaseState)
    term: Ballot = NO_BALLOT
    elapsed_ms: int = 0
    number: int = 0
    sessions: list[int] = field(default_factory=list)
    claims: list[tuple[int, int]] = field(default_factory=list)
    """Session and number of each claim that was made."""
    tokens: list[tuple[int, int]] = field(default_factory=list)
    """Session and token of each grant that was answered."""

    def apply_some(self, entries: int) -> list[Entry]:
        """Apply this many more entries, and return them."""
        return [self.apply_one() for _ in range(entries)]

    def apply_one(self) -> Entry:
        entry = self.next_entry()
        outcome = self.state.apply(self.state.applied_upto + 1, entry)
        for tag, result in outcome.answers:
            match result:
                case SessionOpened(session, _):
                    self.sessions.append(session)
                case ClaimStatus(claim, phase, token, _, _):
                    self.claims.append((tag, claim))
                    if phase == ClaimPhase.HELD:
                        self.tokens.append((tag, token))
                case _:
                    pass
        return entry

    def next_entry(self) -> Entry:
        what = self.chance.random()
        if self.term == NO_BALLOT or what < 0.02:
            self.term = Ballot(self.term.counter + 1, self.chance.randint(1, 3))
            self.elapsed_ms = 0
            return Lead(self.term)
        if what < 0.04:
            return NoOp()
        self.elapsed_ms += self.chance.choice((0, 1, 5, 50, 400))
        term = self.term
        if what < 0.06:  # a straggler, without effect
            term = Ballot(term.counter - 1, 1)
        commands = [self.next_command() for _ in range(self.chance.choice((0, 1, 2, 6)))]
        return Batch(term, self.elapsed_ms, tuple(map(encode, commands)))

    def next_command(self) -> Command:
        chance = self.chance
        what = chance.random()
        if not self.sessions or what < 0.06:
            key, text = chance.randbytes(16), chance.choice(("", "worker", "naïve\x00\n'\"", "日本"))
            return Command(0, 0, 0, 0, OpenSession(key, chance.choice((500, 2_000, 60_000)), text))
        session = chance.choice(self.sessions[-8:])
        operation: Operation
        if what < 0.45 or not self.claims:
            operation = self.next_claim()
        elif what < 0.55:
            session, claim = chance.choice(self.claims[-20:])
            operation = Cancel(claim)
        elif what < 0.7 and self.tokens:
            session, token = chance.choice(self.tokens[-20:])
            operation = Renew(token, chance.choice((0, 100, 9_000)))
        elif what < 0.85 and self.tokens:
            session, token = chance.choice(self.tokens[-20:])
            operation = Release(token)
        elif what < 0.88:
            operation = CloseSession()
        else:
            operation = Ping(tuple(claim for owner, claim in self.claims[-5:] if owner == session))
        self.number += 1
        acked_below = max(0, self.number - chance.choice((0, 3, 40)))
        found = self.state.sessions_open.get(session)
        proof = proof_of(found.record.key) if found is not None else 0
        return Command(session, session, self.number, acked_below, operation, proof=proof)

    def next_claim(self) -> Claim:
        chance = self.chance
        ttl_ms = chance.choice((0, 100, 1_000, 30_000))
        return Claim(
            namespace=chance.choice(("default", "ümlaut")),
            resources=(Resource((chance.choice(('a"b\\c', "nightly-report", "x", "日本", "🔒")),)),),
            holder=chance.choice(("alice", "bob:1")),
            data=chance.randbytes(chance.choice((0, 10, 3_000))),
            ttl_ms=ttl_ms,
            wait_ms=chance.choice((0, 500, FOREVER)),
            detached=bool(ttl_ms) and chance.random() < 0.3,
        )
