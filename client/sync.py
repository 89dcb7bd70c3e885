"""The blocking face of the client: thread-safe, one background thread, leases renewed while the program works."""

import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from ..core import limits
from ..core.checks import check
from ..core.commands import Describe, ListClaims, Operation, Release, Validate
from ..core.resources import Mode, Resource
from ..core.results import FREE, ClaimPage, Denied, Released, Valid
from .asks import Ask, T, everywhere
from .base import BaseClient, Options, checked_terms, shown, view_of, views
from .caller import Caller
from .description import Description, description
from .durations import Duration
from .errors import AcquireTimeout
from .holding import Lease, Lock, OnLost
from .lease import LeaseView
from .model import Model
from .news import check_on_lost
from .recipes.sync_groups import Recipes
from .records import LeaseRecord, Terms, Waiting
from .refusals import refused
from .resuming import Resuming
from .ticket import Ticket
from .ticket import read as read_ticket_text
from .wants import Name, Want, all_resources, path_of, read, resources_of, write
from .watching import Watches

__all__ = ["Client", "Lease", "Lock", "connect"]

CHAIN_MAX = 2**48
"""Flows of control are told apart by numbers below this."""


class Client(BaseClient, Model, Recipes, Watches):
    """A client of the service. One is enough: all threads of a process may use it."""

    def __init__(
        self,
        endpoints: str | Sequence[str],
        namespace: str = "default",
        *,
        holder: str | None = None,
        session_timeout: Duration = limits.SESSION_TIMEOUT_MS_DEFAULT / 1000,
        request_timeout: Duration = 10.0,
        description: str = "",
        detect_deadlocks: bool = False,
        session: str | None = None,
    ) -> None:
        """Make a client; it connects when it is first used.

        Args:
            endpoints: of the nodes, separated by commas or as a list: `tcp://127.0.0.1:7411,tcp://127.0.0.1:7421`.
            namespace: in which names are looked up.
            holder: how others see who holds; None for host:pid.
            session_timeout: how long the service keeps this client's session without a sign of life.
            request_timeout: how long a call waits for the service, where it takes no timeout of its own.
            description: of this client, for operators.
            detect_deadlocks: an acquire that would wait for ever, since each thread of a circle waits for the next one,
                raises DeadlockDetected. Only for programs in which the thread that acquires also releases.
            session: a ticket from `session_ticket` of a former client: its session is taken over, with its timeout, and
                `recover` returns what it holds.

        Raises:
            BadRequest: an argument is out of bounds; the text says which.
        """
        super().__init__(
            endpoints,
            namespace,
            holder,
            session_timeout,
            request_timeout,
            description,
            detect_deadlocks=detect_deadlocks,
            session=session,
        )
        self._caller = Caller(self._make_protocol, self._request_timeout_ms)

    # --- leases ------------------------------------------------------------------------------------------------------

    def lock(
        self,
        name: Want,
        ttl: Duration | None = 30.0,
        *,
        timeout: Duration | None = None,
        data: bytes = b"",
        holder: str | None = None,
        detached: bool = False,
        auto_renew: bool = True,
        max_hold: Duration | None = None,
        progress_timeout: Duration | None = None,
        on_lost: OnLost | None = None,
        keeper: Literal["process"] | None = None,
    ) -> Lock:
        """Return a lock to be used in `with`, which waits for its turn and gives the lease.

        >>> with client.lock("nightly-report", ttl=30) as lease:
        ...     print(lease.name, lease.held)
        nightly-report True
        """
        how: dict[str, Any] = {"data": data, "holder": holder, "detached": detached, "auto_renew": auto_renew}
        how |= {"max_hold": max_hold, "progress_timeout": progress_timeout, "on_lost": on_lost, "keeper": keeper}
        arguments = {"name": resources_of(name), "ttl": ttl, "timeout": timeout, **how}
        self._wish(**arguments, begins=False)  # what is wrong is refused here, and not where it is entered
        return Lock(self, arguments)

    def read_lock(
        self,
        *path: str,
        ttl: Duration | None = 30.0,
        timeout: Duration | None = None,
        data: bytes = b"",
        max_hold: Duration | None = None,
        on_lost: OnLost | None = None,
    ) -> Lock:
        """Return a lock that shares a name or path, and all under it, with others who read.

        >>> with client.read_lock("users") as one, client.read_lock("users", "42") as other:
        ...     one.held, other.held, client.try_acquire("users")
        (True, True, None)
        """
        return self.lock(read(*path), ttl, timeout=timeout, data=data, max_hold=max_hold, on_lost=on_lost)

    def write_lock(
        self,
        *path: str,
        ttl: Duration | None = 30.0,
        timeout: Duration | None = None,
        data: bytes = b"",
        max_hold: Duration | None = None,
        on_lost: OnLost | None = None,
    ) -> Lock:
        """Return a lock that has a name or path, and all under it, alone.

        >>> with client.write_lock("users", "42"):
        ...     client.try_acquire(read("users")), client.try_acquire(read("users", "43")) is not None
        (None, True)
        """
        return self.lock(write(*path), ttl, timeout=timeout, data=data, max_hold=max_hold, on_lost=on_lost)

    def lock_all(
        self,
        wants: Sequence[Name | Resource],
        ttl: Duration | None = 30.0,
        *,
        timeout: Duration | None = None,
        data: bytes = b"",
        max_hold: Duration | None = None,
        on_lost: OnLost | None = None,
    ) -> Lock:
        """Return a lock of several names, paths, `read(...)`, `write(...)` or `units(...)` at once, all or none.

        >>> with client.lock_all(["ledger", read("catalogue")]) as lease:
        ...     [(one.path, one.mode.name) for one in lease.resources]
        [(('ledger',), 'WRITE'), (('catalogue',), 'READ')]
        """
        return self.lock(all_resources(wants), ttl, timeout=timeout, data=data, max_hold=max_hold, on_lost=on_lost)

    def acquire(
        self,
        name: Want,
        ttl: Duration | None = 30.0,
        *,
        timeout: Duration | None = None,
        data: bytes = b"",
        holder: str | None = None,
        detached: bool = False,
        auto_renew: bool = True,
        max_hold: Duration | None = None,
        progress_timeout: Duration | None = None,
        on_lost: OnLost | None = None,
        keeper: Literal["process"] | None = None,
    ) -> Lease:
        """Wait in line for a lease, and return it.

        Args:
            name: of what is to be held; or a path; or what `lessor.read`, `write` and `units` return, or several such.
            ttl: how long it lives unless it is renewed; None: as long as this client's session.
            timeout: how long to wait; None: for ever; 0: not at all.
            data: kept with the lease, for others to see.
            holder: instead of the client's own.
            detached: it does not end with this client's session, only by its ttl or by whoever has its token.
            auto_renew: renew it in the background at a third of its ttl.
            max_hold: how long it may be held in all; then it is lost, and released.
            progress_timeout: it is renewed only while `lease.progress()` is called at least so often.
            on_lost: done when the lease is lost: called with it, in a thread of its own; or "terminate" or "kill".
            keeper: "process": a helper process renews it too, for work that holds the GIL for longer than the ttl; with
                `on_lost` "terminate" or "kill" it also sees to that. It takes a tenth of a second to start.

        Raises:
            AcquireTimeout: it was not granted in time.
            Unavailable: the service was not reached in time.
            ServiceBusy: a limit of the service is reached.
            BadRequest: an argument is out of bounds; nothing was asked.

        >>> lease = client.acquire("x", ttl=30, timeout=5)
        >>> lease.release()
        True
        """
        how: dict[str, Any] = {"data": data, "holder": holder, "detached": detached, "auto_renew": auto_renew}
        how |= {"max_hold": max_hold, "progress_timeout": progress_timeout, "on_lost": on_lost, "keeper": keeper}
        wish = self._wish(name, ttl, timeout, **how)
        outcome = refused(self._caller.acquire(wish.claim, wish.terms))
        if isinstance(outcome, Denied):  # without any time to wait
            raise AcquireTimeout(f"{shown(wish.claim.resources)} is not free{outcome.why and f': {outcome.why}'}")
        return self._lease(outcome, wish.on_lost, wish.keeper)

    def try_acquire(
        self,
        name: Want,
        ttl: Duration | None = 30.0,
        *,
        data: bytes = b"",
        holder: str | None = None,
        detached: bool = False,
        auto_renew: bool = True,
        max_hold: Duration | None = None,
        progress_timeout: Duration | None = None,
        on_lost: OnLost | None = None,
        keeper: Literal["process"] | None = None,
    ) -> Lease | None:
        """Return the lease if it is free now, None if it certainly is not held by this call; never wait in line.

        Raises:
            Unavailable, ServiceBusy, BadRequest: as `acquire`.

        >>> with client.lock("x"):
        ...     print(client.try_acquire("x"))
        None
        """
        how: dict[str, Any] = {"data": data, "holder": holder, "detached": detached, "auto_renew": auto_renew}
        how |= {"max_hold": max_hold, "progress_timeout": progress_timeout, "on_lost": on_lost, "keeper": keeper}
        wish = self._wish(name, ttl, 0, **how)
        outcome = refused(self._caller.acquire(wish.claim, wish.terms))
        return None if isinstance(outcome, Denied) else self._lease(outcome, wish.on_lost, wish.keeper)

    def resume(
        self,
        ticket: str,
        *,
        auto_renew: bool = True,
        max_hold: Duration | None = None,
        progress_timeout: Duration | None = None,
        on_lost: OnLost | None = None,
    ) -> Lease:
        """Go on with the lease of a ticket: renew it, from now on in the background, and release it at the end.

        The lease is this client's from now on, and whoever had it is told that it was taken over. Nothing changes for
        others: it is the same grant under the same token. So hand a ticket over, and stop to use the lease, or take
        over from somebody who is dead. Until the former owner is told - mostly at once; if he is cut off, at his
        deadline of then, or when he is back - he believes that he holds it, and his release would end it.

        `max_hold` counts from now. A call that is interrupted gives back what it has taken over.

        Raises:
            LeaseLost: it is not held any more.
            BadRequest: it is no ticket.
            Unavailable, ServiceBusy: as `acquire`.

        >>> held = client.acquire("x", ttl=30, detached=True)
        >>> lease = client.resume(held.ticket())
        >>> lease.token == held.token, lease.release()
        (True, True)
        """
        check_on_lost(on_lost)
        read_ticket = read_ticket_text(ticket)
        terms = checked_terms(
            read_ticket.ttl_ms, auto_renew=auto_renew, max_hold=max_hold, progress_timeout=progress_timeout
        )
        return self._lease(self._resume(read_ticket, terms, adopt=True), on_lost)

    def release(self, token: int | Lease) -> bool:
        """Give back the grant of this token, whoever took it: a lease of another client, such as a detached one.

        True if it was held until now. Its holder, if it is still there, is told. With a lease of this process in place
        of a token it is `lease.release()`.

        Raises:
            Unavailable, BadRequest: as `acquire`.

        >>> token = client.acquire("x", ttl=30, detached=True).token
        >>> client.release(token), client.release(token)
        (True, False)
        """
        if isinstance(token, Lease):
            return token.release()
        check(Release(token))
        protocol = self._caller.protocol
        result = self._caller.ask(lambda done, deadline: protocol.release_token(token, done, deadline))
        return isinstance(result, Released)

    def wait_free(self, name: Name, timeout: Duration | None = None) -> bool:
        """Wait until whoever holds `name` now has let go of it; False if that did not happen in time.

        It is true even if somebody else has it by then. Nobody waits behind this call, and it takes no place in a line.

        Raises:
            Unavailable, ServiceBusy, BadRequest: as `acquire`.

        >>> with client.lock("x"):
        ...     client.wait_free("x", timeout=0)
        False
        >>> client.wait_free("x")
        True
        """
        wish = self._wish(Resource(path_of(name), Mode.OBSERVE), None, timeout)
        try:
            outcome = refused(self._caller.acquire(wish.claim, wish.terms))
        except AcquireTimeout:
            return False
        return bool(outcome.why == FREE)

    def validate(self, token: int) -> LeaseView | None:
        """Return the lease of this token if it is held, None if it is not (Chubby's CheckSequencer).

        Raises:
            Unavailable, BadRequest: as `acquire`.

        >>> with client.lock("x") as lease:
        ...     client.validate(lease.token).name
        'x'
        >>> print(client.validate(lease.token))
        None
        """
        result = self._ask(Validate(token))
        return view_of(self._caller.protocol, result.claim) if isinstance(result, Valid) else None

    # --- the session -------------------------------------------------------------------------------------------------

    def session_ticket(self) -> str:
        """Return a small text by which a client that comes after this one can take its session over.

        Keep it, secretly, where the next process finds it: `connect(..., session=ticket)`. Each client that takes the
        session over has a new ticket, and the old one is of no use any more.

        Raises:
            Unavailable, ServiceBusy: as `acquire`.
        """
        return str(self._caller.ask(self._caller.protocol.session_ticket))

    def recover(self, *, on_lost: OnLost | None = None) -> list[Lease]:
        """Return the leases that the session held when this client took it over, and still holds; each only once.

        They are renewed in the background as if they had been acquired here. What still waited was withdrawn, since
        nobody waits for it any more. Leases in other namespaces are not found.

        Raises:
            SessionExpired: the session has ended; connect without it, and acquire anew.
            OutOfSequence: another client has taken the session over with this ticket.
            WrongKey: the ticket is of another session.
            SessionStolen: another client has taken the session over since.
            Unavailable, ServiceBusy: as `acquire`.

        >>> former = connect(node.endpoints)
        >>> token = former.acquire("x", ttl=30).token
        >>> with connect(node.endpoints, session=former.session_ticket()) as successor:
        ...     [lease.token for lease in successor.recover()] == [token]
        True
        >>> former.close()
        """
        check_on_lost(on_lost)
        protocol = self._caller.protocol
        found = self._caller.ask(protocol.recover, protocol.abandon_recovery)
        return [self._lease(record, on_lost) for record in found]

    # --- looking -----------------------------------------------------------------------------------------------------

    def describe(self, name: Name) -> list[LeaseView]:
        """Return who holds `name` (first) and who waits for it, in order; then whoever overlaps it; maybe nobody.

        Raises:
            Unavailable, BadRequest: as `acquire`.

        >>> with client.lock("x", holder="me"):
        ...     [(lease.holder, lease.waiting) for lease in client.describe("x")]
        [('me', False)]
        """
        found, upto = self._views(Describe(self.namespace, path_of(name)))
        # a queue too long for one answer goes on in the listing of the namespace, in the same order
        if upto:
            found += [claim for claim in self._listed(self.namespace, upto) if claim.path == path_of(name)]
        return found

    def about(self, name: Name) -> Description:
        """Return all that is known of `name`: as `describe`, with its semaphore, pins, register and last lapse.

        Raises:
            Unavailable, BadRequest: as `acquire`.

        >>> with client.lock(lessor.units("workers", 3, limit=4)):
        ...     about = client.about("workers")
        >>> about.units, about.limit, [lease.waiting for lease in about.leases]
        (3, 4, [False])
        """
        page: ClaimPage = self._ask(Describe(self.namespace, path_of(name)))
        found, upto = views(self._caller.protocol, page)
        (about,) = page.about
        clock_ms = self._caller.protocol.anchor.clock_ms
        if upto:
            found += [claim for claim in self._listed(self.namespace, upto) if claim.path == path_of(name)]
        return description(found, about, clock_ms)

    def leases(self, *, all_namespaces: bool = False) -> list[LeaseView]:
        """Return every lease and every waiting claim of the namespace, or of all of them, oldest first.

        Raises:
            Unavailable, BadRequest: as `acquire`.

        >>> with client.lock("x"), client.lock("y"):
        ...     [lease.name for lease in client.leases()]
        ['x', 'y']
        """
        return list(self._listed(everywhere(self.namespace, all_namespaces=all_namespaces), 0))

    def waiting(self) -> list[Waiting]:
        """Return what this client itself waits for in line now, in the order of its coming, and each one's position.

        Raises:
            Unavailable: as `acquire`.

        >>> with client.lock("x"):
        ...     threading.Thread(target=lambda: client.acquire("x").release()).start()
        ...     while not (line := client.waiting()):
        ...         _ = threading.Event().wait(0.01)
        ...     [(one.name, one.position) for one in line]
        [('x', 1)]
        """
        found: list[Waiting] = self._caller.ask(self._caller.protocol.waiting)
        return found

    # --- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release what is held, withdraw what is waited for, and end the session. Quick, and may be called twice.

        >>> short = connect(node.endpoints)
        >>> lease = short.acquire("x", ttl=30)
        >>> short.close()
        >>> lease.state.value, client.describe("x")
        ('released', [])
        """
        self._end_watches()
        self._caller.close()

    def __enter__(self) -> Self:
        """Return the client itself.

        Raises:
            ClientClosed: it was closed.
        """
        self._caller.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    # --- parts -------------------------------------------------------------------------------------------------------

    def _lease(self, record: Any, on_lost: Any, keeper: str | None = None) -> Lease:
        return Lease(self._caller, record, on_lost, keeper)

    def _listed(self, namespace: str, after: int) -> Iterator[LeaseView]:
        page, upto = self._views(ListClaims(namespace, after, limits.LIST_PAGE_MAX))
        yield from page
        while upto:
            page, upto = self._views(ListClaims(namespace, upto, limits.LIST_PAGE_MAX))
            yield from page

    def _run(self, ask: Ask[T]) -> T:
        return ask.read(self._ask(ask.operation))

    def _chain(self) -> int:
        return threading.get_ident() % CHAIN_MAX + 1

    def _ask(self, operation: Operation) -> Any:
        check(operation)
        protocol = self._caller.protocol
        return self._caller.ask(lambda done, deadline: protocol.ask(operation, done, deadline))

    def _resume(self, ticket: Ticket, terms: Terms, *, adopt: bool) -> LeaseRecord:
        def begin(done: Callable[[Any], None], deadline_ms: int) -> Resuming:
            return Resuming(self._caller.protocol, ticket, terms, done, deadline_ms, adopt=adopt)

        record: LeaseRecord = self._caller.ask(begin, Resuming.abandon)
        return record

    def _views(self, operation: Operation) -> tuple[list[LeaseView], int]:
        page = self._ask(operation)
        return views(self._caller.protocol, page)


def connect(endpoints: str | Sequence[str], namespace: str = "default", **options: Unpack[Options]) -> Client:
    """Return a client of the service at `endpoints`; see `Client` for the options.

    >>> with connect(node.endpoints, namespace="reports") as client:
    ...     client.leases()
    []
    """
    return Client(endpoints, namespace, **options)
