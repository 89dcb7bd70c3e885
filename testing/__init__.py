"""A test kit for users of lessor: a real cluster inside a test, and a way to do each harm to it.

>>> from lessor.testing import Cluster
>>> with Cluster() as cluster, cluster.client() as client, client.lock("nightly-report") as lease:
...     killed = cluster.kill_leader()
...     lease.renew()
...     lease.held
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cluster import Cluster
    from .nodes import ClusterFailed

__all__ = ["Cluster", "ClusterFailed"]


def __getattr__(name: str) -> Any:
    # imported at first use: pytest loads this package with every run in whose environment it is installed
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from . import cluster  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name not in ("pykka", "sqlite_utils"):
            raise
        raise ImportError(f'lessor.testing runs nodes: pip install "lessor[testing]" ({error})') from error
    return getattr(cluster, name)
