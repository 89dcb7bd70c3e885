"""A client of no ceremony, for benchmarks: requests of many sessions over one connection, a window at a time."""

import itertools
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any

import zmq

from lessor.client.status import ask_status
from lessor.core.commands import OpenSession, Operation, proof_of
from lessor.core.requests import Answer, Busy, Redirect, Request
from lessor.core.results import SessionOpened
from lessor.transport import sockets
from lessor.transport.packets import decode_packet, encode_packet

PACKET_REQUESTS = 256


class RawClient:
    """One connection to the leader. Every request is acknowledged with the next one, so that no answers pile up."""

    def __init__(self, endpoints: list[str], window: int = 2_000) -> None:
        """Connect to the leader of the cluster at these endpoints."""
        cluster = ask_status(endpoints)
        leader = next(node.endpoint for node in cluster.nodes if node.answer and node.answer.node == cluster.leader)
        self.window = window
        self._context = sockets.make_context()
        self._dealer = sockets.dealer(self._context, leader)
        self._numbers = itertools.count(1)
        self._proofs: dict[int, int] = {}

    def open_sessions(self, count: int, timeout_ms: int) -> list[int]:
        """Open so many sessions, and return their numbers."""
        keys = [secrets.token_bytes(16) for _ in range(count)]
        opened = [answer.result for answer in self.ask((0, OpenSession(key, timeout_ms, "bench")) for key in keys)]
        assert all(isinstance(one, SessionOpened) for one in opened), opened[:3]
        numbers = [one.session for one in opened]
        self._proofs.update(zip(numbers, map(proof_of, keys), strict=True))
        return numbers

    def ask(self, operations: Iterable[tuple[int, Operation]]) -> list[Answer]:
        """Return the answers to these operations, each of a session (0: of none), in the order of the operations."""
        found: dict[int, Answer] = {}
        numbers: list[int] = []
        under_way: dict[int, Request] = {}
        source = iter(operations)
        while True:
            taken = list(itertools.islice(source, min(PACKET_REQUESTS, self.window - len(under_way))))
            requests: list[Request] = []
            for session, operation in taken:
                number = next(self._numbers)
                numbers.append(number)
                under_way[number] = Request(session, number, number, operation, self._proofs.get(session, 0))
                requests.append(under_way[number])
            self._send(requests)
            if not under_way:
                return [found[number] for number in numbers]
            for message in self._receive():
                if isinstance(message, Answer):
                    if under_way.pop(message.number, None) is not None:
                        found[message.number] = message
                elif isinstance(message, Busy):
                    self._send([under_way[message.number]])
                elif isinstance(message, Redirect):
                    raise ConnectionError("the leader has changed while it was measured")

    def _send(self, requests: list[Request]) -> None:
        if requests:
            frame = encode_packet(requests)
            deadline = time.monotonic() + 10
            while not sockets.send(self._dealer, [frame]):
                assert time.monotonic() < deadline, "no connection"
                time.sleep(0.001)

    def _receive(self) -> Iterator[Any]:
        if not self._dealer.poll(30_000, zmq.POLLIN):
            raise RuntimeError("no answer in 30 s")
        for frames in sockets.receive(self._dealer):
            yield from decode_packet(frames[-1])

    def close(self) -> None:
        """Close the connection."""
        self._dealer.close()
        sockets.end_context(self._context)
