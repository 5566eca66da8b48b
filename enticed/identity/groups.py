"""The groups that this host is in: a file for each in STATE/groups, named after the group, which holds its secret."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from enticed.identity.files import read_file
from protocol.errors import AbsentError, CorruptError, ExhaustedError, LocalError, MalformedError
from protocol.group import Group, format_group, parse_group
from protocol.limits import GROUP_SECRET_SIZE_BYTES, GROUP_TOKEN_MAX_CHARS, GROUPS_MAX_COUNT

DIRECTORY = "groups"


def load_groups(state_dir: Path) -> tuple[Group, ...]:
    """All of them, by name. `CorruptError` for a file that holds none."""
    directory = state_dir / DIRECTORY
    names = sorted(os.listdir(directory)) if directory.is_dir() else []
    groups = []
    for name in names[: GROUPS_MAX_COUNT + 1]:
        try:
            group = parse_group(read_file(directory / name, GROUP_TOKEN_MAX_CHARS + 1).decode(errors="replace").strip())
        except MalformedError as error:
            raise CorruptError(f"{directory / name} is damaged: {error}") from error
        groups.append(group)
    if len(groups) > GROUPS_MAX_COUNT:
        raise ExhaustedError(f"a host is in at most {GROUPS_MAX_COUNT} groups")
    return tuple(groups)


def new_group(name: str) -> Group:
    """A group that nobody is in yet. `LocalError` for a name that is none."""
    try:
        return Group(name, secrets.token_bytes(GROUP_SECRET_SIZE_BYTES))
    except MalformedError as error:
        raise LocalError(str(error)) from error


def leave_group(state_dir: Path, name: str) -> None:
    """Remove a group's secret, durably; the daemon goes by it when it starts. `AbsentError` where there is none."""
    if not any(one.name == name for one in load_groups(state_dir)):
        raise AbsentError(f"this host is in no group {name}")
    directory = state_dir / DIRECTORY
    (directory / name).unlink()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def enter_group(state_dir: Path, group: Group) -> None:
    """Keep a group's secret; the daemon takes it up when it starts. `LocalError` where there is one of this name."""
    known = load_groups(state_dir)
    if any(one.name == group.name for one in known):
        raise LocalError(f"this host is in a group {group.name} already")
    if len(known) >= GROUPS_MAX_COUNT:
        raise ExhaustedError(f"a host is in at most {GROUPS_MAX_COUNT} groups")
    directory = state_dir / DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    owner = state_dir.stat()
    fd = os.open(directory / group.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, format_group(group).encode() + b"\n")
        os.fsync(fd)
        if os.geteuid() == 0:
            os.fchown(fd, owner.st_uid, owner.st_gid)
            os.chown(directory, owner.st_uid, owner.st_gid)
    finally:
        os.close(fd)
