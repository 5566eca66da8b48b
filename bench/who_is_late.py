"""Why some hosts of a large swarm are late: how many others each knows, asks, and is asked by.

`kraken` with fewer hosts, simulated for its first seconds. Everybody's link is the same, and everybody asks as many at
once. Correlations over all hosts, second by second: of what a host received with how many it knows, and with how many
ask those that it asks; and of these among each other.

python bench/who_is_late.py
python bench/who_is_late.py --hosts 600 --seconds 6
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from numpy.typing import NDArray

from enticed.core.image_book import PieceState
from protocol.identifiers import NodeId
from simnet.host import SimHost
from simnet.scenario_files import load
from simnet.stage import Stage, build

Figures = NDArray[np.float64]
HEAD = """\
                                                      correlations of
         received        knows   asks   asked by      received with          knows with
second   mean    sd   min  max   mean   min  max      knows   sources   asked by   sources"""


def pieces_here(hosts: list[SimHost]) -> Figures:
    books = [next(iter(host.core.books.images.values()), None) for host in hosts]
    here = (PieceState.WRITTEN, PieceState.DURABLE)
    return np.array([sum(book.counts[state] for state in here) if book else 0 for book in books], float)


def row(stage: Stage, second: int) -> str:
    """What a second came to; who asks whom is looked at in its middle."""
    hosts = stage.hosts_of("hosts")
    before = pieces_here(hosts)
    stage.world.let_pass(0.5)
    knows = np.array([len(host.core.books.peers) for host in hosts], float)
    asks = [tuple(host.core.books.requests.sources) for host in hosts]
    asked: Counter[NodeId] = Counter(node for sources in asks for node in sources)
    asked_by = np.array([asked[host.contact.node] for host in hosts], float)
    sources_asked_by = np.array([np.mean([asked[node] for node in sources] or [0]) for sources in asks])
    stage.world.let_pass(0.5)
    came = pieces_here(hosts) - before
    return (
        f"{second:6d} {came.mean():9.1f} {came.std():5.1f} {knows.min():5.0f} {knows.max():4.0f}"
        f" {np.mean([len(sources) for sources in asks]):6.1f} {asked_by.min():5.0f} {asked_by.max():4.0f}"
        f" {correlation(came, knows):12.2f} {correlation(came, sources_asked_by):8.2f}"
        f" {correlation(knows, asked_by):12.2f} {correlation(knows, sources_asked_by):8.2f}"
    )


def correlation(one: Figures, other: Figures) -> float:
    return float(np.corrcoef(one, other)[0, 1]) if one.std() and other.std() else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=5, help="simulated")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    stage = build(replace(load("kraken"), hosts=options.hosts, seed=options.seed))
    print(f"kraken with {options.hosts} hosts, seed {options.seed}")
    print(HEAD)
    for second in range(1, options.seconds + 1):
        print(row(stage, second), flush=True)


if __name__ == "__main__":
    main()
