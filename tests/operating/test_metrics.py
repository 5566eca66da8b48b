"""What `/metrics` writes is read by Prometheus' own parser, and keeps the promises that monitoring relies on."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from enticed.core.orders import Failure
from enticed.histogram import SECONDS, Histogram
from enticed.operating import health, metrics
from enticed.operating.exposition import Family, Sample, exposition, gauge, histogram
from tests.engine.swarm import disk, publish, pull, swarm
from tests.project.imports import ROOT

UNITS = ("_bytes", "_seconds", "_total", "_info")
COUNTS = {
    "enticed_orders", "enticed_orders_failed", "enticed_orders_late", "enticed_peers", "enticed_uploads",
    "enticed_images", "enticed_images_below_floor", "enticed_dht_contacts", "enticed_dht_records",
    "enticed_trust_serial", "enticed_tasks", "enticed_couriers",
    "enticed_process_open_fds", "enticed_process_max_fds", "enticed_store_doubted_pieces",
    "enticed_degraded", "enticed_disowned", "enticed_revoked", "enticed_certificate_renewal_failures",
}  # fmt: skip
"""Metrics that count things and so have no unit."""
LABELS = {"le", "state", "failure", "source", "reason", "fault", "direction", "version", "python"}
"""Each has few values, and the same ones on every host."""


def parsed(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = parsed(text).values()
    return {
        (sample.name, tuple(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_a_real_swarm_is_measured_as_prometheus_wants_it(tmp_path: Path) -> None:
    async def run() -> tuple[str, str, list[Family]]:
        async with swarm(tmp_path, 2) as (publisher, host):
            await publish(publisher, disk(1, 4), "a:1", tmp_path)
            assert (await pull(host, "a:1")).failure is None
            assert (await pull(host, "misspelt:1", key="other")).failure is Failure.NOT_FOUND
            found = list(metrics.families(host, host.parts))
            assert [check for check in health.checks(host.parts) if not check.is_ok] == []
            return exposition(found), exposition(metrics.families(publisher, publisher.parts)), found

    text, of_publisher, found = asyncio.run(run())
    families = parsed(text)
    assert len(families) == len(found)
    for family in found:
        assert re.fullmatch(r"enticed_[a-z_]+", family.name)
        assert family.name in COUNTS or family.name.endswith(UNITS), family.name
        assert (family.kind == "counter") == family.name.endswith("_total")
        assert family.about.endswith(".")
        assert {label for sample in family.samples for label in sample.labels} <= LABELS
        assert families[family.name.removesuffix("_total")].type == family.kind
    seen, sent = values(text), values(of_publisher)
    received_bytes = seen["enticed_received_bytes_total", (("source", "peers"),)]
    assert received_bytes == 3 << 20
    assert sent["enticed_sent_bytes_total", ()] >= received_bytes
    assert seen["enticed_orders", (("state", "ready"),)] == 1
    assert {why: seen["enticed_order_failures_total", (("failure", why),)] for why in Failure} == {
        why: why is Failure.NOT_FOUND for why in Failure
    }
    assert seen["enticed_orders_late", ()] == 0
    assert seen["enticed_images", (("state", "whole"),)] == 1
    assert seen["enticed_dht_contacts", ()] == 1
    assert seen["enticed_store_sync_seconds_count", ()] >= 1
    assert seen["enticed_dht_lookup_seconds_count", ()] >= 1


def test_every_metric_is_explained_to_operators() -> None:
    """Where people look at 3 a.m.; and nothing there is gone from here."""
    source = (ROOT / "enticed" / "operating" / "metrics.py").read_text()
    explained = set(re.findall(r"`(enticed_[a-z_]+)`", (ROOT / "docs" / "operating.md").read_text()))
    assert explained == set(re.findall(r'"(enticed_[a-z_]+)"', source))


def test_the_example_alerts_are_about_metrics_that_there_are() -> None:
    document = (ROOT / "docs" / "operating.md").read_text()
    (rules,) = (block for block in re.findall(r"```yaml\n(.*?)```", document, re.DOTALL) if block.startswith("groups:"))
    assert rules.count("- alert: ") == rules.count(" expr: ") == rules.count(" annotations: ") > 5
    used = set(re.findall(r"enticed_[a-z_]+", rules))
    assert {name.removesuffix("_bucket") for name in used} <= set(re.findall(r"`(enticed_[a-z_]+)`", document))


LABEL_VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r"))


ABOUT = st.text(st.characters(codec="ascii", exclude_categories=["C"]))


@given(ABOUT, st.dictionaries(st.sampled_from("abc"), LABEL_VALUES), st.floats(allow_nan=False))
def test_anything_is_read_as_it_was_meant(about: str, labels: dict[str, str], value: float) -> None:
    text = exposition([Family("enticed_x", "gauge", about, (Sample("", labels, value),))])
    (sample,) = parsed(text)["enticed_x"].samples
    assert (sample.labels, sample.value) == (labels, value)


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_adds_up(seconds: list[float]) -> None:
    seen = Histogram()
    for value in seconds:
        seen.observe(value)
    found = values(exposition([histogram("enticed_x_seconds", "x", seen.look())]))
    for bound in SECONDS:
        assert found["enticed_x_seconds_bucket", (("le", str(bound)),)] == sum(value <= bound for value in seconds)
    assert found["enticed_x_seconds_bucket", (("le", "+Inf"),)] == len(seconds)
    assert found["enticed_x_seconds_count", ()] == len(seconds)
    assert math.isclose(found["enticed_x_seconds_sum", ()], sum(seconds), abs_tol=1e-9)


def test_a_gauge_with_labels() -> None:
    text = exposition([gauge("enticed_build_info", 'What "runs"\\here.', 1, version="1.0")])
    assert text == (
        '# HELP enticed_build_info What "runs"\\\\here.\n'
        "# TYPE enticed_build_info gauge\n"
        'enticed_build_info{version="1.0"} 1\n'
    )
