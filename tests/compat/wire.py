"""A client of a few lines that asks anything of real nodes, under a session whose key it knows."""

import time
from types import TracebackType
from typing import Any, Self

from lessor.core.commands import ATTACH_STEP, AttachSession, OpenSession, Operation, Ping, proof_of
from lessor.core.requests import Answer, Busy, Notice, Redirect, Request, SessionStolen
from lessor.core.results import ClaimStatus, SessionOpened
from lessor.transport import sockets
from lessor.transport.packets import decode_packet, encode_packet

PATIENCE_S = 30.0
SILENCE_S = 0.5
LOOK_MS = 10


class Wire:
    """One request at a time, repeated at every node in turn until one of them answers."""

    def __init__(self, endpoints: str, key: bytes, timeout_ms: int = 30_000) -> None:
        self.key = key
        self.timeout_ms = timeout_ms
        self.session = 0
        self.notices: list[Notice | SessionStolen] = []
        self._number = 0
        self._context = sockets.make_context()
        self._sockets = {each: sockets.dealer(self._context, each) for each in endpoints.split(",")}
        self._target = next(iter(self._sockets))

    def open(self) -> Self:
        """Open a session, or find the one that this key has opened."""
        opened = self.ask(OpenSession(self.key, self.timeout_ms, "wire"))
        assert isinstance(opened, SessionOpened)
        self.session = opened.session
        return self

    def attach(self, session: int, attach: int) -> Any:
        """Take over a session, as a process that knows its number and key."""
        answer = self.ask(AttachSession(session, self.key, attach, self.timeout_ms, "wire"))
        if isinstance(answer, SessionOpened):
            self.session = session
            self._number = attach * ATTACH_STEP
        return answer

    def ask(self, operation: Operation) -> Any:
        """Return the answer to an operation, however often it must be sent until then (it has one effect)."""
        self._number += 1
        session = 0 if isinstance(operation, OpenSession | AttachSession) else self.session
        request = encode_packet([Request(session, self._number, self._number, operation, proof_of(self.key))])
        deadline = time.monotonic() + PATIENCE_S
        sent_at = 0.0
        while time.monotonic() < deadline:
            if time.monotonic() - sent_at > SILENCE_S:
                if sent_at:
                    self._next()
                sent_at = time.monotonic() if sockets.send(self._sockets[self._target], [request]) else 0.0
                if not sent_at:
                    self._next()
            self._sockets[self._target].poll(LOOK_MS)
            for message in self._heard():
                if isinstance(message, Answer) and message.number == self._number:
                    return message.result
                if isinstance(message, Redirect | Busy) and message.number == self._number:
                    leader = getattr(message, "endpoint", "")
                    if leader in self._sockets and leader != self._target:
                        self._target, sent_at = leader, 0.0
        raise AssertionError(f"no answer to {operation} in {PATIENCE_S} s")

    def status(self, claim: int) -> ClaimStatus:
        """Where a claim of this session stands."""
        status: ClaimStatus = self.ask(Ping((claim,))).claims[0]
        return status

    def listen(self) -> list[Notice | SessionStolen]:
        """What was pushed since the last call."""
        self._heard()
        told, self.notices = self.notices, []
        return told

    def vanish(self) -> None:
        """End as a process that was killed: nothing is said, the connections break."""
        self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.vanish()

    def _next(self) -> None:
        names = list(self._sockets)
        self._target = names[(names.index(self._target) + 1) % len(names)]

    def _heard(self) -> list[Any]:
        messages = [
            message
            for socket in self._sockets.values()
            for frames in sockets.receive(socket)
            for message in decode_packet(frames[-1])
        ]
        self.notices += [message for message in messages if isinstance(message, Notice | SessionStolen)]
        return messages
