"""What an asyncio client can ask for beside leases: semaphores, pins, namespaces, registers, events.

The blocking face has the same methods in the same order; both only send what `asks` says.
"""

from collections.abc import Callable

from . import asks, holders
from .asks import Ask, Events, Namespace, Pinned, Register, RegisterView, Semaphore, Session, T, Transaction
from .durations import Duration, ttl_milliseconds
from .holders import Steps
from .wants import Name, path_of


class AsyncModel:
    """The calls that need nothing but a question and its answer. The examples of `Model` hold here as well, awaited."""

    namespace: str

    async def _run(self, ask: Ask[T]) -> T:
        raise NotImplementedError

    async def create_semaphore(self, name: Name, limit: int, data: bytes = b"") -> None:
        """Make a semaphore of `limit` units that stays until it is deleted.

        Raises:
            SemaphoreExists: it exists; nothing was changed.
            SemaphoreInUse: claims without a semaphore stand there.
        """
        await self._run(asks.create_semaphore(self.namespace, name, limit, data))

    async def update_semaphore(self, name: Name, data: bytes) -> bool:
        """Replace the data of a semaphore; False if it was the same.

        Raises:
            NoSuchSemaphore: it was not created.
        """
        return await self._run(asks.update_semaphore(self.namespace, name, data))

    async def delete_semaphore(self, name: Name, *, force: bool = False) -> None:
        """Remove a semaphore; with `force` also while it is in use: holders and waiters are told.

        Raises:
            NoSuchSemaphore: it was not created.
            SemaphoreInUse: it is held or waited for.
        """
        await self._run(asks.delete_semaphore(self.namespace, name, force=force))

    async def pin(self, name: Name, entity: str) -> bool:
        """Have the leases on a name not expire while `entity` pins it, whoever holds it; False if it did before.

        Raises:
            ServiceBusy: a limit of the service is reached.
        """
        return await self._run(asks.pin(self.namespace, name, entity))

    async def unpin(self, name: Name, entity: str) -> bool:
        """Take the pin of `entity` away; a lease that is overdue ends at once. False if there was none."""
        return await self._run(asks.unpin(self.namespace, name, entity))

    async def claim(self, name: Name, holder: str, duration: Duration, data: bytes = b"") -> int:
        """Take the lease on a name for a holder, or extend his own to `duration` from now; return its token (Juju).

        The lease is nobody's session's: whoever knows the holder's name extends it, and it ends by itself.

        Raises:
            ClaimDenied: somebody else holds it; certainly not held by this claim.
        """
        held = await self._walk(holders.claim(self.namespace, path_of(name), holder, ttl_milliseconds(duration), data))
        return held.token

    async def extend(self, name: Name, holder: str, duration: Duration) -> int:
        """Have the holder's lease last until `duration` from now at least, never shorter; return its token (Juju).

        Raises:
            NotHeldError: he does not hold it.
        """
        held = await self._walk(holders.extend(self.namespace, path_of(name), holder, ttl_milliseconds(duration)))
        return held.token

    async def revoke(self, name: Name, holder: str) -> bool:
        """End the holder's lease; False if nobody holds one (Juju).

        Raises:
            NotHeldError: somebody else holds it.
        """
        return await self._walk(holders.revoke(self.namespace, path_of(name), holder))

    async def check_holder(self, name: Name, holder: str) -> int:
        """Return the token of the holder's lease (Juju's Token.Check).

        Raises:
            NotHeldError: he does not hold it.
        """
        found = await self._walk(holders.check(self.namespace, path_of(name), holder))
        return found.token

    async def create_namespace(
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
        """
        await self._run(
            asks.create_namespace(
                name,
                default_ttl=default_ttl,
                ttl_max=ttl_max,
                session_grace=session_grace,
                lock_delay=lock_delay,
                claims_max=claims_max,
            )
        )

    async def alter_namespace(
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
        return await self._run(
            asks.alter_namespace(
                name,
                default_ttl=default_ttl,
                ttl_max=ttl_max,
                session_grace=session_grace,
                lock_delay=lock_delay,
                claims_max=claims_max,
            )
        )

    async def drop_namespace(self, name: str, *, force: bool = False) -> None:
        """Remove a namespace; with `force` also what is in it.

        Raises:
            NoSuchNamespace: it was not created.
            NamespaceInUse: there is something in it.
        """
        await self._run(asks.drop_namespace(name, force=force))

    async def describe_namespace(self, name: str | None = None) -> Namespace:
        """Return the settings of a namespace (the client's own), and how much is in it."""
        return await self._run(asks.describe_namespace(self.namespace if name is None else name))

    async def read_register(self, name: Name) -> Register:
        """Return what the fenced register of a name holds; it is false if that is nothing."""
        return await self._run(asks.read_register(self.namespace, name))

    async def write_register(self, name: Name, data: bytes, token: int, *, version: int | None = None) -> Register:
        """Write the fenced register of a name under the token of a lease that covers it, whoever holds that.

        Raises:
            VersionConflict: it has another version than `version`; nothing was written.
            NotHeldError: no lease of this token is held.
            NotCovered: the lease does not cover `name` with a claim to write.
        """
        return await self._run(asks.write_register(self.namespace, name, token, data, version))

    async def erase_register(self, name: Name, token: int, *, version: int | None = None) -> bool:
        """Remove the fenced register of a name; False if there was none. The errors are those of `write_register`."""
        return await self._run(asks.erase_register(self.namespace, name, token, version))

    async def transact(self, transaction: Transaction) -> None:
        """Carry out a transaction: all of it, or nothing.

        Raises:
            TransactionDeclined: a check did not hold, or a step was impossible; nothing was carried out.
        """
        await self._run(asks.carried_out(transaction))

    async def break_lease(self, token: int, reason: str) -> None:
        """End the lease of this token as an operator; its holder is told the reason.

        Raises:
            NotHeldError: no lease of this token is held.
        """
        await self._run(asks.break_lease(token, reason))

    async def events(self, name: Name | None = None, *, since: int, below: bool = False) -> Events:
        """Return what happened to a name (with `below` also under it; None: anywhere) after revision `since`.

        At most some hundred events come at once; `events.revision` is where to go on.
        """
        return await self._run(asks.events_since("" if name is None else self.namespace, name, since, below=below))

    async def revision(self) -> int:
        """Return the revision of the last thing that has happened anywhere.

        Ask for it, then look (`describe`, `leases`), then `watch(..., since=revision)`: some of what the look has shown
        may be told again, and nothing is missed.
        """
        return (await self._run(asks.latest_revision())).revision

    def transaction(self) -> Transaction:
        """Return an empty transaction of this namespace: fill it with checks and steps, and give it to `transact`."""
        return Transaction(self.namespace)

    async def semaphores(self, *, all_namespaces: bool = False) -> list[Semaphore]:
        """Return every semaphore of the namespace that was created, or of all of them."""
        return await self._every(
            "semaphores", asks.everywhere(self.namespace, all_namespaces=all_namespaces), asks.semaphore
        )

    async def pins(self, *, all_namespaces: bool = False) -> list[Pinned]:
        """Return every name of the namespace that is pinned, and by whom, or of all of them."""
        return await self._every("pins", asks.everywhere(self.namespace, all_namespaces=all_namespaces), asks.pinned)

    async def registers(self, *, all_namespaces: bool = False) -> list[RegisterView]:
        """Return every register of the namespace, without its data, or of all of them."""
        return await self._every(
            "registers", asks.everywhere(self.namespace, all_namespaces=all_namespaces), asks.register
        )

    async def namespaces(self) -> list[Namespace]:
        """Return every namespace, created or merely used."""
        return await self._every("namespaces", "", asks.namespace)

    async def sessions(self, *, all_namespaces: bool = False) -> list[Session]:
        """Return every session of the namespace, or of all of them."""
        return await self._every(
            "sessions", asks.everywhere(self.namespace, all_namespaces=all_namespaces), asks.session
        )

    async def _every(self, kind: str, namespace: str, view: Callable[..., T]) -> list[T]:
        found, upto = await self._run(asks.page_of(kind, namespace, 0, view))
        while upto:
            page, upto = await self._run(asks.page_of(kind, namespace, upto, view))
            found += page
        return found

    async def _walk(self, steps: Steps[T]) -> T:
        operation = next(steps)
        while True:
            result = await self._run(Ask(operation, lambda answer: answer))
            try:
                operation = steps.send(result)
            except StopIteration as done:
                value: T = done.value
                return value
