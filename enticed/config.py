"""What an operator sets: defaults, then STATE/enticed.toml (from init and join), then --config, then the flags."""

from __future__ import annotations

import ipaddress
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from protocol.addresses import split_address
from protocol.errors import LocalError, MalformedError
from protocol.limits import GIB

DEFAULT_PORT = 7400
DEFAULT_LISTEN = f"0.0.0.0:{DEFAULT_PORT}"
DEFAULT_SOCKET = Path("/run/enticed/entice.sock")
STATE_CONFIG = "enticed.toml"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Config:
    """Addresses are `host:port` or `[v6]:port`, numeric. What each means is said in systemd/enticed.toml."""

    state_dir: Path
    socket: Path = DEFAULT_SOCKET
    socket_group: str | None = None
    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    api_listen: str | None = None
    """None: on the founding host the port after `listen`'s, elsewhere nowhere; "" nowhere."""
    advertise: tuple[str, ...] = ()
    dial_networks: tuple[Network, ...] = ()
    bootstrap: tuple[str, ...] = ()
    quota_bytes: int | None = None
    reserve_bytes: int = 1 * GIB


def load_config(state_dir: Path, file: Path | None) -> Config:
    """The configuration before flags. `LocalError` with file and key for anything that is not right in it."""
    config = Config(state_dir)
    own = state_dir / STATE_CONFIG
    for path in (own, file):
        if path is None or (path is own and not own.exists()):
            continue
        try:
            with path.open("rb") as stream:
                values = tomllib.load(stream)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise LocalError(f"{path}: {error}") from error
        try:
            config = _with_values(config, values)
        except (ValueError, MalformedError) as error:
            raise LocalError(f"{path}: {error}") from error
    return config


def with_flags(config: Config, listen: str | None, socket: Path | None, bootstrap: tuple[str, ...]) -> Config:
    """The same with what the command line says; `LocalError` for an address that is none."""
    try:
        if listen is not None:
            config = replace(config, listen=(_address("--listen", listen),))
        if bootstrap:
            config = replace(config, bootstrap=tuple(_address("--bootstrap", one) for one in bootstrap))
    except ValueError as error:
        raise LocalError(str(error)) from error
    return config if socket is None else replace(config, socket=socket)


def remember_listen(state_dir: Path, listen: str | None) -> None:
    """Write what `init` or `join` was told about this host's addresses where the daemon will find it."""
    if listen is None:
        return
    try:
        address = _address("--listen", listen)
    except ValueError as error:
        raise LocalError(str(error)) from error
    text = f'# Written when this host was enrolled. A file given by --config comes before it.\nlisten = "{address}"\n'
    (state_dir / STATE_CONFIG).write_text(text, encoding="utf-8")


def api_address(config: Config, is_founder: bool) -> tuple[str, int] | None:
    """Where the HTTPS API listens, if anywhere."""
    if config.api_listen:
        return split_address(config.api_listen, any_port=True)
    if config.api_listen == "" or not is_founder:
        return None
    host, port = split_address(config.listen[0], any_port=True)
    return host, port + 1 if port else 0


def _with_values(config: Config, values: dict[str, Any]) -> Config:
    store = values.pop("store", {})
    if not isinstance(store, dict):
        raise ValueError("[store] is a table")
    changes = {key: _read(_TOP, key, value) for key, value in values.items()}
    changes |= {key: _read(_STORE, key, value) for key, value in store.items()}
    return replace(config, **changes)


def _read(table: dict[str, Any], key: str, value: Any) -> Any:
    if key not in table:
        known = ", ".join(table)
        raise ValueError(f"no setting is called {key!r} here; there are {known}")
    return table[key](key, value)


def _address(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key}: an address is a string like '10.0.0.1:{DEFAULT_PORT}'")
    try:
        split_address(value, any_port=True)
    except MalformedError as error:
        raise ValueError(f"{key}: {error}") from error
    return value


def _addresses(key: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(_address(key, one) for one in values)


def _networks(key: str, value: Any) -> tuple[Network, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key}: a list of networks like '10.20.0.0/16'")
    return tuple(ipaddress.ip_network(one) for one in value)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key}: a string")
    return value


def _size(key: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{key}: a number of bytes, 0 or more")
    return value


_TOP: dict[str, Any] = {
    "listen": _addresses,
    "api_listen": lambda key, value: value if value == "" else _address(key, value),
    "advertise": _addresses,
    "dial_networks": _networks,
    "bootstrap": _addresses,
    "socket": lambda key, value: Path(_text(key, value)),
    "socket_group": _text,
}
_STORE: dict[str, Any] = {
    "quota_bytes": lambda key, value: _size(key, value) or None,
    "reserve_bytes": _size,
}
