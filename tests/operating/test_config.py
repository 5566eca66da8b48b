"""Settings: which value counts and where it came from, what is refused, and what a running daemon takes up."""

from __future__ import annotations

import asyncio
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from enticed.__main__ import main as enticed
from enticed.config import SETTINGS, Config
from enticed.config_sources import Configured, Flag, Sources, set_flag
from enticed.operating.live_settings import LiveSettings
from protocol.errors import LocalError

GIB = 1 << 30


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_what_is_said_later_counts_and_its_origin_is_known(tmp_path: Path) -> None:
    state = written(tmp_path / "state", "enticed.toml", 'listen = "10.0.0.1:1"\nbootstrap = "10.0.0.9:1"\n')
    file = written(tmp_path / "etc", "enticed.toml", 'listen = "10.0.0.1:2"\n[store]\nquota_bytes = 1\n')
    first = written(file.parent / "conf.d", "10-a.toml", "[store]\nquota_bytes = 2\nreserve_bytes = 2\n")
    second = written(file.parent / "conf.d", "20-b.toml", "[store]\nquota_bytes = 3\n")
    written(file.parent / "conf.d", "ignored.toml.old", "nonsense")
    environment = {"ENTICED_SOCKET_GROUP": "cloud", "ENTICED_LISTEN": "10.0.0.1:4, [::1]:4", "HOME": "/"}
    flags = (Flag("--listen", "listen", "10.0.0.1:5"), set_flag("store.reserve_bytes = 6"))
    configured = Sources(state.parent, file, environment, flags).load()
    assert configured.config == Config(
        state.parent,
        listen=("10.0.0.1:5",),
        bootstrap=("10.0.0.9:1",),
        socket_group="cloud",
        quota_bytes=3,
        reserve_bytes=6,
    )
    assert {key: origin for key, origin in configured.origins.items() if key != "listen"} == {
        "bootstrap": str(state),
        "store.quota_bytes": str(second),
        "socket_group": "ENTICED_SOCKET_GROUP",
        "store.reserve_bytes": "--set",
    }
    assert (configured.origin("listen"), configured.origin("advertise")) == ("--listen", "default")
    assert str(first) not in configured.origins.values()
    without_flags = Sources(state.parent, file, environment).load()
    assert without_flags.config.listen == ("10.0.0.1:4", "[::1]:4")


