"""A PostgreSQL server of the tests' own, on a socket in a temporary directory, where its programs are installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .waiting import until

USER = "lessor"
DATABASE = "postgres"

# The server ends, and its directory goes, when the input ends: also when the process of the tests is killed.
SERVE = """
"$0" -D "$1/data" -k "$1" -c listen_addresses= -F </dev/null 2>"$1/log" &
cat >/dev/null
kill -INT $!
wait $!
rm -rf "$1"
"""


def programs() -> Path | None:
    """Return the folder of `initdb` and `postgres`, None if there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "postgres").exists()), None)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run a server, and give the directory of its socket, which is the `host` to connect to."""
    home = Path(tempfile.mkdtemp(prefix="lessor-pg-"))
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        entry = pwd.getpwnam("nobody")
        owner = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        os.chown(home, entry.pw_uid, entry.pw_gid)
    settings = ["-D", str(home / "data"), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    try:
        subprocess.run([folder / "initdb", *settings], cwd=home, check=True, capture_output=True, **owner)
        command = ["sh", "-c", SERVE, str(folder / "postgres"), str(home)]
        ready = [str(folder / "pg_isready"), "-q", "-h", str(home), "-U", USER, "-d", DATABASE]
        with subprocess.Popen(command, cwd="/", stdin=subprocess.PIPE, **owner):
            until(lambda: subprocess.run(ready, check=False).returncode == 0, "the server is ready")
            yield str(home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
