"""A lease as its holder sees it, and as others see it: until when, in whose time, and what to think of that."""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import BadRequest, LessorError
from ..core.resources import Mode, Resource
from ..core.results import ClaimInfo, ClaimPhase, ClaimStatus
from . import clock
from .calling import BaseCaller
from .durations import checked_gap
from .errors import LeaseLost
from .news import SIGNALS, News, call, on_loss
from .records import LeaseRecord
from .states import LeaseState, Loss
from .ticket import Ticket


def wall_ms(local_ms: int) -> int:
    """Return a moment of the client's own clock on its wall clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000 + local_ms - clock.now_ms()


def as_datetime(epoch_ms: float) -> dt.datetime:
    """Return milliseconds since the epoch as an aware datetime in UTC."""
    return dt.datetime.fromtimestamp(epoch_ms / 1000, dt.UTC)


def _sentence(loss: Loss | None, reason: str) -> str:
    return f"an operator broke it: {reason}" if loss is Loss.BROKEN else reason


class BaseLease:
    """What a held lease says of itself in both faces of the client, and to whom."""

    def __init__(self, caller: BaseCaller, record: LeaseRecord, on_lost: Any = None, keeper: str | None = None) -> None:
        """Made by the client: from now on what `on_lost` says is done at its loss, and a keeper renews it too."""
        self._caller: Any = caller
        self._protocol = caller.protocol
        self._record = record
        self._lost: Any = None
        self._ended: Any = None
        self._given_back = False
        self._keeper: Any = None
        if on_lost is not None:
            self._tell_first(on_loss(caller, on_lost, type(self)))
        if keeper is not None:
            self._keep(on_lost)

    def __repr__(self) -> str:
        """Show the name, the token and the state."""
        return f"<{type(self).__name__} {self.name!r} token={self.token} {self.state.value}>"

    @property
    def name(self) -> str:
        """The name of what is held."""
        return "/".join(self._record.path)

    @property
    def path(self) -> tuple[str, ...]:
        """The path of what is held, of the first resource if there are several."""
        return self._record.path

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All that is held: paths, each to read, to write, or for so many units."""
        return self._record.resources

    @property
    def namespace(self) -> str:
        """The namespace that the name is in."""
        return self._record.namespace

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every grant before it in this cluster (P5)."""
        return self._record.token

    @property
    def holder(self) -> str:
        """The holder's name, as others see it."""
        return self._record.holder

    @property
    def data(self) -> bytes:
        """The data kept with the lease."""
        return self._record.data

    @property
    def held(self) -> bool:
        """Whether the lease is certainly still held: not released, not lost, and before its deadline."""
        return self.remaining() > 0

    @property
    def state(self) -> LeaseState:
        """HELD, JEOPARDY (held, but less than a third of its ttl is left unrenewed), LOST or RELEASED: as of now.

        RELEASED also while a request of this client is under way that may end it, such as a transaction; should that be
        declined, it is held again.
        """
        state = self._record.state
        if self._record.laid_down and not self._record.over:
            return LeaseState.RELEASED
        return LeaseState.LOST if not self._record.over and not self.held else state

    @property
    def lost_reason(self) -> str:
        """Why the lease was lost, "" while it is held or if it was released."""
        return self._how_lost()[1]

    @property
    def why_lost(self) -> str:
        """The same as a sentence is to have it: an operator's own words are told as such."""
        return _sentence(*self._how_lost())

    @property
    def loss(self) -> Loss | None:
        """The kind of the loss, None while it is held or if it was released."""
        return self._how_lost()[0]

    def _how_lost(self) -> tuple[Loss | None, str]:
        if self._record.state is LeaseState.LOST:
            return self._record.loss, self._record.reason
        if self.state is not LeaseState.LOST:
            return None, ""
        # the client's own thread has yet to notice; if it has not even asked, the service is not to blame
        loss, reason = self._protocol.why_over(self._record, clock.now_ms())
        blameless = loss is Loss.UNREACHABLE and not self._record.renewing
        return (Loss.EXPIRED, "it expired") if blameless else (loss, reason)

    @property
    def renewal_lateness(self) -> float:
        """For how many seconds the last renewal in the background began too late, or the one that is due is overdue."""
        late_ms = self._record.lateness_ms
        if self._record.auto_renew and self._record.ttl_ms and self.held and not self._record.renewing:
            late_ms = max(late_ms, clock.now_ms() - self._record.renew_at_ms)
        return late_ms / 1000

    def remaining(self) -> float:
        """Return for how many seconds from now the lease is certainly held, 0.0 when it is not.

        Counted on this machine's own clock from the sending of the request, less the drift margin; it grows with each
        renewal.
        """
        if self._record.over or self._record.laid_down:
            return 0.0
        return max(0, self._protocol.safe_until_ms(self._record) - clock.now_ms()) / 1000

    def check(self) -> None:
        """Return if the lease is held.

        Raises:
            LeaseLost: it was lost or released; `loss` says which loss.

        >>> with client.lock("x") as lease:
        ...     lease.check()
        >>> lease.check()
        Traceback (most recent call last):
            ...
        lessor.client.errors.LeaseLost: 'x' is not held any more: it was released
        """
        if not self.held:
            raise self._is_lost()

    def progress(self) -> None:
        """Say that the work goes on: with `progress_timeout`, a lease whose work has stopped is not renewed.

        >>> with client.lock("import", progress_timeout=60) as lease:
        ...     for file in ("a", "b"):
        ...         lease.progress()
        """
        if self._is_of_a_parent():
            return
        self._caller.do(lambda: self._protocol.progress(self._record))
        if self._keeper is not None:
            self._keeper.share_progress()

    def ticket(self) -> str:
        """Return a small text by which another thread, process or host can go on with the lease: `client.resume`."""
        record = self._record
        place = (record.namespace, record.path, record.token, record.claim)
        return str(Ticket(*place, record.ttl_ms, record.holder, record.detached))

    def _take_status(self, status: Any) -> None:
        """Take in what an amendment or a change of owner has made of the claim."""
        if isinstance(status, ClaimStatus) and status.phase == ClaimPhase.HELD:
            self._record.expires_at_ms = max(self._record.expires_at_ms, status.expires_at_ms)

    @contextmanager
    def _shrinking(self, count: int | None, *, to_read: bool) -> Iterator[None]:
        """Count less as held from the moment of asking, and as much as before only if it certainly was refused."""
        record, before = self._record, self._record.resources
        if count is not None:
            record.resources = tuple(
                [replace(each, count=min(count, each.count)) if each.mode == Mode.COUNT else each for each in before]
            )
        if to_read:
            record.resources = tuple(
                [replace(each, mode=Mode.READ) if each.mode == Mode.WRITE else each for each in before]
            )
        try:
            yield
        except LessorError as error:
            if not error.indefinite:
                record.resources = before
            raise

    def _on_change(self, callback: Callable[[Any, LeaseState], object]) -> None:
        if not callable(callback):
            raise BadRequest(f"what is to be called with each change is a function, not {callback!r:.80}")
        self._watch(
            lambda news: news.tell(callback), lambda: self._caller.post(lambda: call(callback, self, self.state))
        )

    def _tell_first(self, step: Callable[[LeaseRecord], None]) -> None:
        """Have a step done with each change as soon as it is noticed; it must neither wait nor fail."""
        self._watch(lambda news: news.tell_first(step), lambda: step(self._record))

    def _event(self) -> Any:
        """Return the event of the face's kind that is set when the lease is lost."""
        if self._lost is None:
            event = self._lost = self._caller.make_event()
            self._watch(lambda news: news.set_on_loss(event), lambda: self._set_if_lost(event))
        return self._lost

    def _end_event(self) -> Any:
        """Return the event of the face's kind that is set when the lease is lost or released."""
        if self._ended is None:
            event = self._ended = self._caller.make_event()
            self._watch(lambda news: news.set_on_end(event), event.set)
        return self._ended

    def _begin_release(self, done: Callable[[Any], None]) -> None:
        """Begin to give the lease back, and wait for nothing; `done` is called once, with the answer or an error."""
        self._given_back = True
        if self._record.over or self._is_not_ours():
            done(None)
            return
        caller, protocol = self._caller, self._protocol
        caller.do(lambda: protocol.release(self._record, done, protocol.now_ms + caller.request_timeout_ms))

    def _keep(self, on_lost: Any) -> None:
        """Have a process of its own renew the lease too; it does what `on_lost` says if that is a signal."""
        from .keeper import Keeper  # noqa: PLC0415 - few need it, and it needs much

        signal = SIGNALS[on_lost] if isinstance(on_lost, str) else 0
        try:
            keeper = self._keeper = Keeper(self._protocol.endpoints, self.ticket(), self._record, signal)
        except BaseException:  # as of a machine that has no room for another process: nobody would have the lease
            self._begin_release(lambda _: None)
            raise
        self._tell_first(keeper.changed)
        self._record.kept_until = keeper.until

    def _set_if_lost(self, event: Any) -> None:
        if self._record.state is LeaseState.LOST:
            event.set()

    def _watch(self, ask: Callable[[News], None], at_once: Callable[[], None]) -> None:
        def step() -> None:
            if self._record.over:
                at_once()
            else:
                ask(News.of(self._caller, self._record, type(self)))

        self._caller.do(step)

    def _is_not_ours(self) -> bool:
        """Return whether there is nothing to give back: it was released, or is another client's by now."""
        record = self._record
        others = record.loss in (Loss.FORK, Loss.TAKEN_OVER, Loss.STOLEN)
        return others or record.state is LeaseState.RELEASED or self._is_of_a_parent()

    def _is_of_a_parent(self) -> bool:
        """Return whether this process was forked from the one that acquired it; nobody runs that protocol here."""
        return self._protocol is not self._caller.protocol

    def _check_ours(self) -> None:
        """Return if this process may ask something of the lease.

        Raises:
            LeaseLost: it is the parent's.
        """
        if self._is_of_a_parent():
            raise self._is_lost()

    def _lost_in_its_body(self) -> LeaseLost | None:
        loss, reason = self._how_lost()
        text = f"{self.name!r} was lost before the body of `with` had ended: {_sentence(loss, reason)}"
        return LeaseLost(text, loss) if reason else None

    def _is_lost(self) -> LeaseLost:
        loss, reason = self._how_lost()
        return LeaseLost(f"{self.name!r} is not held any more: {_sentence(loss, reason) or 'it was released'}", loss)

    def expire_time_unsafe(self) -> int:
        """Return the deadline in milliseconds since the epoch on *this machine's wall clock*.

        Unsafe, as the name says: the wall clock may be set at any time, and between looking at it and acting on it the
        process may stand still. (After TrexLock's call of this name.)
        """
        return wall_ms(self._protocol.safe_until_ms(self._record))

    def expire_time_with_safety_gap(self, gap: dt.timedelta) -> dt.datetime:
        """Return the deadline less `gap`: work while now is before it.

        An aware datetime, on purpose no number, so that it is not compared with a number from elsewhere. Choose the gap
        at least as long as the longest step of work between two looks. (After TrexLock's call of this name.)

        >>> with client.lock("x", ttl=30) as lease:
        ...     dt.datetime.now(dt.UTC) < lease.expire_time_with_safety_gap(dt.timedelta(seconds=5))
        True
        """
        return as_datetime(self.expire_time_unsafe()) - checked_gap(gap)


