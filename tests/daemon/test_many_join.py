"""Many hosts join with one token and one script, as an operator of hundreds lets them."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

import pytest

from simnet.testbed import ENTICE, Testbed
from tests.programs import need
from tests.project.imports import ROOT

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "scripts" / "enrol-host"
HOSTS = 12


def test_hosts_join_with_one_token_and_one_script(tmp_path: Path) -> None:
    entice = tmp_path / "entice"
    entice.write_text(f'#!/bin/sh\nexec {" ".join(ENTICE)} "$@"\n')
    entice.chmod(0o755)
    with Testbed() as testbed:
        token = tmp_path / "token"
        token.write_text(testbed.found().must("token", "--uses", str(HOSTS)))

        def enrol(number: int, file: Path = token) -> subprocess.Popen[str]:
            variables = {
                "PATH": f"{tmp_path}:/usr/bin:/bin:/usr/sbin:/sbin",
                "PYTHONPATH": str(ROOT),
                "ENROL_STATE": str(tmp_path / f"state{number}"),
                "ENROL_USER": getpass.getuser(),
                "ENROL_ADDRESS": f"127.0.0.{100 + number}",
                "ENROL_START": "echo started",
                "ENROL_TRIES": "1",
            }
            command: list[str | Path] = [
                need("sh"),
                SCRIPT,
                file,
                "east",
                f"r{number % 3}",
                "--label",
                f"role=compute{number}",
            ]
            pipe = subprocess.PIPE
            return subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)

        started = [enrol(number) for number in range(HOSTS)]
        ended = [(*one.communicate(timeout=100), one.returncode) for one in started]
        assert [(stderr, code) for _, stderr, code in ended] == [("", 0)] * HOSTS
        assert all("joined the cluster" in stdout and stdout.endswith("started\n") for stdout, _, _ in ended)
        assert (tmp_path / "state1" / "enticed.toml").read_text().endswith('listen = "127.0.0.101:7400"\n')

        # Again: nothing is done twice. One host too many: the token has no use left.
        assert enrol(0).communicate(timeout=60) == ("started\n", "")
        late = enrol(HOSTS)
        _, stderr = late.communicate(timeout=60)
        assert (late.returncode, stderr.count("\n")) == (6, 1)
        empty = tmp_path / "empty"
        empty.touch()
        nothing = enrol(HOSTS, empty)
        assert nothing.communicate(timeout=60)[1] == f"enrol-host: {empty} holds no token\n"
        assert nothing.returncode == 2
