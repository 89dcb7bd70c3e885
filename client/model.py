"""What a blocking client can ask for beside leases: semaphores, pins, namespaces, registers, events.

The asyncio face has the same methods in the same order; both only send what `asks` says.
"""

from collections.abc import Callable

from . import asks, holders
from .asks import Ask, Events, Namespace, Pinned, Register, RegisterView, Semaphore, Session, T, Transaction
from .durations import Duration, ttl_milliseconds
from .holders import Steps
from .wants import Name, path_of


class Model:
    """The calls that need nothing but a question and its answer."""

    namespace: str

    def _run(self, ask: Ask[T]) -> T:
        raise NotImplementedError

    def create_semaphore(self, name: Name, limit: int, data: bytes = b"") -> None:
        """Make a semaphore of `limit` units that stays until it is deleted.

        Raises:
            SemaphoreExists: it exists; nothing was changed.
            SemaphoreInUse: claims without a semaphore stand there.

        >>> client.create_semaphore("workers", 4)
        >>> with client.lock(lessor.units("workers", 3)):
        ...     [(found.name, found.units, found.limit) for found in client.semaphores()]
        [('workers', 3, 4)]
        >>> client.update_semaphore("workers", b"since March")
        True
        >>> client.delete_semaphore("workers")
        """
        self._run(asks.create_semaphore(self.namespace, name, limit, data))

    def update_semaphore(self, name: Name, data: bytes) -> bool:
        """Replace the data of a semaphore; False if it was the same.

        Raises:
            NoSuchSemaphore: it was not created.
        """
        return self._run(asks.update_semaphore(self.namespace, name, data))

    def delete_semaphore(self, name: Name, *, force: bool = False) -> None:
        """Remove a semaphore; with `force` also while it is in use: holders and waiters are told.

        Raises:
            NoSuchSemaphore: it was not created.
            SemaphoreInUse: it is held or waited for.
        """
        self._run(asks.delete_semaphore(self.namespace, name, force=force))

    def pin(self, name: Name, entity: str) -> bool:
        """Have the leases on a name not expire while `entity` pins it, whoever holds it; False if it did before.

        Raises:
            ServiceBusy: a limit of the service is reached.

        >>> client.pin("x", "upgrade")
        True
        >>> [(found.name, found.entities) for found in client.pins()]
        [('x', ('upgrade',))]
        >>> client.unpin("x", "upgrade")
        True
        """
        return self._run(asks.pin(self.namespace, name, entity))

    def unpin(self, name: Name, entity: str) -> bool:
        """Take the pin of `entity` away; a lease that is overdue ends at once. False if there was none."""
        return self._run(asks.unpin(self.namespace, name, entity))

    def claim(self, name: Name, holder: str, duration: Duration, data: bytes = b"") -> int:
        """Take the lease on a name for a holder, or extend his own to `duration` from now; return its token (Juju).

        The lease is nobody's session's: whoever knows the holder's name extends it, and it ends by itself.

        Raises:
            ClaimDenied: somebody else holds it; certainly not held by this claim.

        >>> token = client.claim("redis", "redis/0", 60)
        >>> client.extend("redis", "redis/0", 120) == client.check_holder("redis", "redis/0") == token
        True
        >>> client.revoke("redis", "redis/0")
        True
        """
        held = self._walk(holders.claim(self.namespace, path_of(name), holder, ttl_milliseconds(duration), data))
        return held.token

    def extend(self, name: Name, holder: str, duration: Duration) -> int:
        """Have the holder's lease last until `duration` from now at least, never shorter; return its token (Juju).

        Raises:
            NotHeldError: he does not hold it.
        """
        held = self._walk(holders.extend(self.namespace, path_of(name), holder, ttl_milliseconds(duration)))
        return held.token

    def revoke(self, name: Name, holder: str) -> bool:
        """End the holder's lease; False if nobody holds one (Juju).

        Raises:
            NotHeldError: somebody else holds it.
        """
        return self._walk(holders.revoke(self.namespace, path_of(name), holder))

    def check_holder(self, name: Name, holder: str) -> int:
        """Return the token of the holder's lease (Juju's Token.Check).

        Raises:
            NotHeldError: he does not hold it.
        """
        found = self._walk(holders.check(self.namespace, path_of(name), holder))
        return found.token

    def create_namespace(
        self,
        name: str,
        *,
        default_ttl: Duration = 0,
        ttl_max: Duration = 0,
        session_grace: Duration = 0,
        lock_delay: Duration = 0,
        claims_max: int = 0,
    ) -> None:
        """Make a namespace with settings of its own.

        Args:
            name: of the namespace.
            default_ttl: of leases that are asked for without one, which would live as long as their session.
            ttl_max: the longest that may be asked for.
            session_grace: what a change of leader adds to the life of a session.
            lock_delay: how long a name stays closed after its lease ended otherwise than by its holder.
            claims_max: how many claims there may be at once.

        Raises:
            NamespaceExists: it was created before.

        >>> client.create_namespace("reports", ttl_max=60)
        >>> client.alter_namespace("reports", lock_delay=5)
        True
        >>> client.describe_namespace("reports").ttl_max
        60.0
        >>> [space.name for space in client.namespaces() if space.created]
        ['reports']
        >>> client.drop_namespace("reports")
        """
        self._run(
            asks.create_namespace(
                name,
                default_ttl=default_ttl,
                ttl_max=ttl_max,
                session_grace=session_grace,
                lock_delay=lock_delay,
                claims_max=claims_max,
            )
        )

    def alter_namespace(
        self,
        name: str,
        *,
        default_ttl: Duration | None = None,
        ttl_max: Duration | None = None,
        session_grace: Duration | None = None,
        lock_delay: Duration | None = None,
        claims_max: int | None = None,
    ) -> bool:
        """Change the settings that are given; what is held keeps what it was promised. False if nothing changed.

        Raises:
            NoSuchNamespace: it was not created.
        """
        return self._run(
            asks.alter_namespace(
                name,
                default_ttl=default_ttl,
                ttl_max=ttl_max,
                session_grace=session_grace,
                lock_delay=lock_delay,
                claims_max=claims_max,
            )
        )

    def drop_namespace(self, name: str, *, force: bool = False) -> None:
        """Remove a namespace; with `force` also what is in it.

        Raises:
            NoSuchNamespace: it was not created.
            NamespaceInUse: there is something in it.
        """
        self._run(asks.drop_namespace(name, force=force))

    def describe_namespace(self, name: str | None = None) -> Namespace:
        """Return the settings of a namespace (the client's own), and how much is in it."""
        return self._run(asks.describe_namespace(self.namespace if name is None else name))

    def read_register(self, name: Name) -> Register:
        """Return what the fenced register of a name holds; it is false if that is nothing."""
        return self._run(asks.read_register(self.namespace, name))

    def write_register(self, name: Name, data: bytes, token: int, *, version: int | None = None) -> Register:
        """Write the fenced register of a name under the token of a lease that covers it, whoever holds that.

        Raises:
            VersionConflict: it has another version than `version`; nothing was written.
            NotHeldError: no lease of this token is held.
            NotCovered: the lease does not cover `name` with a claim to write.

        >>> with client.lock("state") as lease:
        ...     written = client.write_register("state", b"day 5", lease.token, version=0)
        ...     client.read_register("state").data
        ...     client.erase_register("state", lease.token, version=written.version)
        b'day 5'
        True
        """
        return self._run(asks.write_register(self.namespace, name, token, data, version))

    def erase_register(self, name: Name, token: int, *, version: int | None = None) -> bool:
        """Remove the fenced register of a name; False if there was none. The errors are those of `write_register`."""
        return self._run(asks.erase_register(self.namespace, name, token, version))

    def transact(self, transaction: Transaction) -> None:
        """Carry out a transaction: all of it, or nothing.

        Raises:
            TransactionDeclined: a check did not hold, or a step was impossible; nothing was carried out.

        >>> with client.lock("ledger") as lease:
        ...     parts = client.transaction().if_held(lease.token).if_version("ledger", 0)
        ...     client.transact(parts.write("ledger", b"day 5", lease.token).release(lease.token))
        >>> client.read_register("ledger").data
        b'day 5'
        """
        self._run(asks.carried_out(transaction))

    def break_lease(self, token: int, reason: str) -> None:
        """End the lease of this token as an operator; its holder is told the reason.

        Raises:
            NotHeldError: no lease of this token is held.

        >>> lease = client.acquire("x", ttl=30)
        >>> client.break_lease(lease.token, "host h7 is gone")
        >>> lease.lost.wait(10), lease.lost_reason
        (True, 'host h7 is gone')
        """
        self._run(asks.break_lease(token, reason))

    def events(self, name: Name | None = None, *, since: int, below: bool = False) -> Events:
        """Return what happened to a name (with `below` also under it; None: anywhere) after revision `since`.

        At most some hundred events come at once; `events.revision` is where to go on.

        >>> since = client.revision()
        >>> with client.lock("x"):
        ...     [event.kind for event in client.events("x", since=since).events]
        ['granted']
        """
        return self._run(asks.events_since("" if name is None else self.namespace, name, since, below=below))

    def revision(self) -> int:
        """Return the revision of the last thing that has happened anywhere.

        Ask for it, then look (`describe`, `leases`), then `watch(..., since=revision)`: some of what the look has shown
        may be told again, and nothing is missed.
        """
        return self._run(asks.latest_revision()).revision

    def transaction(self) -> Transaction:
        """Return an empty transaction of this namespace: fill it with checks and steps, and give it to `transact`."""
        return Transaction(self.namespace)

    def semaphores(self, *, all_namespaces: bool = False) -> list[Semaphore]:
        """Return every semaphore of the namespace that was created, or of all of them."""
        return self._every("semaphores", asks.everywhere(self.namespace, all_namespaces=all_namespaces), asks.semaphore)

    def pins(self, *, all_namespaces: bool = False) -> list[Pinned]:
        """Return every name of the namespace that is pinned, and by whom, or of all of them."""
        return self._every("pins", asks.everywhere(self.namespace, all_namespaces=all_namespaces), asks.pinned)

    def registers(self, *, all_namespaces: bool = False) -> list[RegisterView]:
        """Return every register of the namespace, without its data, or of all of them.

        >>> with client.lock("x") as lease:
        ...     written = lease.write(b"day 5")
        >>> "x" in [register.name for register in client.registers()]
        True
        """
        return self._every("registers", asks.everywhere(self.namespace, all_namespaces=all_namespaces), asks.register)

    def namespaces(self) -> list[Namespace]:
        """Return every namespace, created or merely used."""
        return self._every("namespaces", "", asks.namespace)

    def sessions(self, *, all_namespaces: bool = False) -> list[Session]:
        """Return every session of the namespace, or of all of them.

        >>> with client.lock("x"):
        ...     [session.held for session in client.sessions()]
        [1]
        """
        return self._every("sessions", asks.everywhere(self.namespace, all_namespaces=all_namespaces), asks.session)

    def _every(self, kind: str, namespace: str, view: Callable[..., T]) -> list[T]:
        found, upto = self._run(asks.page_of(kind, namespace, 0, view))
        while upto:
            page, upto = self._run(asks.page_of(kind, namespace, upto, view))
            found += page
        return found

    def _walk(self, steps: Steps[T]) -> T:
        operation = next(steps)
        while True:
            result = self._run(Ask(operation, lambda answer: answer))
            try:
                operation = steps.send(result)
            except StopIteration as done:
                value: T = done.value
                return value
