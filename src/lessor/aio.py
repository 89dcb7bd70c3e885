"""The asyncio face of the client: the same names as in `lessor`, awaited."""

from .client.aio import Client, Lease, Lock, connect

__all__ = ["Client", "Lease", "Lock", "connect"]
