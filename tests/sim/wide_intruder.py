"""A stranger in a wide world: he asks in sessions that are not his, by their numbers, as no client of ours would."""

from typing import TYPE_CHECKING

from lessor.client.heritage import SessionTicket
from lessor.core.commands import (
    ATTACH_STEP,
    FOREVER,
    AttachSession,
    Cancel,
    Claim,
    CloseSession,
    Operation,
    Ping,
    Release,
    proof_of,
)
from lessor.core.effects import Connection
from lessor.core.requests import Request
from lessor.core.resources import Resource
from lessor.transport.packets import encode_packet

if TYPE_CHECKING:
    from .client import SimClient
    from .world import World


def intrude(client: "SimClient", session: int) -> None:
    """Ask in this session: as a stranger, or as one who had it before, does not stop, and guesses the new numbers."""
    world = client.world
    now, before = world.board.files[session], world.board.robbed.get(session)
    attach = now.attach + world.rng.choice((0, 0, 0, 0, 1))
    number = attach * ATTACH_STEP + world.rng.randint(1, 99)
    acked_below = world.rng.choice((0, (attach + 1) * ATTACH_STEP))
    proof = proof_of(before.key) if before is not None else 0
    request = Request(session, number, acked_below, _operation(client), proof)
    # over a connection of its own, which nobody listens to: an answer to its number is none to the client's
    world.last_connection += 1
    node, stranger = world.nodes[world.node_at[client.protocol.target]], Connection(b"%d" % world.last_connection)
    world.network.send(
        client.number, node.number, node.arrive_from_client, node.life, stranger, encode_packet([request])
    )


def come_too_late(world: "World", before: SessionTicket) -> AttachSession | None:
    """Return how one more tries the ticket of a session that was just taken over, or, of it, the old key alone."""
    chance, timeout_ms = world.random(), world.options.session_timeout_ms
    if chance < 0.3:
        return AttachSession(before.session, before.key, before.attach + 2, timeout_ms, "a thief")
    if chance < 0.5:
        return AttachSession(before.session, before.key, before.attach + 1, timeout_ms, "late", b"0123456789abcdef")
    return None


def _operation(client: "SimClient") -> Operation:
    rng, tickets = client.world.rng, client.world.board.tickets
    acts: list[Operation] = [CloseSession(), Ping(()), Ping((1,))]
    acts.append(Claim("default", (Resource(("x",)),), "a stranger", b"", 0, FOREVER, detached=False))
    if tickets:
        acts += [Cancel(tickets[-1].claim), Release(tickets[-1].token)]
    return rng.choice(acts)
