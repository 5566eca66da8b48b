"""The example scripts: their shells can read them, and what they say of our commands and calls is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from enticed.cli.main import COMMANDS
from enticed.control.fields import parse_campaign, parse_order
from tests.project.imports import ROOT

SCRIPTS = sorted((ROOT / "examples" / "prewarm").iterdir())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_shell_can_read_it(script: Path) -> None:
    text = script.read_text()
    shell = text.splitlines()[0].removeprefix("#!")
    assert os.access(script, os.X_OK)
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for inner in re.findall(r"<<'REMOTE'\n(.*?)\nREMOTE", text, re.DOTALL):
        done = subprocess.run(["bash", "-n"], input=inner, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_what_it_sends_is_what_is_taken(script: Path) -> None:
    text = script.read_text()
    for body in re.findall(r'"(\{\\".*?\})"', text):
        filled = re.sub(r"\$digest", "ab" * 64, body.replace('\\"', '"'))
        values = json.loads(re.sub(r"\$\w+", "1", filled))
        (parse_campaign if "/v1/campaigns/" in text else parse_order)(values)
    for command in re.findall(r"^[^#]*\bentice (?:--json )?(\w+)", text, re.MULTILINE):
        assert command in COMMANDS


def test_a_call_says_who_calls(tmp_path: Path) -> None:
    """With a curl that only tells how it was called."""
    (tmp_path / "curl").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "curl").chmod(0o755)
    script = ROOT / "examples" / "prewarm" / "openstack-instance-order"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "ENTICED_API": "https://10.0.0.1:7401", "ENTICED_CERTS": "/certs",
        "ENTICED_NAME": "nova",
    }  # fmt: skip
    done = subprocess.run(
        [script, "compute-7", "some-uuid", "ab" * 64], env=environment, capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    assert said[-1] == "https://10.0.0.1:7401/v1/campaigns/nova-some-uuid"
    assert said[said.index("--cert") + 1] == "/certs/nova.crt"
    assert parse_campaign(json.loads(said[said.index("--data") + 1])).hosts == ("compute-7",)
