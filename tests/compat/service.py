"""The service as a user of one of the four originals meets it: short verbs, calm or between restarts and elections."""

from collections.abc import Generator
from typing import Any, TypeVar

from lessor.client.wants import Name, path_of
from lessor.core import events
from lessor.core.checks import check
from lessor.core.commands import (
    ATTACH_STEP,
    FOREVER,
    KEEP,
    Amend,
    AttachSession,
    Cancel,
    Claim,
    CloseSession,
    Describe,
    ListClaims,
    ListRecords,
    OpenSession,
    Operation,
    Ping,
    ReadEvents,
    Release,
    Renew,
)
from lessor.core.lease_state import LeaseState
from lessor.core.resources import Mode, Resource
from lessor.core.results import (
    Cancelled,
    ClaimInfo,
    ClaimPage,
    ClaimPhase,
    ClaimStatus,
    DeadlockDetected,
    Denied,
    EventPage,
    Failed,
    Pong,
    RecordPage,
    Released,
    Renewed,
    Result,
    SessionOpened,
)
from lessor.storage.lease_tables import LeaseTables

from ..support.leases import Leases, check_consistent, check_nothing_overdue, replayed

WAYS = ("plain", "restarted", "new leader")
"""What happens after every command: nothing; all nodes start anew from their files; another leader takes over."""

T = TypeVar("T")


class Refused(Exception):
    """The service refused; the text begins with the code of the failure."""


class Service:
    """A lease state that lives through one of the ways. Durations are in seconds."""

    def __init__(self, way: str, tables: LeaseTables | None = None) -> None:
        self.way = way
        self._tables = tables
        self._leases = Leases(tables.load() if tables is not None else None)
        if tables is not None:
            self._leases.lead()
        self._users = 0

    @property
    def state(self) -> LeaseState:
        return self._leases.state

    @property
    def leftovers(self) -> int:
        """How many rows the state has beside its sessions."""
        return sum(len(table.records()) for kind, table in self.state.tables.items() if kind != "sessions")

    # --- what happens ------------------------------------------------------------------------------------------------

    def ask(self, session: int, operation: Operation, number: int = 0) -> Any:
        """Have an operation carried out as the gateway would, and live through what follows."""
        check(operation)
        result = self._leases.ask(session, operation, number)
        self._live_on()
        if isinstance(result, Failed):
            raise Refused(f"{result.code}: {result.detail}")
        return result

    def at_once(self, *asked: "tuple[User, Operation]") -> list[Result]:
        """Have operations of several users carried out in one batch."""
        results = self._leases.batch(*[self._leases.command(user.session, one, user.number()) for user, one in asked])
        self._live_on()
        return results

    def wait(self, seconds: float) -> None:
        """Let time pass on the lease clock."""
        self._leases.after(round(seconds * 1000))
        self._live_on()

    def user(
        self, name: str = "", *, timeout: float = 60.0, namespace: str = "default", description: str = ""
    ) -> "User":
        self._users += 1
        return User(
            self, name or f"user {self._users}", self._users.to_bytes(16, "big"), timeout, namespace, description
        )

    def told(self, user: "User") -> list[ClaimStatus]:
        """What was pushed to a user's session since the last call."""
        return self._leases.told(user.session)

    def _live_on(self) -> None:
        leases = self._leases
        check_nothing_overdue(leases.state)
        if self._tables is not None:
            self._tables.save(leases.state)
            leases.state = self._tables.load()
            leases.lead()
        elif self.way == "new leader":
            leases.after(1)
            leases.lead()
            leases.after(1)

    def check(self) -> None:
        """Assert that another node reaches the same state by the log alone, whatever happened here (P1)."""
        check_consistent(self.state)
        assert replayed(self._leases.log).snapshot() == self.state.snapshot()


