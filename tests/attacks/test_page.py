"""docs/security.md says no more and no less than there is: every test of it, every listener, route and message."""

from __future__ import annotations

import re

from enticed.config import SETTINGS
from protocol.datagram import Kind
from protocol.dht import DHT
from protocol.messages import BULK, CONTROL
from tests.attacks import page
from tests.project.imports import ROOT


def defined_tests() -> set[str]:
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return set(re.findall(r"^(?:async )?def (test_\w+)", sources, re.MULTILINE))


def test_every_threat_names_tests_that_exist() -> None:
    threats = page.table("threat", "mechanism", "test")
    assert len(threats) >= 30
    for threat, mechanism, tests in threats:
        assert mechanism
        assert page.tests_of(tests), f"no test attacks: {threat}"
    assert page.tests_named() - defined_tests() == set()


def test_every_finding_of_the_audit_has_its_answer() -> None:
    findings = page.table("finding", "what it was", "what this project does instead", "test")
    assert [cells[0] for cells in findings] == [f"TOB-DF2-{number}" for number in range(1, 20)]
    for name, what, answer, tests in findings:
        assert what
        assert answer
        assert page.tests_of(tests), name


def test_every_listener_stands_on_the_page() -> None:
    """Whatever is configured as an address to listen on, or as the socket."""
    settings = {setting.key for setting in SETTINGS if setting.key == "socket" or setting.key.endswith("listen")}
    assert page.listeners() == settings


def test_every_message_stands_on_the_page() -> None:
    for channel, words in (("control", CONTROL), ("bulk", BULK), ("dht", DHT)):
        assert page.messages(channel) == [kind.__name__ for kind in words.messages.values()], channel
    assert page.messages("datagram") == [kind.name for kind in Kind]
