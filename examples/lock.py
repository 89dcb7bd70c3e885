"""One of many processes works; the others stand by, and the next one starts at once when it stops.

Start it several times, and stop the one that works. After Ctrl-C the next one starts at once; after a kill, when the
lease of the dead one has run out (--ttl). (After the example of YDB's coordination service.)

    lessor serve --node-id 1 --cluster 1=tcp://127.0.0.1:7411 --data data/1 &
    python examples/lock.py --endpoints tcp://127.0.0.1:7411 --semaphore my-lock
"""

import argparse
import os
import signal
import sys
import threading

import lessor

RETRY_S = 1.0


def main() -> int:
    """Work whenever the lock is held, until Ctrl-C or SIGTERM."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with lessor.connect(options.endpoints, options.namespace) as client:
        try:
            while True:
                work_in_turn(client, options.semaphore, options.ttl)
        except KeyboardInterrupt:
            say("stopped")
    return 0


def work_in_turn(client: lessor.Client, name: str, ttl: float) -> None:
    """Wait for the lock, and work as long as it is held."""
    say(f"waiting for {name}")
    try:
        with client.lock(name, ttl) as lease:
            say(f"working with token {lease.token}")
            try:
                lease.lost.wait()  # stands for the work, which ends when the lock is lost
            finally:
                say("the lock is released")
    except lessor.LeaseLost as error:
        say(f"again, since {error}")
    except (lessor.Unavailable, lessor.ServiceBusy) as error:
        say(f"again in a moment, since {error}")
        threading.Event().wait(RETRY_S)


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
    parser.add_argument("--namespace", default="default", help="that the name is in (%(default)s)")
    parser.add_argument("--semaphore", default="my-lock", help="the name of the lock (%(default)s)")
    parser.add_argument("--ttl", type=float, default=10, help="of the lease, in seconds (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