def gone(lease: BaseLease) -> bool:
    """Return whether nobody counts on a lease any more: it was released, maybe after it had been lost."""
    return lease._given_back or lease._record.state is LeaseState.RELEASED  # noqa: SLF001 - for our recipes, not users


def ends_by_max_hold(lease: BaseLease) -> bool:
    """Return whether a lease that is held ends when it does since it may not be held for longer, renewed or not."""
    record, protocol = lease._record, lease._protocol  # noqa: SLF001 - for our own command, not users
    kind, _ = protocol.why_over(record, protocol.safe_until_ms(record))
    return kind is Loss.MAX_HOLD


@dataclass(frozen=True, slots=True)
class LeaseView:
    """Somebody's lease, as the service described it: for people and for those who wait, not for its holder.

    `expires_in` is in seconds from when the answer came, by the service's reckoning (0.0 for one who waits).
    """

    name: str
    namespace: str
    holder: str
    token: int
    waiting: bool
    claim: int
    session: int
    detached: bool
    ttl: float
    data: bytes
    held_for: float
    expires_in: float
    deadline_local_ms: int
    path: tuple[str, ...] = ()
    resources: tuple[Resource, ...] = ()

    def expire_time_unsafe(self) -> int:
        """Return when it should be over, in milliseconds since the epoch on this machine's wall clock; see `Lease`."""
        return wall_ms(self.deadline_local_ms)

    def expire_time_with_safety_gap(self, gap: dt.timedelta) -> dt.datetime:
        """Return the deadline *plus* `gap`: it is over once now is after it - unless it was renewed meanwhile."""
        return as_datetime(self.expire_time_unsafe()) + checked_gap(gap)


def view(info: ClaimInfo, clock_ms: int, over_after_ms: int) -> LeaseView:
    """Return a claim as the service tells it, in terms of this client's time."""
    held = info.phase == ClaimPhase.HELD
    return LeaseView(
        name="/".join(info.path),
        namespace=info.namespace,
        holder=info.holder,
        token=info.token,
        waiting=not held,
        claim=info.claim,
        session=info.session,
        detached=info.detached,
        ttl=info.ttl_ms / 1000,
        data=info.data,
        held_for=max(0, clock_ms - info.since_ms) / 1000,
        expires_in=max(0, info.expires_at_ms - clock_ms) / 1000 if held else 0.0,
        deadline_local_ms=over_after_ms if held else clock.now_ms(),
        path=info.path,
        resources=tuple([replace(each, mode=Mode(each.mode)) for each in info.resources]),  # it travels as a number
    )
