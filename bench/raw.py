"""A client of no ceremony, for benchmarks: requests of many sessions over one connection, a window at a time."""

import itertools
import secrets
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from typing import Any

import zmq

from lessor.client.status import ask_status
from lessor.core.commands import OpenSession, Operation, proof_of
from lessor.core.requests import Answer, Busy, Redirect, Request
from lessor.core.results import SessionOpened
from lessor.transport import sockets
from lessor.transport.packets import decode_packet, encode_packet

PACKET_REQUESTS = 256
SILENCE_S = 1.0
"""After so long without a word it looks for the leader, and asks again."""
GIVE_UP_S = 60.0
LOOK_S = 0.1


class RawClient:
    """One connection to the leader, whoever leads. Requests keep their numbers, so that asked again they act once (P6).

    Every request acknowledges what came before it in its session, so that no answers pile up.
    """

    def __init__(self, endpoints: list[str], window: int = 2_000) -> None:
        """Connect to the leader of the cluster at these endpoints."""
        self.window = window
        self.leader_changes = 0
        self._endpoints = endpoints
        self._context = sockets.make_context()
        self._endpoint = self._find_leader()
        self._dealer = sockets.dealer(self._context, self._endpoint)
        self._last_number = 0
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
        first = self._last_number + 1
        # ordered ones, whose first key is found at once however many went before it
        under_way: OrderedDict[int, Request] = OrderedDict()
        open_in: defaultdict[int, OrderedDict[int, None]] = defaultdict(OrderedDict)  # of each session
        source = iter(operations)
        heard = time.monotonic()
        while True:
            # counted from the oldest: the service keeps the answers to all that follow it in its session
            spanned = self._last_number + 1 - next(iter(under_way), self._last_number + 1)
            requests: list[Request] = []
            for session, operation in itertools.islice(source, max(0, min(PACKET_REQUESTS, self.window - spanned))):
                self._last_number = number = self._last_number + 1
                open_in[session][number] = None
                acked_below = next(iter(open_in[session]))
                under_way[number] = Request(session, number, acked_below, operation, self._proofs.get(session, 0))
                requests.append(under_way[number])
            self._send(requests)
            if not under_way:
                return [found[number] for number in range(first, self._last_number + 1)]
            messages = self._receive()
            now = time.monotonic()
            if messages:
                heard = now
            elif now >= heard + GIVE_UP_S:
                raise ConnectionError(f"no answer in {GIVE_UP_S:g} s")
            left = not messages
            for message in messages:
                if isinstance(message, Answer):
                    request = under_way.pop(message.number, None)
                    if request is not None:
                        del open_in[request.session][message.number]
                        found[message.number] = message
                elif isinstance(message, Busy) and message.number in under_way:
                    self._send([under_way[message.number]])
                elif isinstance(message, Redirect) and (message.number in under_way or not message.number):
                    left = True
            if left:
                self._follow(told=bool(messages))
                self._send(list(under_way.values()))

    def _follow(self, *, told: bool) -> None:
        """Go to whoever leads now; `told` that the one here does not, or none has been heard for a while."""
        endpoint = self._find_leader()
        if told or endpoint != self._endpoint:
            self.leader_changes += 1
            self._dealer.close()  # with what it may still have to say of the time before
            self._endpoint, self._dealer = endpoint, sockets.dealer(self._context, endpoint)

    def _find_leader(self) -> str:
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            cluster = ask_status(self._endpoints, SILENCE_S)
            for node in cluster.nodes:
                if node.answer and node.answer.node == cluster.leader and node.answer.role == "leader":
                    return node.endpoint
            time.sleep(LOOK_S)
        raise ConnectionError(f"no leader in {GIVE_UP_S:g} s")

    def _send(self, requests: list[Request]) -> None:
        """Send; what cannot be sent in a while is sent again after the silence that follows."""
        deadline = time.monotonic() + SILENCE_S
        for first in range(0, len(requests), PACKET_REQUESTS):
            frame = encode_packet(requests[first : first + PACKET_REQUESTS])
            while not sockets.send(self._dealer, [frame]):
                if time.monotonic() >= deadline:
                    return
                time.sleep(0.001)

    def _receive(self) -> list[Any]:
        if not self._dealer.poll(SILENCE_S * 1000, zmq.POLLIN):
            return []
        return [message for frames in sockets.receive(self._dealer) for message in decode_packet(frames[-1])]

    def close(self) -> None:
        """Close the connection."""
        self._dealer.close()
        sockets.end_context(self._context)
