"""The words for where a lease stands, and for why it was lost."""

import enum


class LeaseState(enum.Enum):
    """Where a lease stands, for its holder."""

    HELD = "held"
    JEOPARDY = "jeopardy"
    """Still held, but its renewal is overdue by half of the time that was left: a third of the ttl remains, or less."""
    LOST = "lost"
    RELEASED = "released"


class Loss(enum.Enum):
    """Why a lease was lost."""

    EXPIRED = "expired"
    UNREACHABLE = "unreachable"
    ENDED = "ended by the service"
    BROKEN = "broken by operator"
    TAKEN_OVER = "taken over"
    SESSION_ENDED = "session ended"
    STOLEN = "session stolen"
    SUSPENDED = "clock suspended"
    FORK = "fork"
    MAX_HOLD = "max hold"
    NO_PROGRESS = "no progress"
    FAILED = "client failed"
