"""What the log says of publications: which image has the name, why it was not published, or that it was given up."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from enticed.engine.port import Publication
from protocol.errors import DeniedError
from protocol.limits import MIB
from tests.engine.swarm import disk, publish, run, swarm

LOGGER = "enticed.engine.engine"


def test_what_became_of_a_publication_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)

    def told() -> list[tuple[str, str]]:
        return [(one.levelname, one.getMessage()) for one in caplog.records if one.name == LOGGER]

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            done = await publish(founder, disk(1, 4), "a:1", tmp_path)
            ((level, line),) = told()
            assert level == "INFO"
            sizes = f"{done.data_bytes} bytes of data, {done.new_bytes} of them new"
            assert line == f"published a:1: image {done.image}, {sizes}, in {done.seconds:.1f} s"
            (record,) = [one for one in caplog.records if one.name == LOGGER]
            assert record.image == done.image  # type: ignore[attr-defined]

            with pytest.raises(DeniedError) as denied:
                await publish(host, disk(2, 4), "b:1", tmp_path)
            assert told()[1:] == [("WARNING", f"b:1 was not published: {denied.value}")]

            fd = os.open(tmp_path / "source.raw", os.O_RDONLY)
            work = asyncio.create_task(founder.publish(Publication(fd, "c:1", 4 * MIB), lambda done, total: None))
            await asyncio.sleep(0)  # it has begun
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            os.close(fd)
            assert told()[2:] == [("INFO", "the publication of c:1 was given up")]

    run(main())
