"""Prometheus' text format (0.0.4), written: https://prometheus.io/docs/instrumenting/exposition_formats/"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from enticed.histogram import Observed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    suffix: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. kind: counter, gauge or histogram. about: one line for people."""

    name: str
    kind: str
    about: str
    samples: tuple[Sample, ...]


def gauge(name: str, about: str, value: float, **labels: str) -> Family:
    return Family(name, "gauge", about, (Sample("", labels, value),))


def counter(name: str, about: str, value: float) -> Family:
    return Family(name, "counter", about, (Sample("", {}, value),))


def by(family: Family, label: str, values: Mapping[str, float]) -> Family:
    """The same with one sample for each value of a label, of which there are few and always the same."""
    samples = tuple(Sample("", {label: name}, value) for name, value in values.items())
    return Family(family.name, family.kind, family.about, samples)


def histogram(name: str, about: str, seen: Observed) -> Family:
    running = list(accumulate(seen.counts))
    bounds = [*map(str, seen.bounds), "+Inf"]
    buckets = (Sample("_bucket", {"le": bound}, count) for bound, count in zip(bounds, running, strict=True))
    return Family(
        name, "histogram", about, (*buckets, Sample("_sum", {}, seen.total), Sample("_count", {}, running[-1]))
    )


def exposition(families: Iterable[Family]) -> str:
    return "".join(line for family in families for line in _lines(family))


def _lines(family: Family) -> Iterable[str]:
    yield f"# HELP {family.name} {_escaped(family.about)}\n"
    yield f"# TYPE {family.name} {family.kind}\n"
    for sample in family.samples:
        labels = ",".join(f'{name}="{_escaped(value, quote=True)}"' for name, value in sample.labels.items())
        yield f"{family.name}{sample.suffix}{'{' + labels + '}' if labels else ''} {_number(sample.value)}\n"


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text


def _number(value: float) -> str:
    if math.isinf(value) or math.isnan(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
