"""Ends a session as an operator, which no client of the public face does."""

import time

from ..core.commands import EndSession
from ..core.requests import Answer, Request
from ..transport import sockets
from ..transport.packets import decode_packet, encode_packet

LOOK_MS = 5


def end_session(endpoint: str, session: int, timeout: float) -> bool:
    """Ask the node at `endpoint` to close the session; return whether it is certain that it is over."""
    context = sockets.make_context()
    try:
        socket = sockets.dealer(context, endpoint)
        request = encode_packet([Request(0, 1, 0, EndSession(session))])
        deadline = time.monotonic() + timeout
        sent = False
        while time.monotonic() < deadline:
            sent = sent or sockets.send(socket, [request])
            if socket.poll(LOOK_MS):
                answers = [message for frames in sockets.receive(socket) for message in decode_packet(frames[-1])]
                # whatever the answer is, that it is already over among them; all else is for another try
                return any(isinstance(answer, Answer) for answer in answers)
        return False
    finally:
        context.destroy(linger=0)
