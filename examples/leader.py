"""Several candidates, one leader, and all of them see who leads and where it can be reached.

Start it several times with different --value, stop the leader with Ctrl-C, and see the next one lead.

    lessor serve --node-id 1 --cluster 1=tcp://127.0.0.1:7411 --data data/1 &
    python examples/leader.py --value 10.0.0.1:80
"""

import argparse
import asyncio
import os
import signal
import sys

import lessor

RETRY_S = 1.0


async def main(options: argparse.Namespace) -> None:
    """Be a candidate and look on, until Ctrl-C or SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with lessor.aio.connect(options.endpoints, options.namespace) as client:
        try:
            await asyncio.gather(stand(client, options), look_on(client, options.election))
        except asyncio.CancelledError:
            print("stopped", flush=True)


async def stand(client: lessor.aio.Client, options: argparse.Namespace) -> None:
    """Lead whenever it is this one's turn."""
    election = client.election(options.election, ttl=options.ttl)
    while True:
        try:
            async with await election.campaign(options.value.encode()) as leadership:
                print(f"leading with token {leadership.token}", flush=True)
                await leadership.lost.wait()  # stands for what a leader does
        except (lessor.LeaseLost, lessor.Unavailable, lessor.ServiceBusy) as error:
            print(f"again, since {error}", flush=True)
            await asyncio.sleep(RETRY_S)


async def look_on(client: lessor.aio.Client, name: str) -> None:
    """Say who leads, whenever that changes."""
    while True:
        try:
            async with client.election(name).observe() as leaders:
                async for leader in leaders:
                    print(f"the leader is {leader.value.decode()}" if leader else "nobody leads", flush=True)
        except (lessor.Unavailable, lessor.ServiceBusy) as error:
            print(f"nobody knows who leads, since {error}", flush=True)
            await asyncio.sleep(RETRY_S)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    summary, _, rest = (__doc__ or "").partition("\n\n")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=summary, epilog=rest, formatter_class=raw)
    endpoints = os.environ.get("LESSOR_ENDPOINTS", "tcp://127.0.0.1:7411")
    parser.add_argument("--endpoints", default=endpoints, help="of the nodes, separated by commas [LESSOR_ENDPOINTS]")
    parser.add_argument("--namespace", default="default", help="that the election is in (%(default)s)")
    parser.add_argument("--election", default="primary", help="the name of the election (%(default)s)")
    parser.add_argument("--value", default=f"process {os.getpid()}", help="that others are to see (%(default)s)")
    parser.add_argument("--ttl", type=float, default=10, help="of the leadership, in seconds (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(arguments()))
    sys.exit(0)
