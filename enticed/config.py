"""What an operator can set: the record that the daemon is built from, and the table of settings that it is read by.

Where values come from, and which of them counts, is `enticed.config_sources`. What each means to an operator is said in
systemd/enticed.toml and docs/man/enticed.toml.5.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enticed.limits import GUEST_DIRECTORIES_MAX_COUNT, RATE_MIN_BYTES_PER_S
from enticed.origin.prefix import parse_prefix
from protocol.addresses import IpNetwork, split_address
from protocol.errors import LocalError, MalformedError
from protocol.limits import GIB

DEFAULT_PORT = 7400
DEFAULT_LISTEN = f"0.0.0.0:{DEFAULT_PORT}"
DEFAULT_SOCKET = Path("/run/enticed/entice.sock")
DEFAULT_STATE = Path("/var/lib/enticed")
DEFAULT_FILE = Path("/etc/enticed/enticed.toml")
LOG_LEVELS = ("debug", "info", "warning", "error")
VARIABLE_PREFIX = "ENTICED_"
NEVER = "never"


@dataclass(frozen=True, slots=True)
class Config:
    """Addresses are `host:port` or `[v6]:port`, numeric."""

    state_dir: Path
    socket: Path = DEFAULT_SOCKET
    socket_group: str | None = None
    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    api_listen: str | None = None
    """None: on the founding host the port after `listen`'s, elsewhere nowhere; "" nowhere."""
    advertise: tuple[str, ...] = ()
    dial_networks: tuple[IpNetwork, ...] = ()
    bootstrap: tuple[str, ...] = ()
    metrics_listen: str | None = None
    content_listen: str | None = None
    """None or "": on the unix socket only."""
    log_level: str = "info"
    origin: str | None = None
    """A prefix; NEVER where no origin is to be asked, whatever else says otherwise."""
    origin_endpoint: str | None = None
    """The address of an S3 service that is not Amazon's."""
    quota_bytes: int | None = None
    reserve_bytes: int = 1 * GIB
    high_percent: int = 90
    low_percent: int = 80
    """Of what images may take: above the one, images go until no more than the other is taken."""
    guest_directories: tuple[Path, ...] = ()
    """Where disks of guests are that may stand on images of this store."""
    up_bytes_per_s: int | None = None
    down_bytes_per_s: int | None = None
    write_bytes_per_s: int | None = None
    lower_effort: bool = False
    """Whether bulk packets are marked as those that may be dropped first (RFC 8622)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is written. read: the value that something in TOML stands for, ValueError saying what belongs there;
    parse: text, of a variable or flag, as it would stand in TOML; show: the value as it would stand in TOML.
    """

    read: Callable[[Any], Any]
    parse: Callable[[str], Any] = str
    show: Callable[[Any], Any] = lambda value: value
    final: Any = None
    """A value that nothing takes back, once a source says it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """key: in TOML, `table.key` where it is in a table. field: of `Config`."""

    key: str
    field: str
    kind: Kind

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return VARIABLE_PREFIX + self.key.replace(".", "_").upper()

    def shown(self, config: Config) -> Any:
        """Its value in a configuration, as it would stand in TOML; None where that is no value at all."""
        return self.kind.show(getattr(config, self.field))


def api_address(config: Config, is_founder: bool) -> tuple[str, int] | None:
    """Where the HTTPS API listens, if anywhere."""
    if config.api_listen:
        return split_address(config.api_listen, any_port=True)
    if config.api_listen == "" or not is_founder:
        return None
    host, port = split_address(config.listen[0], any_port=True)
    return host, port + 1 if port else 0


def _address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"an address is a string like '10.0.0.1:{DEFAULT_PORT}'")
    try:
        split_address(value, any_port=True)
    except MalformedError as error:
        raise ValueError(str(error)) from error
    return value


def _loopback(value: Any) -> str:
    address = _address(value)
    if not ipaddress.ip_address(split_address(address, any_port=True)[0]).is_loopback:
        raise ValueError("a loopback address like '127.0.0.1:7403': others must not read images there")
    return address


def _addresses(value: Any) -> tuple[str, ...]:
    return tuple(_address(one) for one in (value if isinstance(value, list) else [value]))


def _listens(value: Any) -> tuple[str, ...]:
    """At least one: a host that listens nowhere is no peer."""
    addresses = _addresses(value)
    if not addresses:
        raise ValueError("one address at least")
    return addresses


def _networks(value: Any) -> tuple[IpNetwork, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("a list of networks like '10.20.0.0/16'")
    return tuple(ipaddress.ip_network(one) for one in value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("a number of bytes, 0 or more")
    return value


def _rate(value: Any) -> int | None:
    if type(value) is not int or 0 != value < RATE_MIN_BYTES_PER_S:
        raise ValueError(f"bytes a second: 0 for no limit, or at least {RATE_MIN_BYTES_PER_S}")
    return value or None


def _percent(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 100:
        raise ValueError("a number of percent, 1 to 100")
    return value


def _directories(value: Any) -> tuple[Path, ...]:
    is_list = isinstance(value, list) and len(value) <= GUEST_DIRECTORIES_MAX_COUNT
    if not is_list or not all(isinstance(one, str) and one.startswith("/") for one in value):
        raise ValueError(f"a list of at most {GUEST_DIRECTORIES_MAX_COUNT} directories, each from / on")
    return tuple(Path(one) for one in value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _origin(value: Any) -> str:
    text = _text(value)
    if text == NEVER:
        return text
    try:
        return parse_prefix(text).label
    except LocalError as error:
        raise ValueError(str(error)) from error


def _endpoint(value: Any) -> str:
    text = _origin(value)
    if not text.startswith(("http://", "https://")):
        raise ValueError("the address of an S3 service, like https://s3.example:9000")
    return text


def _log_level(value: Any) -> str:
    if value not in LOG_LEVELS:
        raise ValueError(f"one of {', '.join(LOG_LEVELS)}")
    return str(value)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _yes_or_no(text: str) -> Any:
    """What is neither stays text, for `read` to refuse."""
    return {"true": True, "false": False}.get(text, text)


def _number(text: str) -> Any:
    """What is no number stays text, for `read` to refuse."""
    try:
        return int(text)
    except ValueError:
        return text


_LISTENS = Kind(_listens, _words, list)
_ADDRESSES = Kind(_addresses, _words, list)
_PLACE = Kind(lambda value: value if value == "" else _address(value))
"""An address, or "" for nowhere."""
_LOOPBACK = Kind(lambda value: value if value == "" else _loopback(value))
_NETWORKS = Kind(_networks, _words, lambda networks: [str(one) for one in networks])
_SIZE = Kind(_size, _number)
_LIMIT = Kind(lambda value: _size(value) or None, _number, lambda value: value or 0)
"""0 is no limit."""
_RATE = Kind(_rate, _number, lambda value: value or 0)
_FLAG = Kind(_flag, _yes_or_no)
_PERCENT = Kind(_percent, _number)
_DIRECTORIES = Kind(_directories, _words, lambda directories: [str(one) for one in directories])

SETTINGS = (
    Setting("listen", "listen", _LISTENS),
    Setting("api_listen", "api_listen", _PLACE),
    Setting("advertise", "advertise", _ADDRESSES),
    Setting("dial_networks", "dial_networks", _NETWORKS),
    Setting("bootstrap", "bootstrap", _ADDRESSES),
    Setting("socket", "socket", Kind(lambda value: Path(_text(value)), show=str)),
    Setting("socket_group", "socket_group", Kind(_text)),
    Setting("metrics_listen", "metrics_listen", _PLACE),
    Setting("content_listen", "content_listen", _LOOPBACK),
    Setting("log_level", "log_level", Kind(_log_level)),
    Setting("origin", "origin", Kind(_origin, final=NEVER)),
    Setting("origin_endpoint", "origin_endpoint", Kind(_endpoint)),
    Setting("store.quota_bytes", "quota_bytes", _LIMIT),
    Setting("store.reserve_bytes", "reserve_bytes", _SIZE),
    Setting("store.high_percent", "high_percent", _PERCENT),
    Setting("store.low_percent", "low_percent", _PERCENT),
    Setting("store.guest_directories", "guest_directories", _DIRECTORIES),
    Setting("rates.up_bytes_per_s", "up_bytes_per_s", _RATE),
    Setting("rates.down_bytes_per_s", "down_bytes_per_s", _RATE),
    Setting("rates.write_bytes_per_s", "write_bytes_per_s", _RATE),
    Setting("rates.lower_effort", "lower_effort", _FLAG),
)
"""All there are, in the order in which people are shown them."""
