"""A guard for files: the newest token lies next to the file, and an older one cannot replace its content."""

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from ..core import limits
from ..core.errors import Corrupt
from .gate import GuardBusy, check, is_newer

_POLL_S: Final = 0.005  # far longer than a look at the token takes, far shorter than a person waits
_LINE_BYTES_MAX: Final = 20  # 19 digits and the end of the line


class FileGate:
    """The newest token of each name in a directory, shared by the processes of one machine. Thread-safe."""

    def __init__(self, directory: str | Path, *, timeout: float = limits.FENCE_WAIT_MS / 1000) -> None:
        """Keep the tokens in `directory`, made when it is needed; wait for others at most `timeout` seconds."""
        self._directory = Path(directory)
        self._timeout = timeout

    def admit(self, name: str, token: int) -> None:
        """Let the token pass and remember it, on the disk before this returns.

        Raises:
            StaleToken: a newer one has been seen.
            GuardBusy: another process was looking for the whole timeout: it is stopped.
            Corrupt: the file of the token holds no token.
            BadRequest: the name or the token cannot be one.
        """
        check(name, token)
        with self.locked():
            self.admit_locked(name, token)

    def newest(self, name: str) -> int:
        """Return the newest token seen, 0 if there was none."""
        path = self._path(name)
        try:
            with path.open("rb") as file:
                line = file.read(_LINE_BYTES_MAX + 1)
        except FileNotFoundError:
            return 0
        digits = line.removesuffix(b"\n")
        if digits == line or not digits.isdigit() or len(line) > _LINE_BYTES_MAX:
            raise Corrupt(f"{path} holds no token; write the newest one that may have been used into it")
        return int(digits)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep everybody else out. Held only for a look and a rename, never while the user's code runs."""
        _make(self._directory)
        # The lock has a file that is never replaced: a lock on a replaced file keeps nobody out.
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self._wait_for(lock)
            yield
        finally:
            os.close(lock)

    def admit_locked(self, name: str, token: int) -> None:
        """Do the work of `admit` for one who is inside `locked`."""
        if is_newer(name, token, self.newest(name)):
            path = self._path(name)
            draft = path.with_suffix(".new")  # one name is enough: there is one writer
            with draft.open("wb") as file:
                file.write(b"%d\n" % token)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync(self._directory)

    def _wait_for(self, lock: int) -> None:
        # flock has no timeout, and one who waits for a stopped process would wait for ever.
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise GuardBusy(f"{self._directory} was locked for {self._timeout} s by another process") from None
                time.sleep(_POLL_S)
            else:
                return

    def _path(self, name: str) -> Path:
        # A name may hold any character and be longer than a file's name.
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return self._directory / f"{digest[:32]}.token"


class FileGuard:
    """Replaces the content of one file as a whole, and only for the newest token. Thread-safe.

    Next to `report.csv` lies the directory `report.csv.fence`. It must never be removed while old holders may live.
    """

    def __init__(self, path: str | Path, *, timeout: float = limits.FENCE_WAIT_MS / 1000) -> None:
        """Guard the file at `path`, whether it exists or not; wait for others at most `timeout` seconds."""
        self._path = Path(os.path.realpath(path))  # by whichever link it is reached, it has one fence
        self._fence = self._path.with_name(f"{self._path.name}.fence")
        self._gate = FileGate(self._fence, timeout=timeout)

    def write(self, data: bytes, token: int) -> None:
        """Replace the content.

        Raises:
            StaleToken, GuardBusy, Corrupt, BadRequest: as `FileGate.admit`; the content is as before.
        """
        with self.open(token) as file:
            file.write(data)

    @contextmanager
    def open(self, token: int) -> Iterator[BinaryIO]:
        """Give a file to write to, whose content takes the place of the old one when the body ends well.

        The token is looked at on entering, which shuts out every older one from then on, and again at the end.

        Raises:
            StaleToken, GuardBusy, Corrupt, BadRequest: as `FileGate.admit`; the content is as before.
        """
        name = self._path.name
        check(name, token)
        with self._gate.locked():
            self._gate.admit_locked(name, token)
            self._remove_left_drafts()
            draft, file = self._make_draft()
        with file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                with self._gate.locked():
                    # Again: the lock was free meanwhile, or a holder that stops in the body would stop all others.
                    # The token is on the disk before the content, so a crash between them lets no older one in.
                    self._gate.admit_locked(name, token)
                    draft.replace(self._path)
                    _sync(self._path.parent)
            finally:
                draft.unlink(missing_ok=True)

    def newest(self) -> int:
        """Return the newest token seen, 0 if there was none."""
        return self._gate.newest(self._path.name)

    def _make_draft(self) -> tuple[Path, BinaryIO]:
        draft = self._fence / f"{secrets.token_hex(8)}.draft"
        file = draft.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with its writer, and so tells whose draft is left over
            if self._path.exists():
                os.fchmod(file.fileno(), self._path.stat().st_mode & 0o7777)
        except BaseException:
            file.close()
            draft.unlink(missing_ok=True)
            raise
        return draft, file

    def _remove_left_drafts(self) -> None:
        for draft in self._fence.glob("*.draft"):
            try:
                with draft.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    draft.unlink(missing_ok=True)
            except (BlockingIOError, FileNotFoundError):
                pass  # its writer lives, or has just removed it


def guarded_write(path: str | Path, data: bytes, token: int) -> None:
    """Replace the content of the file at `path`, unless a newer token has been seen; see `FileGuard`."""
    FileGuard(path).write(data, token)


def _make(directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir(exist_ok=True)
        _sync(directory.parent)


def _sync(directory: Path) -> None:
    """Put the names in a directory on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