def test_nothing_said_is_the_default(tmp_path: Path) -> None:
    assert Sources(tmp_path).load() == Configured(Config(tmp_path), {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("qouta_bytes = 1", "no setting is called 'qouta_bytes': did you mean 'store.quota_bytes'?"),
        ("quota_bytes = 1", "did you mean 'store.quota_bytes'?"),
        ("[store]\nquota = 1", "no setting is called 'store.quota': did you mean 'store.quota_bytes'?"),
        ("[store]\nlisten = 1", "no setting is called 'store.listen': did you mean 'listen'?"),
        ("lissten = 'x'", "did you mean 'listen'?"),
        ("zzzz = 1", "no setting is called 'zzzz'; there are listen, api_listen, "),
        ("[stroe]\nquota_bytes = 1", "no setting is called 'stroe'"),
        ("store = 1", "[store] is a table"),
        ("listen = 5", "listen: an address is a string"),
        ("listen = []", "listen: one address at least"),
        ("listen = 'somewhere:7400'", "listen: "),
        ("dial_networks = ['10.0.0.1/8']", "dial_networks: 10.0.0.1/8 has host bits set"),
        ("dial_networks = '10.0.0.0/8'", "dial_networks: a list of networks"),
        ("socket_group = 5", "socket_group: a string"),
        ("log_level = 'loud'", "log_level: one of debug, info, warning, error"),
        ("[store]\nquota_bytes = -1", "store.quota_bytes: a number of bytes, 0 or more"),
        ("[store]\nreserve_bytes = true", "store.reserve_bytes: a number of bytes"),
        ("[store]\nhigh_percent = 0", "store.high_percent: a number of percent, 1 to 100"),
        ("[store]\nlow_percent = 95", "store.low_percent, 95, is above high_percent, 90"),
        ("[store]\nguest_directories = ['guests']", "store.guest_directories: a list of at most 16 directories, each"),
        ("listen = ", "Invalid value"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    file = written(tmp_path, "x.toml", text)
    with pytest.raises(LocalError) as error:
        Sources(tmp_path, file).load()
    assert str(error.value).startswith(f"{file}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        ({"environment": {"ENTICED_QUOTA": "1"}}, "no setting has the variable ENTICED_QUOTA"),
        ({"environment": {"ENTICED_LISTN": "1"}}, "did you mean 'ENTICED_LISTEN'?"),
        ({"environment": {"ENTICED_STORE_QUOTA_BYTES": "much"}}, "ENTICED_STORE_QUOTA_BYTES: a number of bytes"),
        ({"flags": (Flag("--listen", "listen", "x"),)}, "--listen: "),
        ({"flags": (Flag("--listen", "listen", "127.0.0.9:80000"),)}, "listen: 80000 is no port: it is 1 to 65535"),
        ({"flags": (Flag("--listen", "listen", "[::0]:80"),)}, "not in its usual spelling: ::"),
        ({"environment": {"ENTICED_RATES_UP_BYTES_PER_S": "1"}}, "bytes a second: 0 for no limit, or at least 1000000"),
        ({"environment": {"ENTICED_RATES_LOWER_EFFORT": "yes"}}, "ENTICED_RATES_LOWER_EFFORT: true or false"),
        ({"flags": (set_flag("store.quota_bytes=x"),)}, "--set: store.quota_bytes: a number of bytes"),
        ({"file": Path("/nowhere/enticed.toml")}, "/nowhere/enticed.toml: No such file or directory"),
    ],
)
def test_what_is_wrong_elsewhere(tmp_path: Path, sources: dict[str, Any], says: str) -> None:
    with pytest.raises(LocalError) as error:
        Sources(tmp_path, **sources).load()
    assert says in str(error.value)


@pytest.mark.parametrize("text", ["listen", "store.quota=1", "=1", ""])
def test_a_flag_that_sets_nothing(text: str) -> None:
    with pytest.raises(LocalError, match="--set"):
        set_flag(text)


@pytest.mark.parametrize("text", ["listen", "store.quota=1", "store.quota_bytes=x"])
def test_one_that_sets_nothing_is_wrong_usage(tmp_path: Path, text: str) -> None:
    ran = CliRunner().invoke(enticed, ["--state", str(tmp_path), "--set", text])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "--set" in ran.stderr.splitlines()[-1]


def test_no_quota_is_shown_as_it_is_written() -> None:
    assert {"key": "store.quota_bytes", "value": 0, "origin": "default"} in Configured(Config(Path("/s")), {}).table()


def test_every_setting_has_a_variable_and_is_shown_as_it_is_read(tmp_path: Path) -> None:
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)
    assert {setting.field for setting in SETTINGS} | {"state_dir"} == set(Config.__slots__)
    everything = {
        "listen": ["10.0.0.1:1"], "api_listen": "10.0.0.1:2", "advertise": ["10.0.0.2:1", "[fd00::1]:1"],
        "dial_networks": ["10.0.0.0/8"], "bootstrap": ["10.0.0.3:1"], "socket": "/run/x", "socket_group": "x",
        "metrics_listen": "127.0.0.1:7402", "content_listen": "127.0.0.1:7403",
        "log_level": "debug", "origin": "s3://images/prod", "origin_endpoint": "https://s3.example:9000",
        "store.quota_bytes": 5, "store.reserve_bytes": 6, "store.high_percent": 70, "store.low_percent": 60,
        "store.guest_directories": ["/var/lib/guests"], "rates.up_bytes_per_s": 1_000_000,
        "rates.down_bytes_per_s": 2_000_000, "rates.write_bytes_per_s": 3_000_000, "rates.lower_effort": True,
    }  # fmt: skip
    configured = Configured(Config(tmp_path), {})
    for key, value in everything.items():
        configured = configured.with_value("test", key, value)
    assert {one["key"]: one["value"] for one in configured.table()} == everything


DEEP = st.integers(0, 5000).map(lambda deep: "a = " + "[" * deep)


LONG = st.integers(4000, 9000).map(lambda digits: "a = " + "3" * digits)
"""Beyond 4,300 digits Python makes no number of them."""


@given(st.text(st.characters(max_codepoint=255)) | DEEP | LONG)
def test_any_file_is_taken_or_refused_with_its_name(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "enticed.toml"
        file.write_text(text, encoding="latin-1")
        said = refusal(Sources(Path(directory) / "state", file).load)
        assert not said or said.startswith(f"{file}: ")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


VARIABLES = st.text(string.ascii_uppercase + "_", max_size=20).map("ENTICED_".__add__)


def refusal(load: Callable[[], Configured]) -> str:
    """What is said of it; "" if it is taken. Any other exception fails the test."""
    try:
        load()
    except LocalError as error:
        return str(error)
    return ""


@given(st.sampled_from([setting.key for setting in SETTINGS]), VALUES)
def test_any_value_is_taken_or_refused_in_one_way(key: str, value: Any) -> None:
    start = Configured(Config(Path("/state")), {})
    said = refusal(lambda: start.with_value("x.toml", key, value))
    assert not said or said.startswith(f"x.toml: {key}: ")


@given(st.dictionaries(VARIABLES, st.text(max_size=30), min_size=1))
def test_any_environment_is_taken_or_refused(environment: dict[str, str]) -> None:
    said = refusal(Sources(Path("/nowhere"), environment=environment).load)
    assert not said or any(name in said for name in environment)


# --- taking up a changed configuration ---


def live(directory: Path, text: str, **more: Any) -> tuple[LiveSettings, Path]:
    file = written(directory, "enticed.toml", text)
    sources = Sources(directory / "state", file, **more)
    return LiveSettings(sources.load(), sources), file


def test_a_reload_takes_up_what_somebody_follows_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    settings, file = live(tmp_path, 'listen = "10.0.0.1:1"\n[store]\nquota_bytes = 1\nreserve_bytes = 1\n')
    taken: list[Config] = []
    settings.on_change(taken.append, "store.quota_bytes", "store.reserve_bytes")

    async def test() -> None:
        file.write_text('listen = "10.0.0.1:2"\n[store]\nquota_bytes = 2\nreserve_bytes = 2\n')
        reloaded = await settings.reload()
        assert [(one.key, one.old, one.new) for one in reloaded.applied] == [
            ("store.quota_bytes", 1, 2),
            ("store.reserve_bytes", 1, 2),
        ]
        assert [(one.key, one.new, one.origin) for one in reloaded.restart] == [("listen", ["10.0.0.1:2"], str(file))]
        assert taken == [settings.config]
        assert (settings.config.quota_bytes, settings.config.listen) == (2, ("10.0.0.1:1",))
        again = await settings.reload()
        assert (again.applied, again.restart) == ((), reloaded.restart)

    asyncio.run(test())


def test_a_wrong_configuration_changes_nothing(tmp_path: Path) -> None:
    settings, file = live(tmp_path, "[store]\nquota_bytes = 1\n")
    settings.on_change(lambda _: pytest.fail("nothing has changed"), "store.quota_bytes", "log_level")
    before = settings.running
    file.write_text("[store]\nquota_bytes = 2\nreserve = 1\n")
    with pytest.raises(LocalError, match=r"did you mean 'store.reserve_bytes'\?; everything stays as it was"):
        asyncio.run(settings.reload())
    assert settings.running == before


def test_what_the_command_line_says_stays(tmp_path: Path) -> None:
    settings, file = live(tmp_path, "", flags=(set_flag(f"store.quota_bytes={GIB}"),))
    settings.on_change(lambda _: pytest.fail("nothing has changed"), "store.quota_bytes")
    file.write_text("[store]\nquota_bytes = 2\n")
    assert asyncio.run(settings.reload()).applied == ()
    assert settings.config.quota_bytes == GIB
