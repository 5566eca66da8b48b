"""The trust desk: which hosts have a certificate, as the founding host knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import DeniedError
from tests.engine.swarm import run, swarm


def test_the_founding_host_lists_those_with_a_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 3) as (founder, one, other):
            listed = await founder.trust.hosts()
            assert [host.node for host in listed] == [engine.status().node for engine in (founder, one, other)]
            assert [host.behind for host in listed] == [False] * 3
            assert listed[1].expires_at == one.parts.identity.credential.not_after

            await founder.trust.revoke(str(other.status().node))
            left = await founder.trust.hosts()
            assert left == listed[:2]
            view = await founder.trust.view()
            assert view.certified is not None
            assert view.certified.hosts == len(left)

            with pytest.raises(DeniedError, match="only the founding host knows"):
                await one.trust.hosts()

    run(main())