class User:
    """A client with a session of its own."""

    def __init__(
        self, service: Service, name: str, key: bytes, timeout: float, namespace: str, description: str
    ) -> None:
        self.service = service
        self.name = name
        self.key = key
        self.namespace = namespace
        self.attached = 0
        self._last_number = 0
        opened = service.ask(0, OpenSession(key, round(timeout * 1000), description, namespace))
        assert isinstance(opened, SessionOpened)
        self.session = opened.session

    def number(self) -> int:
        """The number of the next request."""
        self._last_number += 1
        return self.attached * ATTACH_STEP + self._last_number

    def ask(self, operation: Operation, number: int = 0) -> Any:
        return self.service.ask(self.session, operation, number or self.number())

    def run(self, steps: Generator[Operation, Any, T]) -> T:
        """Carry out what the client composes of several operations."""
        try:
            operation = next(steps)
            while True:
                operation = steps.send(self.ask(operation))
        except StopIteration as end:
            found: T = end.value
            return found

    # --- sessions ----------------------------------------------------------------------------------------------------

    def attach(self, attach: int, *, key: bytes = b"", timeout: float = 60.0, description: str = "") -> SessionOpened:
        """Take the session over as a process that knows its number, and its key or another one."""
        operation = AttachSession(self.session, key or self.key, attach, round(timeout * 1000), description)
        opened = self.service.ask(0, operation)
        assert isinstance(opened, SessionOpened)
        self.attached = opened.attach
        return opened

    def ping(self, *claims: int) -> Pong:
        pong = self.ask(Ping(claims))
        assert isinstance(pong, Pong)
        return pong

    def stop(self) -> int:
        """End the session; return how many grants that released."""
        released: int = self.ask(CloseSession()).released
        return released

    @property
    def told(self) -> list[ClaimStatus]:
        return self.service.told(self)

    # --- claims ------------------------------------------------------------------------------------------------------

    def lock(self, *wants: Name | Resource, wait: float = -1, **how: Any) -> "Turn":
        """Claim everything at once; wait for ever unless told how long."""
        turn = self.try_lock(*wants, wait=wait, **how)
        assert turn is not None, "this was denied"
        return turn

    def try_lock(self, *wants: Name | Resource, wait: float = 0, **how: Any) -> "Turn | None":
        """Claim everything now or not at all."""
        answer = self.ask(self.claim(*wants, wait=wait, **how))
        if isinstance(answer, Denied):
            return None
        if isinstance(answer, DeadlockDetected):
            raise Refused(f"deadlock: {[link.holder for link in answer.circle]}")
        assert isinstance(answer, ClaimStatus)
        return Turn(self, answer)

    def claim(
        self,
        *wants: Name | Resource,
        wait: float = 0,
        ttl: float = 0,
        data: bytes = b"",
        detached: bool = False,
        max_hold: float = 0,
        chain: int = 0,
        holder: str = "",
    ) -> Claim:
        resources = [want if isinstance(want, Resource) else Resource(path_of(want)) for want in wants]
        return Claim(
            self.namespace,
            tuple(resources),
            holder or self.name,
            data,
            round(ttl * 1000),
            FOREVER if wait < 0 else round(wait * 1000),
            detached,
            round(max_hold * 1000),
            chain,
        )

    def wait_until_free(self, name: Name, wait: float = -1) -> "Turn":
        """Ask to be told when those who hold it now do so no more (Juju's WaitUntilExpired)."""
        return self.lock(Resource(path_of(name), Mode.OBSERVE), wait=wait)

    def release(self, token: int) -> bool:
        return isinstance(self.ask(Release(token)), Released)

    def renew(self, token: int, ttl: float = 0) -> bool:
        return isinstance(self.ask(Renew(token, round(ttl * 1000))), Renewed)

    # --- looking -----------------------------------------------------------------------------------------------------

    def describe(self, *path: str, namespace: str = "") -> ClaimPage:
        page = self.service.ask(0, Describe(namespace or self.namespace, path))
        assert isinstance(page, ClaimPage)
        return page

    def owners(self, *path: str) -> list[ClaimInfo]:
        return [claim for claim in self.describe(*path).claims if claim.phase == ClaimPhase.HELD]

    def waiters(self, *path: str) -> list[ClaimInfo]:
        return [claim for claim in self.describe(*path).claims if claim.phase == ClaimPhase.WAITING]

    def holder(self, *path: str) -> str:
        """Who holds the path, "" if nobody does."""
        owners = self.owners(*path)
        return owners[0].holder if owners else ""

    def leases(self, namespace: str | None = None) -> list[ClaimInfo]:
        page = self.service.ask(0, ListClaims(self.namespace if namespace is None else namespace, 0, 500))
        return [claim for claim in page.claims if claim.token]

    def listed(self, kind: str, namespace: str = "") -> list[Any]:
        page = self.service.ask(0, ListRecords(kind, namespace, 0, 500))
        assert isinstance(page, RecordPage)
        return list(page.records)

    def watch(self, *path: str, below: bool = False) -> "Watch":
        return Watch(self, path, below=below)


