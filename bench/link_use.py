"""How well a simulated swarm uses its links: what hosts receive and send, and seeds send, of what their links carry.

A line for each half second. Where all links could be full and are not, it tells whether some uplinks are idle while
others are full (`spread` is the standard deviation), and how much each host has asked for and not got.

python bench/link_use.py racks --hosts 160 --size-mib 2048
python bench/link_use.py own.toml --every 0.25 --seconds 5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from numpy.typing import NDArray

from protocol.limits import MIB
from simnet.host import SimHost
from simnet.scenario_files import load
from simnet.stage import Stage, build

Figures = NDArray[np.float64]
HEAD = """\
          received      sent by hosts     sent by  under way    pieces
seconds    by each  each spread  most       seeds    in MiB  under way  ready"""


def lines(stage: Stage, every_s: float) -> Iterator[str]:
    """Until all are ready. Shares of what links carry; bytes count once all of a request has come. Per host: what it
    has asked for and not got, and pieces of which that is some."""
    hosts, seeds = stage.hosts_of("hosts"), stage.sources
    down_bytes = np.array([host.link.down for host in hosts]) * every_s
    up_bytes = np.array([host.link.bytes_per_s for host in hosts]) * every_s
    seeds_up_bytes = sum(seed.link.bytes_per_s for seed in seeds) * every_s
    received, sent, seeds_sent, at_s = received_by(hosts), sent_by(hosts), sent_by(seeds), 0.0
    while not all(host.ready_at for host in hosts):
        stage.world.let_pass(every_s)
        at_s += every_s
        came, went, seeds_went = received_by(hosts), sent_by(hosts), sent_by(seeds)
        use = (went - sent) / up_bytes
        under_way_bytes = sum(asked.run.size_bytes for host in hosts for asked in host.core.books.requests)
        pieces = sum(len(pull.outstanding) for host in hosts for pull in host.core.books.pulls.values())
        yield (
            f"{at_s:7.2f} {((came - received) / down_bytes).mean():10.2f} {use.mean():5.2f} {use.std():6.2f}"
            f" {use.max():5.2f} {(seeds_went - seeds_sent).sum() / seeds_up_bytes:11.2f}"
            f" {under_way_bytes / MIB / len(hosts):9.0f} {pieces / len(hosts):10.1f}"
            f" {sum(bool(host.ready_at) for host in hosts):6d}"
        )
        received, sent, seeds_sent = came, went, seeds_went


def received_by(hosts: list[SimHost]) -> Figures:
    return np.array([host.received_bytes for host in hosts], float)


def sent_by(hosts: list[SimHost]) -> Figures:
    return np.array([host.sent_bytes for host in hosts], float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", help="one that ships, or a file; its group `hosts` is looked at")
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--size-mib", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--every", type=float, default=0.5, help="seconds of simulated time")
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated, at the most")
    options = parser.parse_args()
    stage = build(load(options.scenario).resized(options.hosts, options.size_mib, options.seed))
    print(HEAD)
    for number, line in enumerate(lines(stage, options.every), 1):
        print(line, flush=True)
        if number * options.every >= options.seconds:
            return


if __name__ == "__main__":
    main()
