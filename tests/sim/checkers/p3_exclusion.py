"""P3: two conflicting claims never both hold, neither in the log nor by the clients' own deadlines."""

from typing import TYPE_CHECKING

from lessor.client.records import LeaseRecord
from lessor.core.entries import Entry
from lessor.core.lease_state import Outcome

from .base import Checker

if TYPE_CHECKING:
    from ..client import SimClient
    from ..history import Op
    from ..ledger import ClaimStory


class Exclusion(Checker):
    """While a program may believe that it holds, its grant lives in the log, and no other on that name does."""

    promise = "P3"
    wide = False

    def outcome(self, slot: int, entry: Entry, outcome: Outcome) -> None:
        """Whoever held before must have stopped to believe so, by its own clock, before anybody else is granted."""
        ledger = self.world.ledger
        for event in outcome.events:
            if event.kind != "granted":
                continue
            name = "/".join(event.path)
            live = ledger.live.get(name, {})
            if len(live) > 1:
                raise self.fail(f"{name!r} is granted to tokens {sorted(live)} at once")
            for client in self.world.clients:
                for record in client.protocol.leases.values():
                    if record.token != event.token and "/".join(record.path) == name:
                        self._must_not_believe(client, record, event.token)

    def _must_not_believe(self, client: "SimClient", record: LeaseRecord, token: int) -> None:
        if not client.believes(record) or self._by_operator(self.world.ledger.grants.get(record.token)):
            return
        left_ms = client.protocol.safe_until_ms(record) - client.clock.exactly_ms(self.world.now_us)
        raise self.fail(
            f"{'/'.join(record.path)!r} is granted as token {token} while client {client.number} "
            f"still holds token {record.token} for {left_ms:.3f} ms"
        )

    def _by_operator(self, story: "ClaimStory | None") -> bool:
        """Return whether somebody else who had the token released it."""
        return story is not None and story.ending == "released" and story.token in self.released_by_others

    @property
    def released_by_others(self) -> dict[int, None]:
        """The tokens that were released by a program that did not hold them."""
        return self.world.released_by_others

    def client_turn(self, client: "SimClient") -> None:
        """What a client believes after a turn of its engine must be true."""
        for record in client.protocol.leases.values():
            self._must_live(client, record)

    def ended(self, op: "Op") -> None:
        """A lease that is handed to a program is live, or already over."""
        if op.kind == "acquire" and isinstance(op.result, LeaseRecord):
            client = next(client for client in self.world.clients if client.number == op.client)
            self._must_live(client, op.result)

    def _must_live(self, client: "SimClient", record: LeaseRecord) -> None:
        story = self.world.ledger.grants.get(record.token)
        if story is not None and story.ended_us is None:
            return
        if client.believes(record) and not self._by_operator(story):
            ended = "was never granted" if story is None else f"has ended ({story.ending})"
            raise self.fail(f"client {client.number} holds token {record.token}, which {ended}")
