"""A job that cron starts on every host, and that one of them runs.

The others skip it, or wait for it with --wait. --min-hold keeps the job from being run again by a host whose clock is
late, though the first run has long ended: choose more than the clocks differ, and less than the time between two runs.

    lessor serve --node-id 1 --cluster 1=tcp://127.0.0.1:7411 --data data/1 &
    python examples/singleton_job.py --job nightly-report --min-hold 60
"""

import argparse
import os
import signal
import sys
import threading

import lessor
from lessor.recipes import SKIPPED

DONE, WAS_SKIPPED, NO_SERVICE, STOPPED = 0, 1, 2, 130


def main() -> int:
    """Run the job; 0: done, 1: skipped, 2: the service was not reached or the lease was lost, 130: stopped."""
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with lessor.connect(options.endpoints, options.namespace) as client:

            @client.singleton(options.job, timeout=options.wait, min_hold=options.min_hold, ttl=options.ttl)
            def job() -> None:
                print("running", flush=True)
                threading.Event().wait(options.work)  # the work

            if job() is SKIPPED:
                print("skipped: it runs elsewhere, or has just run")
                return WAS_SKIPPED
    except (lessor.Unavailable, lessor.ServiceBusy, lessor.LeaseLost) as error:
        print(f"failed: {error}")
        return NO_SERVICE
    except KeyboardInterrupt:
        print("stopped")
        return STOPPED
    print("done")
    return DONE


def arguments() -> argparse.Namespace:
    """Read the command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=summary, epilog=rest, formatter_class=raw)
    endpoints = os.environ.get("LESSOR_ENDPOINTS", "tcp://127.0.0.1:7411")
    parser.add_argument("--endpoints", default=endpoints, help="of the nodes, separated by commas [LESSOR_ENDPOINTS]")
    parser.add_argument("--namespace", default="default", help="that the name is in (%(default)s)")
    parser.add_argument("--job", default="nightly-report", help="the name of the job (%(default)s)")
    parser.add_argument(
        "--wait", type=float, default=0, help="how long to wait for the others, in seconds (%(default)s)"
    )
    parser.add_argument("--min-hold", type=float, default=0, help="not to be run again for so long (%(default)s)")
    parser.add_argument("--ttl", type=float, default=10, help="of the lease, in seconds (%(default)s)")
    parser.add_argument("--work", type=float, default=0, help="how long the job takes, in seconds (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
