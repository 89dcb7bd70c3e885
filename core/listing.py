"""Pages for those who look: bounded in size, and in how many records are looked at for one of them."""

import bisect
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from . import limits
from .records import ClaimRecord
from .results import ClaimInfo, ClaimPage, ClaimPhase

T = TypeVar("T")


def numbers_after(numbers: list[int], after: int) -> Iterator[int]:
    """Return the numbers above `after` of a growing list, without walking those before."""
    return (numbers[place] for place in range(bisect.bisect_right(numbers, after), len(numbers)))


def cut(
    numbers: Iterator[int],
    find: Callable[[int], Any],
    namespace: str,
    count_max: int,
    inform: Callable[[Any], T],
    weigh: Callable[[T], int],
) -> tuple[list[T], int]:
    """Return a page of what is found under these numbers in `namespace` ("": in any), and up to where it goes.

    Up to 0 it goes to the end. A page may be empty and not the last one: so much was looked at in vain.
    """
    page: list[T] = []
    size = last = shown = 0
    for number in itertools.islice(numbers, limits.LIST_LOOK_MAX):
        last = number
        record = find(number)
        if record is None or namespace not in ("", record.namespace):
            continue
        if len(page) >= count_max or size >= limits.PAGE_BYTES:
            return page, shown
        page.append(inform(record))
        size += weigh(page[-1])
        shown = number
    return page, last if next(numbers, None) is not None else 0


def cut_page(
    numbers: Iterator[int],
    claims: dict[int, ClaimRecord],
    namespace: str,
    count_max: int,
    inform: Callable[[ClaimRecord], ClaimInfo],
) -> ClaimPage:
    """Return a page of the claims with these numbers that are in `namespace` ("": in any)."""

    def weigh(claim: ClaimInfo) -> int:
        return len(claim.data) + sum(len(part.encode()) for each in claim.resources for part in each.path)

    page, upto = cut(numbers, claims.get, namespace, count_max, inform, weigh)
    waiting = sum(claim.phase == ClaimPhase.WAITING for claim in page)
    return ClaimPage(tuple(page), waiting, upto)
