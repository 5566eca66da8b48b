"""Where fragments of an image lie in others is known while it is pulled, and no longer."""

from __future__ import annotations

from pathlib import Path

from protocol.identifiers import ImageId
from tests.engine.swarm import changed, disk, publish, pull, run, swarm


def test_what_is_on_hand_for_an_image_is_forgotten_once_it_is_gone_or_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=1, size_mib=4)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, "a:1", tmp_path)
            await pull(host, "a:1")
            image = (await publish(publisher, changed(content, seed=2, blocks=8), "a:2", tmp_path)).image
            stockroom, store = host.parts.stockroom, host.parts.store
            manifest = await host.parts.planning.fetch_manifest(image)

            async def take_stock() -> None:
                """As for a pull that is cancelled right after it."""
                stockroom.expect(manifest.root, manifest.pages, manifest.statements)
                await stockroom._reserve(image)
                assert found(image) > 0

            def found(image: ImageId) -> int:
                return int(stockroom._opening.found(image, len(manifest.fragments)).sum())

            await take_stock()
            await host.remove(str(image))
            assert image not in {stored.image for stored in store.images()}
            assert found(image) == 0
            await take_stock()
            stockroom.tell_on_hand(store.image(image))
            assert found(image) > 0, "some of it is missing yet"
            await pull(host, "a:2", key="second")
            assert found(image) == 0
            stockroom._opening.take_stock(image, manifest.fragments)
            stockroom.tell_on_hand(store.image(image))
            assert found(image) == 0, "it is whole"

    run(scenario())
