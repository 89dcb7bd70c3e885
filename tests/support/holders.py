"""A holder in a process of its own that stands still past its deadline, while another takes its lease and writes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import lessor
from lessor.client.sync import Lease

NAME = "job"
TTL = 0.5

# It looks at nothing between waking up and writing: whatever it could look at may be out of date once it has looked.
HOLD = """
import os, sys
import lessor
from lessor.fencing import *

{write}

client = lessor.connect(sys.argv[1])
lease = client.acquire("{name}", ttl={ttl})
write(lease, *sys.argv[2:])
print(lease.token, flush=True)
sys.stdin.readline()
try:
    write(lease, *sys.argv[2:])
except StaleToken as error:
    print("refused", error.token, error.newest, flush=True)
else:
    print("written", flush=True)
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """What came of the two holders: the token of each, and what the first said after it woke up."""

    first: int
    second: int
    said: str

    @property
    def refused(self) -> bool:
        """Whether the first was refused, and told both tokens."""
        return self.said == f"refused {self.first} {self.second}"


def overtake(
    endpoints: str, write: str, arguments: Sequence[object], write_as_second: Callable[[Lease], None]
) -> Overtaken:
    """Let a child hold, write and be stopped; take the lease over once it has expired, write, and wake the child.

    `write` is the source of the child's `write(lease, *arguments)`.
    """
    program = HOLD.format(write=write, name=NAME, ttl=TTL)
    child = subprocess.Popen(
        [sys.executable, "-c", program, endpoints, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child, lessor.connect(endpoints, holder="second") as client:
        try:
            first = int(child.stdout.readline())
            os.kill(child.pid, signal.SIGSTOP)
            assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
            child.stdin.write("go on\n")
            child.stdin.flush()
            with client.lock(NAME, ttl=600, timeout=60) as lease:
                write_as_second(lease)
                os.kill(child.pid, signal.SIGCONT)
                return Overtaken(first, lease.token, child.stdout.readline().strip())
        finally:
            child.kill()
