"""A ticket: a lease as a small string, by which another thread, process or host can go on with it."""

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any

import cbor2

from .errors import BadRequest

VERSION = 1
TICKET_CHARS_MAX = 4096
"""A ticket of the longest names has about half of this."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What stands in a ticket: enough to renew and release the grant, and to say of what it is."""

    namespace: str
    path: tuple[str, ...]
    token: int
    claim: int
    ttl_ms: int
    holder: str
    detached: bool

    @property
    def name(self) -> str:
        """The name of what is held."""
        return "/".join(self.path)

    def __str__(self) -> str:
        """Return the ticket as text that may stand in a URL, an environment variable or a file's name."""
        fields = [self.namespace, list(self.path), self.token, self.claim, self.ttl_ms, self.holder, self.detached]
        return pack(VERSION, fields)


def read(text: Any) -> Ticket:
    """Return what stands in a ticket.

    Raises:
        BadRequest: it is no ticket, was damaged on its way, or is of a version that is not known here.
    """
    kinds = (str, list, int, int, int, str, bool)
    namespace, path, token, claim, ttl_ms, holder, detached = unpack(VERSION, text, kinds, "lease.ticket()")
    if not all(type(part) is str for part in path):
        raise BadRequest(f"this is no ticket: {text[:40]!r}")
    return Ticket(namespace, tuple(path), token, claim, ttl_ms, holder, detached)


def pack(version: int, fields: list[Any]) -> str:
    """Return these fields as text."""
    body = bytes([version]) + cbor2.dumps(fields)
    return base64.urlsafe_b64encode(body + zlib.crc32(body).to_bytes(4, "big")).decode().rstrip("=")


def unpack(version: int, text: Any, kinds: tuple[type, ...], giver: str) -> list[Any]:
    """Return the fields of a ticket that is of this version, and of these kinds.

    Raises:
        BadRequest: it is no ticket, was damaged on its way, or is of another version.
    """
    if not isinstance(text, str) or len(text) > TICKET_CHARS_MAX:
        raise BadRequest(f"a ticket is text, as `{giver}` gave it")
    text = text.strip()  # as a line of a file has it
    try:
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"this is no ticket: {text[:40]!r}") from None
    body, crc = whole[:-4], whole[-4:]
    if not body or zlib.crc32(body).to_bytes(4, "big") != crc:
        raise BadRequest(f"this is no ticket, or only a part of one: {text[:40]!r}")
    if body[0] != version:
        raise BadRequest(f"a ticket of version {body[0]} is not one that `{giver}` gives here")
    try:
        fields = cbor2.loads(body[1:])
    except (cbor2.CBORDecodeError, ValueError, TypeError):
        raise BadRequest(f"this is no ticket: {text[:40]!r}") from None
    if type(fields) is not list or tuple(map(type, fields)) != kinds:
        raise BadRequest(f"this is no ticket: {text[:40]!r}")
    return fields
