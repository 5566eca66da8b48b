"""nbdkit as a supervised child: an image of the daemon as a network block device on a unix socket.

The socket is made here and handed to nbdkit (socket activation), so it is there from the first moment, only its owner
reaches it, and it outlives an nbdkit that has to be started again: whoever was connected connects anew.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from enticed.cli.failures import Exit, Failed
from enticed.cli.output import note
from enticed.limits import (
    CONTENT_DEADLINE_S,
    NBD_BACKLOG_COUNT,
    NBD_READ_TIMEOUT_S,
    NBD_RETRIES_COUNT,
    NBD_RETRY_DELAY_S,
    NBDKIT_RESTART_PAUSE_S,
    UNIX_PATH_MAX_SIZE_BYTES,
)

_HAND_OVER = 'exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec nbdkit "$@"'
"""Socket activation: the listening socket comes as standard input, and has to be descriptor 3 of nbdkit itself."""


def check() -> None:
    """Fails with a line that says what to install where nbdkit, its curl plugin or its retry filter is missing."""
    if shutil.which("nbdkit") is None:
        raise Failed(Exit.FAILED, "nbdkit is not installed; on Debian: apt-get install nbdkit")
    for arguments, what in ((["curl"], "curl plugin"), (["--filter=retry", "null"], "retry filter")):
        run = subprocess.run(["nbdkit", "--dump-plugin", *arguments], capture_output=True, check=False)
        if run.returncode:
            raise Failed(Exit.FAILED, f"this nbdkit has no {what}; on Debian the package nbdkit brings it")


class NbdServer:
    """An image served on the unix socket `path`, while the context lasts. owner: another user who may connect.

    whole: a descriptor of the image's raw file, where it is whole; then that is what is served, without the daemon.
    """

    def __init__(
        self, daemon_socket: str, image: str, path: Path, owner: int | None = None, whole: int | None = None
    ) -> None:
        self.path = path
        self._whole = whole
        self._image = image
        self._daemon_socket = os.path.abspath(daemon_socket)
        self._owner = owner
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"nbd+unix:///?socket={quote(str(self.path))}"

    def __enter__(self) -> Self:
        """Take the socket; clients may connect from now on, and are served once `serve` runs."""
        if len(os.fsencode(self.path)) > UNIX_PATH_MAX_SIZE_BYTES:
            raise Failed(Exit.USAGE, f"{self.path} is too long a name for a unix socket")
        self._listening = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            self._clear()
            self._listening.bind(os.fspath(self.path))
            if self._owner is not None:
                # Where the directory is the owner's, too, another file may be under that name by now.
                os.chown(self.path, self._owner, -1, follow_symlinks=False)
        except OSError as error:
            self._listening.close()
            raise Failed(Exit.FAILED, f"cannot make the socket {self.path}: {error.strerror}") from error
        finally:
            os.umask(before)
        self._listening.listen(NBD_BACKLOG_COUNT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            self._child.wait()
        self._listening.close()
        self.path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Remove what one that was killed has left behind: a socket at which nobody answers."""
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(self.path.lstat().st_mode):
                with socket.socket(socket.AF_UNIX) as probe:
                    if probe.connect_ex(os.fspath(self.path)) == errno.ECONNREFUSED:
                        self.path.unlink()

    def serve(self) -> None:
        """Run nbdkit until this is interrupted; one that ends by itself is started again, after a moment."""
        while True:
            started = time.monotonic()
            kept = () if self._whole is None else (self._whole,)
            self._child = subprocess.Popen(self._command, stdin=self._listening.fileno(), pass_fds=kept)
            status = self._child.wait()
            note(f"nbdkit ended with {status}: it is started again")
            time.sleep(max(0.0, started + NBDKIT_RESTART_PAUSE_S - time.monotonic()))

    @property
    def _command(self) -> list[str]:
        start = ["sh", "-c", _HAND_OVER, "nbdkit", "--exit-with-parent", "--readonly"]
        if self._whole is not None:
            return [*start, "file", f"/dev/fd/{self._whole}"]
        # The image's id, and not its name: what the name means may change under a disk that is in use.
        url = f"http://localhost/v1/images/{self._image}/content?deadline_s={CONTENT_DEADLINE_S:g}"
        return [
            *start, "--filter=retry", "curl",
            f"url={url}", f"unix-socket-path={self._daemon_socket}", f"timeout={NBD_READ_TIMEOUT_S}",
            f"retries={NBD_RETRIES_COUNT}", f"retry-delay={NBD_RETRY_DELAY_S}", "retry-exponential=no",
        ]  # fmt: skip
