"""Starts a program as systemd/enticed.service would, where no systemd runs: `confined.py UNIT WRITABLE... -- COMMAND`.

Run as root in mount and IPC namespaces of its own (`unshare --mount --ipc`). It takes from the command what the unit
takes: writing anything but WRITABLE, the sight of homes, devices and other /tmp, all capabilities and any way to gain
some, networks of other kinds, memory that is written and then executed, and all but the unit's system calls. Each of
these is read from the unit.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path

UID = 54399
"""Of the daemon's user: nobody else here."""
_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_SET_MDWE = 38, 24, 65
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001
_EQUAL = 4
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
_libc = ctypes.CDLL(None, use_errno=True)


def main(unit: Path, writable: list[Path], command: list[str]) -> None:
    settings = read(unit)
    hide_the_machine(settings, writable, Path(command[0]))
    for name, limit in (("LimitNOFILE", resource.RLIMIT_NOFILE), ("LimitCORE", resource.RLIMIT_CORE)):
        value = min(int(settings[name][-1]), resource.getrlimit(limit)[1])
        resource.setrlimit(limit, (value, value))
    os.umask(int(settings["UMask"][-1], 8))
    allowed = system_calls(settings["SystemCallFilter"])
    drop_privileges(settings)
    filter_calls(allowed, settings["RestrictAddressFamilies"][-1].split())
    environment = dict(pair.split("=", 1) for line in settings["Environment"] for pair in line.split())
    os.execve(command[0], command, dict(os.environ) | environment)


def read(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def hide_the_machine(settings: dict[str, list[str]], writable: list[Path], program: Path) -> None:
    """ProtectSystem, ProtectHome, PrivateTmp, PrivateDevices, ProtectKernelTunables."""
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["ProtectHome"] == settings["PrivateTmp"] == settings["PrivateDevices"] == ["yes"]
    mount("--make-rprivate", "/")
    hidden_places = ("/root", "/home", "/tmp", "/var/tmp", "/dev/shm")
    wanted = (Path(sys.base_prefix), program.parent.parent, Path(__file__).parents[2])
    kept = [path for path in dict.fromkeys(wanted) if str(path).startswith(tuple(f"{one}/" for one in hidden_places))]
    stash = Path("/run/confined")
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    stash.mkdir()
    for number, path in enumerate([*kept, *writable]):
        (stash / str(number)).mkdir()
        mount("--bind", path, stash / str(number))
    for hidden in hidden_places:
        mount("-t", "tmpfs", "-o", "mode=1777" if "tmp" in hidden or "shm" in hidden else "mode=755", "tmpfs", hidden)
    for number, path in enumerate([*kept, *writable]):
        path.mkdir(parents=True, exist_ok=True)
        mount("--bind", stash / str(number), path)
        mount("-o", "remount,bind,ro" if path in kept else "remount,bind,nosuid,nodev", path)
    few_devices()
    for kernel in ("/proc/sys", "/sys"):
        mount("--bind", kernel, kernel)
        mount("-o", "remount,bind,ro", kernel)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = Path(line.split()[4])
        within = any(place == path or path in place.parents for path in writable)
        if not within and not place.is_relative_to("/proc") and not place.is_relative_to("/tmp"):
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=False, capture_output=True)


def few_devices() -> None:
    names = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}
    mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/dev")
    for name, numbers in names.items():
        os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(*numbers))
        os.chmod(f"/dev/{name}", 0o666)
    os.symlink("/proc/self/fd", "/dev/fd")
    Path("/dev/shm").mkdir(mode=0o1777)


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def system_calls(lines: list[str]) -> set[str]:
    """By name: a line without ~ allows, one with it takes away, as systemd has it."""
    groups = groups_of_calls()
    allowed: set[str] = set()
    for line in lines:
        named = set().union(*(expand(word, groups) for word in line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed | expand("@default", groups)


def groups_of_calls() -> dict[str, list[str]]:
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        if line.startswith("@"):
            words = found.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            words.append(line.strip())
    return found


def expand(word: str, groups: dict[str, list[str]]) -> set[str]:
    if not word.startswith("@"):
        return {word}
    return set().union(*(expand(one, groups) for one in groups[word]))


def drop_privileges(settings: dict[str, list[str]]) -> None:
    assert settings["CapabilityBoundingSet"] == settings["AmbientCapabilities"] == [""]
    for capability in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    assert settings["NoNewPrivileges"] == settings["MemoryDenyWriteExecute"] == ["yes"]
    assert _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    _libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0)  # kernels before 6.3 have it not


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def filter_calls(allowed: set[str], families: list[str]) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_EPERM))
    for name in allowed:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and name != "socket":
            assert seccomp.seccomp_rule_add(context, _ALLOW, number, 0) == 0, name
    for family in families:
        only = _Comparison(0, _EQUAL, _FAMILIES[family], 0)
        number = seccomp.seccomp_syscall_resolve_name(b"socket")
        assert seccomp.seccomp_rule_add_array(context, _ALLOW, number, 1, ctypes.byref(only)) == 0
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    split = sys.argv.index("--")
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:split]], sys.argv[split + 1 :])
