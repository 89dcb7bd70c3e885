"""The options of a world, drawn from its seed before anything else: a swarm, each world dwells on a few of the faults.

A world that draws every fault at a middling rate meets none of them at length; so each one is off in many worlds, and
strong in a few. (Groce and others, "Swarm Testing".)
"""

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

SMALL_LIMITS: dict[str, tuple[int, ...]] = {
    "JOURNAL_RETAIN_SLOTS": (8, 30),
    "PAGE_SLOTS": (2, 6),
    "SNAPSHOT_CHUNK_BYTES": (120, 600),
    "SAVE_EVERY_SLOTS": (3, 20),
    "SAVE_EVERY_MS": (50, 1500),
    "BATCH_COMMANDS_MAX": (1, 3),
    "WINDOW_SLOTS": (1, 3),
    "GATEWAY_IN_FLIGHT_MAX": (1, 3),
    "CLAIMS_MAX": (2, 5),
    "SESSIONS_MAX": (2, 3),
    "REPLIES_PER_SESSION_MAX": (1, 3),
    "CLAIMS_PER_PING_MAX": (1, 2),
    "CONNECTIONS_TRACKED_MAX": (1, 2),
    "LAPSED_KEPT_MS": (300, 2000),
    "LAPSED_MAX": (1, 3),
}
"""Limits that a world may make small, so that a short one reaches them."""


BOUNDS: dict[str, tuple[int, int]] = {"nodes": (1, 5), "clients": (1, 50), "names": (1, 3), "duration_ms": (1, 10**7)}
"""What `--set` takes; a probability is from 0 to 1, all else from 0 on."""

MOST = 10**9


