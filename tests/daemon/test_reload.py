"""A real daemon reads its settings again: asked to, and at SIGHUP."""

from __future__ import annotations

import signal

import pytest

from simnet.testbed import DEFAULT_SETTINGS, Testbed
from simnet.testbed.disks import MIB
from tests.daemon.pulls import is_one_line, new_disk

pytestmark = pytest.mark.slow


def test_settings_are_taken_up_while_it_runs() -> None:
    with Testbed() as testbed:
        founder = testbed.found()
        file = founder.directory / "settings.toml"
        assert founder.json("config", "show")["files_differ"] == []

        file.write_text(f"{DEFAULT_SETTINGS}quota_bytes = {MIB}\n")
        (differing,) = founder.json("config", "show")["files_differ"]
        assert (differing["key"], differing["value"]) == ("store.quota_bytes", MIB)
        reloaded = founder.json("reload")
        assert [(one["key"], one["new"]) for one in reloaded["applied"]] == [("store.quota_bytes", MIB)]
        disk = new_disk(testbed, "large.raw", 8, seed=31)
        refused = founder.entice("publish", disk, "large:1")
        assert is_one_line(refused), refused
        assert "store.quota_bytes: raise it" in refused.stderr

        file.write_text("quota = 1\n")
        assert founder.entice("reload").exit_code == 1
        assert founder.control.get("/v1/status")["quota_bytes"] == MIB

        file.write_text(f"log_level = 'debug'\napi_listen = '127.0.0.1:1'\n{DEFAULT_SETTINGS}")
        process = founder.process
        assert process is not None
        process.send_signal(signal.SIGHUP)
        while founder.control.get("/v1/status")["quota_bytes"] is not None:
            pass  # each look is a request that the daemon answers
        founder.json("publish", disk, "large:1")
        assert "api_listen is still None: '127.0.0.1:1'" in founder.log
        assert [one["key"] for one in founder.json("reload")["restart"]] == ["api_listen"]
