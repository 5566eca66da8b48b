"""Real clusters for tests: keys, certificates and files as `entice init` and `entice join` make them, no network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity, HostKeys, found_cluster, identity_files, load_identity, new_identity
from protocol.enrolment import request_certificate
from protocol.labels import HostLabel
from protocol.token import parse_token


def make_cluster(
    tmp_dir: Path,
    hosts: int = 3,
    zones: Sequence[str] | None = None,
    racks: Sequence[str] | None = None,
    clock: Callable[[], float] = time.time,
) -> list[HostIdentity]:
    """Found a cluster and enrol the others. The state of host n is `tmp_dir/host<n>`; host 0 is the founder."""
    zones, racks = zones or [""] * hosts, racks or [""] * hosts
    founder = found_cluster(state_dir(tmp_dir, 0), zones[0], racks[0], clock())
    authority = Authority.load(state_dir(tmp_dir, 0), clock)
    others = [enrol(authority, state_dir(tmp_dir, n), zones[n], racks[n]) for n in range(1, hosts)]
    return [founder, *others]


def state_dir(tmp_dir: Path, host: int) -> Path:
    return tmp_dir / f"host{host}"


def enrol(
    authority: Authority,
    state: Path,
    zone: str = "",
    rack: str = "",
    labels: Sequence[HostLabel] = (),
    *,
    may_dispatch: bool = False,
) -> HostIdentity:
    """Enrol one more host, whose state is to be in `state`."""
    token, keys = parse_token(authority.issue_token("127.0.0.1:1", may_dispatch=may_dispatch)), HostKeys.generate()
    request = request_certificate(keys.node, keys.sealing_key)
    given = authority.enrol(token.token, token.secret, request, zone, rack, tuple(labels))
    with new_identity(state) as draft:
        draft.publish(identity_files(keys, given.certificate, given.authority, given.trust, ()))
    return load_identity(state)
