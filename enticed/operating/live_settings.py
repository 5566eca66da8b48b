"""The configuration that a daemon runs with, and how it takes up a new one while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from enticed.config import SETTINGS, Config
from enticed.config_sources import Configured, Sources
from protocol.errors import LocalError

_log = logging.getLogger(__name__)
Apply = Callable[[Config], None]


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that is another now. old, new: as in TOML, None for none. origin: where the new value is from."""

    key: str
    old: Any
    new: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Reloaded:
    """applied: what holds from now on; restart: what is taken up when the daemon is started anew."""

    applied: tuple[Change, ...]
    restart: tuple[Change, ...]


class LiveSettings:
    """Belongs to one event loop. What no part has offered to take up needs a restart."""

    def __init__(self, running: Configured, sources: Sources) -> None:
        self.running = running
        """What holds now: after a reload still the old value of what needs a restart."""
        self.sources = sources
        self._appliers: dict[str, Apply] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def config(self) -> Config:
        return self.running.config

    def on_change(self, apply: Apply, *keys: str) -> None:
        """Have `apply` called with the whole configuration when one of these is another. It must not fail."""
        self._appliers |= dict.fromkeys(keys, apply)

    async def reload(self) -> Reloaded:
        """Read all sources again and take up what can be. `LocalError` if any of them is wrong: nothing changes."""
        async with self._one_at_a_time:
            try:
                wanted = await asyncio.to_thread(self.sources.load)
            except LocalError as error:
                raise LocalError(f"{error}; everything stays as it was") from error
            changes = self._changes(wanted)
            applied = tuple(change for change in changes if change.key in self._appliers)
            restart = tuple(change for change in changes if change.key not in self._appliers)
            self.running = self._without(wanted, {change.key for change in restart})
            for apply in dict.fromkeys(self._appliers[change.key] for change in applied):
                apply(self.config)
        for change in applied:
            _log.info("%s is %r now (%s)", change.key, change.new, change.origin)
        for change in restart:
            _log.warning("%s is still %r: %r (%s) needs a restart", change.key, change.old, change.new, change.origin)
        return Reloaded(applied, restart)

    async def pending(self) -> tuple[Change, ...]:
        """What the sources say by now and does not hold yet. `LocalError` if any of them is wrong."""
        return tuple(self._changes(await asyncio.to_thread(self.sources.load)))

    def _changes(self, wanted: Configured) -> list[Change]:
        shown = [(one.key, one.shown(self.config), one.shown(wanted.config)) for one in SETTINGS]
        return [Change(key, old, new, wanted.origin(key)) for key, old, new in shown if old != new]

    def _without(self, wanted: Configured, stay: set[str]) -> Configured:
        """What is wanted, but for these settings, which stay as they are."""
        kept = {one.field: getattr(self.config, one.field) for one in SETTINGS if one.key in stay}
        origins = {key: origin for key, origin in wanted.origins.items() if key not in stay}
        origins |= {key: origin for key, origin in self.running.origins.items() if key in stay}
        return Configured(replace(wanted.config, **kept), origins)
