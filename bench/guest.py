"""A Linux guest from Debian's packages: its disk is made once and kept; booted under software emulation to its login.

The kernel and initrd are those of the guest's own packages, handed to QEMU as files; everything else is read from the
disk. Needs root (debootstrap), and no virtualisation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from simnet.testbed.programs import run

SUITE = "bookworm"
PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "systemd-sysv", "udev", "dbus", "login", "iproute2", "openssh-server",
    "python3", "perl", "git", "vim", "curl", "less", "man-db", "locales", "build-essential",
)  # fmt: skip
"""What boots, and what usual servers have beside it, most of which no boot reads."""
DISK_SIZE_BYTES = 4 << 30
MEMORY_MIB = 1024
LOGIN = b"login: "
BOOT_TIMEOUT_S = 900.0


class BootError(Exception):
    """The guest did not come to its login; the text has its last words."""


@dataclass(frozen=True)
class Guest:
    kernel: Path
    initrd: Path
    disk: Path


def make_guest(directory: Path) -> Guest:
    """The guest kept in `directory`, made there where it is not; a few minutes the first time."""
    guest = Guest(directory / "vmlinuz", directory / "initrd.img", directory / "disk.raw")
    if all(part.exists() for part in (guest.kernel, guest.initrd, guest.disk)):
        return guest
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="making-") as making:
        root, disk = Path(making, "root"), Path(making, "disk.raw")
        log = directory / "debootstrap.log"
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
        with log.open("wb") as output:
            subprocess.run(command, stdout=output, stderr=output, check=True)
        (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
        (root / "etc/hostname").write_text("guest\n")
        shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
        with disk.open("wb") as file:
            file.truncate(DISK_SIZE_BYTES)
        run("mkfs.ext4", "-q", "-F", "-d", str(root), str(disk))
        shutil.copy(next((root / "boot").glob("vmlinuz-*")), guest.kernel)
        shutil.copy(next((root / "boot").glob("initrd.img-*")), guest.initrd)
        disk.rename(guest.disk)  # last: what is there is whole
    return guest


def boot(guest: Guest, disk: list[str], console: Path) -> float:
    """Seconds from starting QEMU to the login on the serial console; `disk` is what QEMU is told of it, node `disk`."""
    command = [
        "qemu-system-x86_64", "-accel", "tcg", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-nographic",
        "-kernel", str(guest.kernel), "-initrd", str(guest.initrd),
        "-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0",
        *disk, "-device", "virtio-blk-pci,drive=disk", "-serial", "stdio", "-monitor", "none",
    ]  # fmt: skip
    started = time.perf_counter()
    with (
        console.open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log) as qemu,
    ):
        assert qemu.stdout is not None
        said = bytearray()
        try:
            os.set_blocking(qemu.stdout.fileno(), True)
            while LOGIN not in said:
                chunk = os.read(qemu.stdout.fileno(), 4096)
                log.write(chunk)
                log.flush()
                said = (said + chunk)[-4096:]
                if not chunk or time.perf_counter() - started > BOOT_TIMEOUT_S:
                    raise BootError(said.decode(errors="replace")[-1000:])
            return time.perf_counter() - started
        finally:
            qemu.kill()


def overlay(path: Path) -> Path:
    """An empty qcow2 file of the guest's size, to write to; what is under it is said on QEMU's command line."""
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(DISK_SIZE_BYTES))
    return path
