"""A nightly job that many machines start and one runs, whose database refuses whoever was overtaken.

Each run takes the lease, adds one row to a SQLite database under its fencing token, and says so. Start several at once,
stop one with Ctrl-Z while it works (--work 60), wait until another has run, and wake it with `fg`: it is refused.

    lessor serve --node-id 1 --cluster 1=tcp://127.0.0.1:7411 --data data/1 &
    python examples/fenced_sqlite.py --endpoints tcp://127.0.0.1:7411 --database app.sqlite3
"""

import argparse
import os
import sqlite3
import sys
import threading
from contextlib import closing

import lessor
from lessor.fencing import SqlGuard, StaleToken, resource_of

DONE, REFUSED, NOT_HELD = 0, 1, 2


def main() -> int:
    """Run the job once; 0: done, 1: overtaken and refused, 2: the lease was not granted in time."""
    options = arguments()
    guard = SqlGuard.sqlite()
    with closing(sqlite3.connect(options.database, timeout=30)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS runs (token INTEGER, holder TEXT)")
        guard.create_table(connection)
        with lessor.connect(options.endpoints) as client:
            try:
                lease = client.acquire("nightly-job", ttl=options.ttl, timeout=options.wait)
            except lessor.AcquireTimeout:
                print("somebody else has held the lease all the time")
                return NOT_HELD
            print(f"holding with token {lease.token}", flush=True)
            threading.Event().wait(options.work)  # the long work, outside of the transaction
            try:
                with guard.transaction(connection, resource_of(lease), lease.token) as cursor:
                    cursor.execute("INSERT INTO runs VALUES (?, ?)", (lease.token, lease.holder))
            except StaleToken as error:
                print(f"refused: {error}")
                return REFUSED
            lease.release()
        print(f"done; runs so far: {connection.execute('SELECT count(*) FROM runs').fetchone()[0]}")
        return DONE


def arguments() -> argparse.Namespace:
    """Read the command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=summary, epilog=rest, formatter_class=raw)
    endpoints = os.environ.get("LESSOR_ENDPOINTS", "tcp://127.0.0.1:7411")
    parser.add_argument("--endpoints", default=endpoints, help="of the nodes, separated by commas [LESSOR_ENDPOINTS]")
    parser.add_argument("--database", default="fenced.sqlite3", help="the file of the database (%(default)s)")
    parser.add_argument("--ttl", type=float, default=5, help="of the lease, in seconds (%(default)s)")
    parser.add_argument("--work", type=float, default=0, help="how long the job takes, in seconds (%(default)s)")
    parser.add_argument("--wait", type=float, default=60, help="how long to wait for the lease (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
