"""The recipes of the blocking face, which its clients have as methods; `aio` has the same names for `lessor.aio`."""

from .client.recipes import aio_names as aio
from .client.recipes.rules import SKIPPED, Leader, LeadershipChanged, Member
from .client.recipes.sync import Election, Leadership, Observation, ReentrantLock, Semaphore, StableLeadership
from .client.recipes.sync_groups import Barrier, DoubleBarrier, Party, Workers, singleton

__all__ = [
    "SKIPPED",
    "Barrier",
    "DoubleBarrier",
    "Election",
    "Leader",
    "Leadership",
    "LeadershipChanged",
    "Member",
    "Observation",
    "Party",
    "ReentrantLock",
    "Semaphore",
    "StableLeadership",
    "Workers",
    "aio",
    "singleton",
]
