"""The recipes of the asyncio face, under the names that `lessor.recipes` has for the blocking one."""

from .aio import Election, Leadership, Observation, ReentrantLock, Semaphore, StableLeadership
from .aio_groups import Barrier, DoubleBarrier, Party, Workers, singleton
from .rules import SKIPPED, Leader, LeadershipChanged, Member

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
    "singleton",
]
