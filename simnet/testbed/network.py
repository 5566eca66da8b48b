"""Where the hosts of a testbed are: what it asks of a network, and the one that every machine has."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self


@dataclass(frozen=True, slots=True)
class Place:
    """A host's address; and what comes before a command that is to run there."""

    address: str
    within: tuple[str, ...] = ()


class Network(AbstractContextManager["Network"], Protocol):
    """It is there while its context lasts, which ends after that of the processes in it."""

    cleaner: Sequence[str]
    """The command that removes it where whoever used it was killed; empty where nothing would be left."""

    def attach(self, number: int) -> Place:
        """The place of the host of this number, which is new."""
        ...


class Loopback:
    """127.x.y.0/24 of its own: as fast as the machine, and nothing that could be slowed or cut."""

    cleaner: Sequence[str] = ()

    def __init__(self) -> None:
        self._prefix = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(250)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def attach(self, number: int) -> Place:
        return Place(f"{self._prefix}.{number + 1}")
