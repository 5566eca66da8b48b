"""A run as one page: its configuration, its figures beside their goals, its plots; and the plots as PNGs beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from protocol.errors import LocalError
from simnet.trace import Trace

if TYPE_CHECKING:
    from simnet.plots import Plot

PAGE = "report.html"
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ background: #f5f5f5; padding: 0.7rem; white-space: pre-wrap }}
figure {{ margin: 2rem 0 }}
figcaption {{ font-weight: 600 }}
svg {{ max-width: 100%; height: auto }}
</style>
</head>
<body>
<h1>{title}</h1>
"""


def prepare(directory: Path) -> None:
    """To be called before the run, since that may take long: `LocalError` where no report can be written."""
    if find_spec("matplotlib") is None:
        raise LocalError("a report needs matplotlib: pip install 'enticed[report]'")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise LocalError(f"{directory}: no report can be written there: {error.strerror or error}") from error


def write(directory: Path, title: str, configuration: Iterable[str], figures: Iterable[str], trace: Trace) -> Path:
    """The page's path; `prepare` was called before. `LocalError` where it cannot be written."""
    from simnet.plots import plots_of

    def page(plots: Sequence[Plot]) -> str:
        parts = [HEAD.format(title=escape(title))]
        parts += [f"<h2>{name}</h2>\n{_lines(lines)}\n" for name, lines in sections]
        parts += [f"<figure><figcaption>{escape(one.title)}</figcaption>\n{one.svg}</figure>\n" for one in plots]
        return "".join([*parts, "</body>\n</html>\n"])

    sections = (("Configuration", configuration), ("What it came to", figures))
    plots = plots_of(trace)
    path = directory / PAGE
    try:
        for plot in plots:
            (directory / f"{plot.name}.png").write_bytes(plot.png)
        path.write_text(page(plots), encoding="utf-8")
    except OSError as error:
        raise LocalError(f"{directory}: {error.strerror or error}") from error
    return path


def write_plot(directory: Path, plot: Plot) -> Path:
    """One plot on its own, as SVG and as PNG; the path of the first. `LocalError` where it cannot be written."""
    path = directory / f"{plot.name}.svg"
    try:
        path.write_text(plot.svg, encoding="utf-8")
        path.with_suffix(".png").write_bytes(plot.png)
    except OSError as error:
        raise LocalError(f"{directory}: {error.strerror or error}") from error
    return path


def _lines(lines: Iterable[str]) -> str:
    return f"<pre>{escape(chr(10).join(lines))}</pre>"
