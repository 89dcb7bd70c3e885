"""Many tasks, shared out among a few workers: each worker takes as many as it can, each task has one worker at most.

Start it several times: the workers share the tasks out by their capacities. Stop one, and the others take its tasks
over as far as they have room. (After the example of YDB's coordination service.)

    lessor serve --node-id 1 --cluster 1=tcp://127.0.0.1:7411 --data data/1 &
    python examples/workers.py --semaphore-prefix job- --tasks 10 --capacity 4
"""

import argparse
import os
import signal
import sys
import threading

import lessor

RETRY_S = 1.0


def main() -> int:
    """Work on up to --capacity tasks at once, until Ctrl-C or SIGTERM."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = [f"{options.semaphore_prefix}{number}" for number in range(1, options.tasks + 1)]
    with lessor.connect(options.endpoints, options.namespace) as client:
        try:
            take_tasks(client, names, options.capacity, options.ttl)
        except KeyboardInterrupt:
            say("stopped")
    return 0


def take_tasks(client: lessor.Client, names: list[str], capacity: int, ttl: float) -> None:
    """Have a thread work on each task that is won; an outage of the service ends none that is at work."""
    with client.workers(names, capacity, ttl=ttl) as workers:
        while True:
            try:
                lease = workers.take()
            except (lessor.Unavailable, lessor.ServiceBusy) as error:
                say(f"again in a moment, since {error}")
                threading.Event().wait(RETRY_S)
                continue
            if lease is None:  # the workers were closed
                return
            threading.Thread(target=work, args=(lease,), daemon=True).start()


def work(lease: "lessor.Lease") -> None:
    """Work on a task as long as it is this worker's: until its lease is lost, or released as at the worker's end."""
    say(f"{lease.name}: begun with token {lease.token}")
    lease.ended.wait()  # stands for the work
    say(f"{lease.name}: ended, since {lease.lost_reason or 'it was released'}")


def say(text: str) -> None:
    """Print a whole line at once, whichever thread says it, also into a pipe."""
    print(f"{text}\n", end="", flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=summary, epilog=rest, formatter_class=raw)
    endpoints = os.environ.get("LESSOR_ENDPOINTS", "tcp://127.0.0.1:7411")
    parser.add_argument("--endpoints", default=endpoints, help="of the nodes, separated by commas [LESSOR_ENDPOINTS]")
    parser.add_argument("--namespace", default="default", help="that the names are in (%(default)s)")
    parser.add_argument(
        "--semaphore-prefix", default="job-", help="what the tasks are called, before 1, 2, … (%(default)s)"
    )
    parser.add_argument("--tasks", type=int, default=10, help="how many there are (%(default)s)")
    parser.add_argument("--capacity", type=int, default=4, help="how many this worker takes at most (%(default)s)")
    parser.add_argument("--ttl", type=float, default=10, help="of the leases, in seconds (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
