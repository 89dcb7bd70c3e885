"""An inbox that hands over everything that has arrived, by tell and by socket, as one batch: so a commit serves many.

It takes Pykka's place for the queue of an actor (`_create_actor_inbox` is its seam for new actor types). The actor's
own thread polls its sockets here, which saves a thread for each socket and two hand-offs for each message.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import zmq

from ..transport.sockets import Socket, readable
from ..transport.waker import make_waker

RARE_TURNS = 100
"""An actor that never sleeps looks at its monitors once in so many batches."""

PATIENCE_MESSAGES = 100
"""An actor that sleeps is woken by so many messages, even if each of them could wait."""


class Envelope(Protocol):
    """Pykka's envelope: a message, and where to put the answer if one is wanted."""

    message: Any
    reply_to: Any


class Batch:
    """All messages that had arrived when the actor looked; empty when only time has passed.

    `error` is what kept the actor from looking: Pykka would let its thread end by that, and nobody would be told.
    """

    __slots__ = ("error", "message", "messages", "reply_to")

    def __init__(self, messages: list[Any], error: Exception | None = None) -> None:
        """Be envelope and message at once."""
        self.messages = messages
        self.error = error
        self.message = self
        self.reply_to = None


class Inbox:
    """A queue that is also a poller. `put` may be called from any thread, all else from the actor's own."""

    def __init__(self) -> None:
        """Start with no socket, and with the wish to be woken at once, for a first look at the clock."""
        self.wake_at_ms: int | None = 0
        self.patient: tuple[type, ...] = ()
        """What need not wake the actor, and is found when something else does: a wake-up costs more than a message."""
        self._queue: deque[Envelope] = deque()
        self._waker = make_waker()
        self._asleep = False
        self._readers: list[tuple[Socket, Callable[[list[Any]], None]]] = []
        self._rare: list[tuple[Socket, Callable[[list[Any]], None]]] = []
        self._looks: list[Callable[[], int]] = []
        self._look_at_ms: list[tuple[int, int]] = []
        self._turns_awake = 0
        self._woken_by: list[Any] | None = None
        self._poller = zmq.Poller()
        self._poller.register(self._waker.fileno(), zmq.POLLIN)
        self._closed = False
        self._ringing = threading.Lock()

    def read_from(self, socket: Socket, reader: Callable[[list[Any]], None], *, rare: bool = False) -> None:
        """Have `reader` append what `socket` has received to each batch.

        A `rare` socket (a monitor) is looked at only after the actor has slept, or every so often while it does not.
        """
        (self._rare if rare else self._readers).append((socket, reader))
        self._poller.register(socket, zmq.POLLIN)

    def look_with(self, look: Callable[[], int]) -> None:
        """Have `look` called in the actor's thread, asleep or not; it says after how many milliseconds to call again.

        It comes after the sockets were read, and after half of that time if the actor is awake anyway.
        """
        self._looks.append(look)
        self._look_at_ms.append((0, 0))

    def put(self, envelope: Envelope, /) -> None:
        """Add an envelope, and wake the actor if it sleeps and this is nothing that can wait."""
        self._queue.append(envelope)
        if self._asleep and (type(envelope.message) not in self.patient or len(self._queue) > PATIENCE_MESSAGES):
            with self._ringing:  # not while it is closed: the number of its descriptor may be another file's by then
                if not self._closed:
                    self._asleep = False
                    self._waker.ring()

    def empty(self) -> bool:
        """Return whether no envelope is left (Pykka asks when the actor has stopped)."""
        return not self._queue

    def get(self) -> Envelope:
        """Wait for messages, or for the time that the actor wants to be woken at, and return all there is."""
        if self._closed:
            return self._queue.popleft()
        try:
            return self._next()
        except Exception as error:  # noqa: BLE001 - whatever it is, the actor is to fail by it
            return Batch([], error)

    def _next(self) -> Envelope:
        while True:
            batch: list[Any] = []
            control = self._take_told(batch)
            if control is not None:
                return control
            woken_by, self._woken_by = self._woken_by, None
            for socket, reader in self._readers:
                if readable(socket) if woken_by is None else socket in woken_by:
                    reader(batch)
            self._turns_awake += 1
            if self._turns_awake >= RARE_TURNS:
                self._turns_awake = 0
                for socket, reader in self._rare:
                    if readable(socket):
                        reader(batch)
            look_ms = self._look()
            if batch:
                return Batch(batch)
            wait_ms = self._wait_ms()
            if wait_ms == 0:
                return Batch(batch)
            self._asleep = True
            if not self._queue:  # what was put before `_asleep` was set has not rung
                self._sleep(look_ms if wait_ms is None else min(wait_ms, look_ms or wait_ms))
            self._asleep = False

    def close(self) -> None:
        """Let go of the waker; called by the actor at its end."""
        with self._ringing:
            self._closed = True
            self._waker.close()

    def _take_told(self, batch: list[Any]) -> Envelope | None:
        queue = self._queue
        while queue:
            envelope = queue[0]
            if envelope.reply_to is not None or type(envelope.message).__module__.startswith("pykka"):
                # one of Pykka's own, such as the order to stop: on its own, after what came before it
                if batch:
                    return Batch(batch)
                return queue.popleft()
            batch.append(queue.popleft().message)
        return None

    def _sleep(self, wait_ms: int | None) -> None:
        self._woken_by = [ready for ready, _ in self._poller.poll(wait_ms)]
        for ready in self._woken_by:
            if ready == self._waker.fileno():
                self._waker.hush()
            elif any(ready is socket for socket, _ in self._rare):
                self._turns_awake = RARE_TURNS

    def _look(self) -> int | None:
        """Look, if it is time to; return in how many milliseconds it is again."""
        if not self._looks:
            return None
        now = time.monotonic_ns() // 1_000_000
        for index, (early, _) in enumerate(self._look_at_ms):
            if now >= early:
                after_ms = self._looks[index]()
                self._look_at_ms[index] = now + after_ms // 2, now + after_ms
        return max(1, min([due for _, due in self._look_at_ms]) - now)

    def _wait_ms(self) -> int | None:
        if self.wake_at_ms is None:
            return None
        return max(0, self.wake_at_ms - time.monotonic_ns() // 1_000_000)
