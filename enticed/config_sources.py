"""Where settings come from, and which of several values counts: the later of

    what holds by default, STATE/enticed.toml (from `init` and `join`), the file of --config, conf.d/*.toml beside that
    file in the order of their names, the environment (ENTICED_STORE_QUOTA_BYTES), the command line.

Nothing is passed over in silence: a key or variable that is not known is an error that names it.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from enticed.config import SETTINGS, VARIABLE_PREFIX, Config, Setting
from protocol.errors import LocalError

STATE_CONFIG = "enticed.toml"
DROP_IN_DIRECTORY = "conf.d"
DEFAULT_ORIGIN = "default"

_BY_KEY = {setting.key: setting for setting in SETTINGS}
_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}
_TABLES = {setting.key.partition(".")[0] for setting in SETTINGS if "." in setting.key}


@dataclass(frozen=True, slots=True)
class Flag:
    """What the command line says of one setting. name: as people write it; value: as it would stand in TOML."""

    name: str
    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that a configuration is read from, so that it can be read again."""

    state_dir: Path
    file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()

    def load(self) -> Configured:
        """Read them all. `LocalError` with source and key for anything that is not right in one of them."""
        configured = Configured(Config(self.state_dir), {})
        for origin, key, value in self._values():
            configured = configured.with_value(origin, key, value)
        configured.check()
        return configured

    def files(self) -> list[Path]:
        """The files, those that count less first. The first one need not be there.

        `LocalError` where this user may not see which there are.
        """
        files = [self.state_dir / STATE_CONFIG]
        if self.file is not None:
            files += [self.file, *_drop_ins(self.file.parent / DROP_IN_DIRECTORY)]
        return files

    def _values(self) -> Iterator[tuple[str, str, Any]]:
        """Origin, key, and value as in TOML."""
        own, *given = self.files()
        for path, values in ((own, _parsed(own, may_be_absent=True)), *((one, _parsed(one)) for one in given)):
            for key, value in _flat(path, values):
                yield str(path), key, value
        for variable, text in sorted(self.environment.items()):
            if variable.startswith(VARIABLE_PREFIX):
                setting = _BY_VARIABLE.get(variable)
                if setting is None:
                    raise LocalError(f"no setting has the variable {variable}{_nearest(variable, _BY_VARIABLE)}")
                yield variable, setting.key, setting.kind.parse(text)
        for flag in self.flags:
            yield flag.name, flag.key, flag.value


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration. origins: by key, where the value came from; what is not in it holds by default."""

    config: Config
    origins: Mapping[str, str]

    def with_value(self, origin: str, key: str, value: Any) -> Configured:
        """The same with one value from somewhere that counts more; `LocalError` with origin and key if it is wrong."""
        setting = setting_of(origin, key)
        try:
            changed = {setting.field: setting.kind.read(value)}
        except ValueError as error:
            says_it = origin in (setting.variable, "--" + key.replace("_", "-"))
            raise LocalError(f"{origin}: {error}" if says_it else f"{origin}: {key}: {error}") from error
        final = setting.kind.final
        if final is not None and getattr(self.config, setting.field) == final:
            return self
        return Configured(replace(self.config, **changed), {**self.origins, key: origin})

    def check(self) -> None:
        """`LocalError` for values that do not go together, each of which may come from somewhere else."""
        high, low = self.config.high_percent, self.config.low_percent
        if low > high:
            origin = self.origins.get("store.low_percent") or self.origin("store.high_percent")
            raise LocalError(f"{origin}: store.low_percent, {low}, is above high_percent, {high}")

    def origin(self, key: str) -> str:
        return self.origins.get(key, DEFAULT_ORIGIN)

    def table(self) -> list[dict[str, Any]]:
        """Every setting with key, value as it would stand in TOML, and origin: for people and programs."""
        return [{"key": one.key, "value": one.shown(self.config), "origin": self.origin(one.key)} for one in SETTINGS]


def setting_of(origin: str, key: str) -> Setting:
    """`LocalError`, with the nearest key that there is, for an unknown one."""
    if key not in _BY_KEY:
        raise LocalError(f"{origin}: no setting is called {key!r}{_nearest(key, _BY_KEY)}")
    return _BY_KEY[key]


def set_flag(text: str) -> Flag:
    """What `--set KEY=VALUE` says; `LocalError` for an unknown key or no value."""
    key, equals, value = text.partition("=")
    if not equals:
        raise LocalError(f"--set {text}: KEY=VALUE, like store.quota_bytes=0")
    return text_flag("--set", key.strip(), value.strip())


def text_flag(name: str, key: str, text: str) -> Flag:
    return Flag(name, key, setting_of(name, key).kind.parse(text))


def remember_listen(state_dir: Path, listen: str | None) -> None:
    """Write what `init` or `join` was told about this host's addresses where the daemon will find it."""
    if listen is None:
        return
    Configured(Config(state_dir), {}).with_value("--listen", "listen", listen)
    text = f'# Written when this host was enrolled. A file given by --config comes before it.\nlisten = "{listen}"\n'
    (state_dir / STATE_CONFIG).write_text(text, encoding="utf-8")


def _drop_ins(directory: Path) -> list[Path]:
    """Not with `glob`, to which a directory that may not be read is one without files."""
    try:
        return sorted(path for path in directory.iterdir() if path.name.endswith(".toml"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LocalError(f"{directory}: {error.strerror or error}") from error


def _parsed(path: Path, *, may_be_absent: bool = False) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        if may_be_absent and isinstance(error, FileNotFoundError):
            return {}
        raise LocalError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of too many digits
        raise LocalError(f"{path}: {error}") from error


def _flat(path: Path, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys as settings have them, `table.key`."""
    for key, value in values.items():
        if key in _TABLES:
            if not isinstance(value, dict):
                raise LocalError(f"{path}: [{key}] is a table")
            yield from ((f"{key}.{inner}", one) for inner, one in value.items())
        else:
            yield key, value


def _nearest(name: str, known: Mapping[str, Setting]) -> str:
    """What was probably meant: also where only the table was left out, or is too much."""
    near = [one for one in known if one.endswith(f".{name}") or name.endswith(f".{one}")]
    near += difflib.get_close_matches(name, known, 1)
    near += [one for one in known if difflib.get_close_matches(name, [one.rpartition(".")[2]], 1)]
    return f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