@dataclass(frozen=True, slots=True)
class Options:
    """What kind of world it is. Probabilities are per message or per commit, weights are relative."""

    nodes: int
    clients: int
    names: int
    duration_ms: int  # of the phase with faults
    # time
    drift_ppm: int  # rates of clocks lie within; the extremes are drawn often
    hop_us: int  # between two roles of a node
    latency_us: int  # between two machines, at least
    jitter_us: int
    commit_us: int  # how long a disk takes
    slow_commit: float  # commits that take up to fifty times as long
    # the network
    loss: float
    repeat: float
    slow: float  # messages that come up to `slow_ms` late, and so are overtaken
    slow_ms: int
    replay: float  # messages that come once more, up to seconds later
    damage: float  # packets of which a damaged or forged copy comes, too
    repeat_client: float  # as `repeat`, between clients and nodes
    replay_client: float
    # faults, as weights of what happens next
    fault_every_ms: int  # 0: nothing happens
    cut: int  # a node from others, one way or both
    split: int  # all nodes and clients into two sides
    cut_client: int
    kill: int
    stop: int  # in good order
    stall: int
    stall_leader: int
    suspend: int
    slow_node: int
    rotate: int  # a leader cut off goes on writing, while others lead in turn
    depose: int  # every follower believes that the connection to the leader broke
    fail_disk: int
    slow_link: int
    stall_client: int
    suspend_client: int
    kill_client: int
    # around the commit
    crash_at_commit: float
    crash_at_install: float  # after a snapshot is installed, before the journal knows
    # what clients do
    think_ms: int
    ttls_ms: tuple[int, ...]
    waits_ms: tuple[int, ...]
    session_timeout_ms: int
    request_timeout_ms: int
    try_share: float
    detached_share: float
    renew_share: float  # leases renewed in the background
    cancel_share: float
    ticket_share: float  # what is done with a token from long ago, or from somebody else
    close_share: float
    hold_ms: int
    wide: int = 0  # not 0: programs use the whole lease model, and this number says what they like to do
    limits: tuple[tuple[str, int], ...] = ()
    snapshot_every: int = 8  # states are compared byte for byte after every so many slots

    @classmethod
    def draw(cls, rng: random.Random) -> "Options":
        """Draw the options of a world, as the first thing that is drawn from its seed."""
        pick, chance = rng.choice, rng.random

        def some(*weights: int) -> int:
            return 0 if chance() < 0.5 else pick(weights)

        small = {name: pick(values) for name, values in SMALL_LIMITS.items() if chance() < 0.2}
        if chance() < 0.5:
            # what bounds catch-up belongs together: a journal that forgets is what makes a snapshot needed
            small |= {"JOURNAL_RETAIN_SLOTS": pick((6, 20)), "SAVE_EVERY_SLOTS": pick((3, 8))}
        calm = chance() < 0.05
        hurried = chance() < 0.7
        # most bugs show early, so most worlds are short; but errors of clocks, and what many leaders do, add up
        many_leaders = chance() < 0.12
        long_leases = chance() < 0.06
        return cls(
            nodes=pick((1, 2, 3, 3, 3, 3, 3, 4, 5)),
            clients=pick((1, 2, 2, 3, 3, 4)),
            names=1 if long_leases else pick((1, 1, 1, 2, 3)),
            duration_ms=pick((5000, 8000) if long_leases else (2000, 4000) if many_leaders else (500, 700, 1000, 1500)),
            drift_ppm=500 if long_leases else pick((0, 500, 500)),
            hop_us=pick((5, 25, 200)),
            latency_us=pick((20, 60, 300, 3000)),
            jitter_us=pick((20, 200, 5000)),
            commit_us=pick((50, 300, 2000, 8000)),
            slow_commit=pick((0, 0, 0.02, 0.1)),
            loss=0 if calm else pick((0, 0, 0.01, 0.05, 0.2)),
            repeat=pick((0, 0, 0.02, 0.2)),
            slow=pick((0, 0, 0.05, 0.3)),
            slow_ms=pick((20, 100, 600)),
            replay=pick((0, 0, 0.01, 0.05)),
            damage=pick((0, 0, 0, 0.03)),
            repeat_client=pick((0, 0, 0.05, 0.4)),
            replay_client=pick((0, 0, 0.01, 0.1)),
            fault_every_ms=0 if calm else pick((100, 250) if many_leaders else (100, 250, 700)),
            cut=some(1, 5),
            split=some(1, 3),
            cut_client=some(1, 3),
            kill=some(1, 4),
            stop=some(1, 2),
            stall=some(1, 4),
            stall_leader=some(1, 4),
            suspend=some(1, 2),
            slow_node=some(1, 3),
            rotate=8 if many_leaders else some(2, 6),
            depose=some(1, 4, 8),
            fail_disk=some(1, 3),
            slow_link=some(1, 3),
            stall_client=some(1, 4),
            suspend_client=some(1, 2),
            kill_client=some(1, 3),
            crash_at_commit=pick((0, 0, 0, 0.005, 0.02)),
            crash_at_install=pick((0, 0.5)),
            think_ms=pick((60, 120, 300)),
            ttls_ms=(2000, 3000) if long_leases else pick(((100, 300), (400, 1500, 0), (300, 2500), (0,), (800,))),
            waits_ms=(-1,) if long_leases else pick(((-1,), (300, 1500), (-1, 800, 3000))),
            session_timeout_ms=pick((500, 900, 2000, 6000)),
            request_timeout_ms=pick((400, 1500, 4000)),
            try_share=pick((0, 0.3, 0.7)),
            detached_share=pick((0, 0, 0.3)),
            renew_share=0 if long_leases else pick((0, 0.5, 1)),
            cancel_share=pick((0, 0.05, 0.3)),
            ticket_share=pick((0, 0.1, 0.3)),
            close_share=pick((0, 0, 0.05)),
            hold_ms=3000 if long_leases or not hurried else pick((20, 150, 800)),
            wide=pick((0, rng.randrange(1, 1000))),
            limits=tuple(sorted(small.items())),
            snapshot_every=pick((1, 8, 8, 32)),
        )

    def changed(self, **changes: Any) -> "Options":
        """Return these options with some of them replaced."""
        return dataclasses.replace(self, **changes)

    def __str__(self) -> str:
        """Print them in one line, without what is off."""
        shown = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return " ".join(f"{name}={_text(value)}" for name, value in shown if value)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{item[0]}:{item[1]}" if isinstance(item, tuple) else str(item) for item in value)
    return str(value)


def parse(text: str) -> dict[str, Any]:
    """Read options as `clients=1,loss=0.1`; several values of one option are separated by `+`, limits are not set here.

    Raises:
        ValueError: there is no such option, or it takes no such value.
    """
    found: dict[str, Any] = {}
    kinds = {field.name: field.type for field in dataclasses.fields(Options)}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        kind = kinds.get(name)
        if kind is None:
            raise ValueError(f"a world has no option {name!r}")
        if name == "limits":
            if value not in ("()", ""):
                raise ValueError("limits can only be set to ()")
            found[name] = ()
        elif kind in (int, float):
            found[name] = _number(name, value, kind)
        else:
            found[name] = tuple(_number(name, item, int) for item in value.split("+"))
    return found


def _number(name: str, text: str, kind: Any) -> Any:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"{name} is a number, not {text!r}") from None
    least, most = BOUNDS.get(name, (0, 1) if kind is float else (-1 if name == "waits_ms" else 0, MOST))
    if not least <= value <= most:
        raise ValueError(f"{name} is from {least} to {most}, not {text}")
    return value
