"""Both kinds of waker: what rings wakes a poller, what is hushed lets it sleep."""

import os
import select
import threading
from collections.abc import Iterator

import pytest

from lessor.transport import waker as module
from lessor.transport.waker import Waker, make_waker

KINDS = [module._Pipe, *([module._EventFd] if hasattr(os, "eventfd") else [])]


@pytest.fixture(params=KINDS)
def waker(request: pytest.FixtureRequest) -> Iterator[Waker]:
    waker: Waker = request.param()
    yield waker
    waker.close()


def rings(waker: Waker, timeout: float = 0) -> bool:
    return bool(select.select([waker], [], [], timeout)[0])


def test_a_waker_is_silent_until_it_is_rung_and_again_after_it_is_hushed(waker: Waker) -> None:
    assert not rings(waker)
    waker.ring()
    assert rings(waker)
    assert rings(waker), "looking does not hush"
    waker.hush()
    assert not rings(waker)


def test_to_hush_what_does_not_ring_neither_blocks_nor_fails(waker: Waker) -> None:
    waker.hush()
    waker.hush()
    assert not rings(waker)


def test_many_rings_are_one_and_none_of_them_blocks(waker: Waker) -> None:  # P10: nothing grows with them
    for _ in range(100_000):
        waker.ring()
    assert rings(waker)
    for _ in range(100_000 // 4096 + 1):
        waker.hush()
    assert not rings(waker)


def test_a_ring_from_another_thread_wakes_the_poller(waker: Waker) -> None:
    woken: list[bool] = []
    sleeper = threading.Thread(target=lambda: woken.append(rings(waker, timeout=60)))
    sleeper.start()
    assert not woken
    waker.ring()
    sleeper.join()
    assert woken == [True]


def test_a_closed_waker_gives_its_descriptors_back(waker: Waker) -> None:
    other = type(waker)()
    descriptor = other.fileno()
    os.fstat(descriptor)
    other.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_where_there_is_no_eventfd_a_pipe_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd", raising=False)
    waker = make_waker()
    assert isinstance(waker, module._Pipe)
    waker.close()


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="there is no eventfd here")
def test_where_there_is_an_eventfd_it_is_taken() -> None:
    waker = make_waker()
    assert isinstance(waker, module._EventFd)
    waker.close()
