"""What a node's log says of its peers: why one is not heard, once at first, and ever more rarely while it lasts."""

import dataclasses
import logging
from collections.abc import Callable
from itertools import pairwise

import pytest

from lessor.actors import peers as actors_peers
from lessor.actors.node import Node
from lessor.actors.peers import AGAIN_MS, AGAIN_MS_MAX, SILENCE_MS, Peers

from ..support.waiting import until
from .conftest import Nodes

ENDPOINTS = {1: "tcp://h1:7411", 2: "tcp://h2:7411", 3: "tcp://h3:7411"}


def lines_of(peers: Peers, seconds: int, *, heard: set[int], reached: set[int], begin: int = 0) -> dict[int, str]:
    """Let time pass, looking once a second; return each line with its second."""
    found = {}
    for second in range(begin, begin + seconds):
        for peer in heard:
            peers.heard(peer)
        for line in peers.look(second * 1000, reached):
            found[second] = line
    return found


def test_peers_that_are_heard_are_not_worth_a_line() -> None:
    assert lines_of(Peers(1, ENDPOINTS), 3_600, heard={2, 3}, reached={2, 3}) == {}
    assert lines_of(Peers(1, {1: ENDPOINTS[1]}), 3_600, heard=set(), reached=set()) == {}


def test_a_peer_that_is_not_there_is_told_with_its_place_and_ever_more_rarely() -> None:
    found = lines_of(Peers(1, ENDPOINTS), 7_200, heard={3}, reached={3})
    assert found[5].startswith("node 2 could not be reached at tcp://h2:7411 for 5 s: is it running")
    times = list(found)
    apart = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == SILENCE_MS // 1000
    assert apart[:3] == [AGAIN_MS // 1000, 2 * AGAIN_MS // 1000, 4 * AGAIN_MS // 1000]
    assert set(apart[5:]) == {AGAIN_MS_MAX // 1000}


def test_a_peer_that_answers_elsewhere_only_is_told_by_what_it_may_have_wrong() -> None:
    """Its list names another place for this node: we reach what we take for it, and never hear it."""
    found = lines_of(Peers(1, ENDPOINTS), 20, heard={3}, reached={2, 3})
    assert list(found) == [5]
    assert "does its --cluster say that this node is at tcp://h1:7411?" in found[5]


def test_a_peer_that_is_heard_but_not_where_the_list_says_is_told() -> None:
    """Our own list names another place for it."""
    found = lines_of(Peers(1, ENDPOINTS), 20, heard={2, 3}, reached={3})
    assert found == {
        5: "node 2 could not be reached at tcp://h2:7411 for 5 s, though it is heard: "
        "is its place in this node's --cluster right?"
    }


def test_a_peer_that_is_back_is_told_once_and_counts_anew() -> None:
    peers = Peers(1, ENDPOINTS)
    lines_of(peers, 200, heard={3}, reached={3})
    assert lines_of(peers, 100, heard={2, 3}, reached={2, 3}, begin=200) == {200: "node 2 is heard again"}
    assert list(lines_of(peers, 50, heard={3}, reached={3}, begin=300)) == [304, 334]


def test_whoever_stood_still_itself_calls_nobody_silent() -> None:
    peers = Peers(1, ENDPOINTS)
    assert peers.look(0, {2, 3}) == []
    assert peers.look(60_000, {2, 3}) == []
    assert peers.look(61_000, {2, 3}) == []


def test_forged_packets_do_not_fill_the_log_beside_a_peer_that_is_heard() -> None:
    """P11. Its greeting may come a little late now and then."""
    peers = Peers(1, {node: ENDPOINTS[node] for node in (1, 2)})
    lines = []
    for second in range(60):
        peers.foreign(2)
        if second % 2:
            peers.heard(2)
        lines += peers.look(second * 1000, {2})
    assert lines == []


def test_a_peer_of_another_cluster_is_told_soon_and_not_with_each_of_its_packets() -> None:
    peers = Peers(1, ENDPOINTS)
    assert peers.look(0, ()) == []
    lines = []
    for second in range(1, 31):
        assert peers.foreign(2)
        lines += [line for line in peers.look(second * 1000, {2}) if "node 2" in line]
    (line,) = lines
    assert line.startswith("node 2 describes another cluster and is not listened to: its --cluster-name, or ")
    assert line.endswith("the numbers in its --cluster (here 1, 2, 3), are not the same as here")
    assert not peers.foreign(7), "it is no peer; to keep every number that is claimed would take room without bound"


Make = Callable[[int], Nodes]


def test_nodes_with_different_lists_tell_so(nodes: Make, caplog: pytest.LogCaptureFixture) -> None:
    pair = nodes(2)
    with caplog.at_level(logging.WARNING):
        pair.start(1)
        other = dataclasses.replace(pair.config(2), endpoints=pair.endpoints | {3: "tcp://127.0.0.1:9"})
        with Node(other).start():
            for node, members in ((2, "1, 2"), (1, "1, 2, 3")):
                words = f"node {node} describes another cluster and is not listened to"
                until(lambda w=words, m=members: f"(here {m})" in text_with(caplog, w), words)  # type: ignore[misc]


def text_with(caplog: pytest.LogCaptureFixture, words: str) -> str:
    return "\n".join(line for line in caplog.text.splitlines() if words in line)


def test_a_node_that_is_left_alone_says_who_is_missing_and_when_it_is_back(
    nodes: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors_peers, "SILENCE_MS", 3_000)
    pair = nodes(2)
    with caplog.at_level(logging.INFO):
        pair.start(1)
        until(lambda: f"node 2 could not be reached at {pair.endpoints[2]}" in caplog.text, "it is missed")
        pair.start(2)
        until(lambda: "node 2 is heard again" in caplog.text, "it is back")
    alone, _, _ = caplog.text.partition("could not be reached")
    assert alone.count("no leader is known") == 1, "it stands again and again, and that is told once"