class Turn:
    """A claim of a user, from its place in the queue to its end; it is asked for anew each time."""

    def __init__(self, user: User, status: ClaimStatus) -> None:
        self.user = user
        self.number = status.claim
        self._token = status.token

    def status(self) -> ClaimStatus:
        status = self.user.ping(self.number).claims[0]
        self._token = status.token or self._token
        return status

    @property
    def held(self) -> bool:
        return self.status().phase == ClaimPhase.HELD

    @property
    def waiting(self) -> bool:
        return self.status().phase == ClaimPhase.WAITING

    @property
    def gone(self) -> bool:
        return self.status().phase == ClaimPhase.GONE

    @property
    def ahead(self) -> int:
        """How many who wait come before."""
        return self.status().waiters_ahead

    @property
    def token(self) -> int:
        """The token of the grant, also after its end."""
        if not self._token:
            self.status()
        return self._token

    @property
    def left(self) -> float:
        """For how long the grant lasts if nothing is done for it."""
        status = self.status()
        return (status.expires_at_ms - self.user.service.state.clock_ms) / 1000

    def release(self) -> bool:
        return self.user.release(self.token)

    def renew(self, ttl: float = 0) -> bool:
        return self.user.renew(self.token, ttl)

    def cancel(self) -> ClaimPhase:
        """Withdraw the claim; return in which phase it was found."""
        cancelled = self.user.ask(Cancel(self.number))
        assert isinstance(cancelled, Cancelled)
        return ClaimPhase(cancelled.was)

    def amend(
        self, *, count: int = KEEP, to_read: bool = False, wait: float | None = None, data: bytes | None = None
    ) -> Any:
        wait_ms = KEEP if wait is None else FOREVER if wait < 0 else round(wait * 1000)
        return self.user.ask(Amend(self.number, count, to_read, wait_ms, data is not None, data or b""))


class Watch:
    """What changed on a path since it was looked at last, in the words of YDB's watches."""

    def __init__(self, user: User, path: tuple[str, ...], *, below: bool) -> None:
        self._user = user
        self._path = path
        self._below = below
        self._revision = user.service.state.revision

    def seen(self) -> set[str]:
        """Return which of data, owners and deleted changed; or "lost" alone, if that may have been missed."""
        user = self._user
        page = user.service.ask(0, ReadEvents(user.namespace, self._path, self._below, self._revision, 500))
        assert isinstance(page, EventPage)
        missed = page.missed_upto > self._revision
        assert not missed or user.service.way == "restarted", "only a node that began anew has forgotten"
        self._revision = page.upto
        words = {"data": events.DATA_CHANGED, "owners": events.OWNERS_CHANGED, "deleted": events.DELETED}
        seen = {word for word, kinds in words.items() if any(event.kind in kinds for event in page.events)}
        return {"lost"} if missed else seen
