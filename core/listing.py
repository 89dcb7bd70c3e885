"""Pages of claims for those who look: bounded in size, and in how many claims are looked at for one of them."""

import bisect
import itertools
from collections.abc import Callable, Iterator

from . import limits
from .records import ClaimRecord
from .results import ClaimInfo, ClaimPage, ClaimPhase


def numbers_after(numbers: list[int], after: int) -> Iterator[int]:
    """Return the numbers above `after` of a growing list, without walking those before."""
    return (numbers[place] for place in range(bisect.bisect_right(numbers, after), len(numbers)))


def cut_page(
    numbers: Iterator[int],
    claims: dict[int, ClaimRecord],
    namespace: str,
    count_max: int,
    inform: Callable[[ClaimRecord], ClaimInfo],
) -> ClaimPage:
    """Return a page of the claims with these numbers that are in `namespace` ("": in any)."""
    page: list[ClaimInfo] = []
    size = last = upto = 0
    for number in itertools.islice(numbers, limits.LIST_LOOK_MAX):
        last = number
        claim = claims.get(number)
        if claim is None or namespace not in ("", claim.namespace):
            continue
        if len(page) >= count_max or size >= limits.PAGE_BYTES:
            upto = page[-1].claim
            break
        page.append(inform(claim))
        size += len(claim.data) + sum(len(part.encode()) for each in claim.resources for part in each.path)
    else:
        upto = last if next(iter(numbers), None) is not None else 0
    waiting = sum(claim.phase == ClaimPhase.WAITING for claim in page)
    return ClaimPage(tuple(page), waiting, upto)
