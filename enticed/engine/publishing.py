"""Publishing: a descriptor becomes an image in the store, a statement and a name signed by this cluster's publisher."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from enticed.engine.driver import Driver
from enticed.engine.names.naming import Naming
from enticed.engine.port import Progressed, Publication, Published
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.discovery import Discovery
from enticed.engine.threads import to_its_end
from enticed.engine.trust.groups import Groups
from enticed.identity.publisher import NO_KEY, Publisher
from enticed.image.decompose import Decomposition, decompose
from enticed.image.faults import AbandonedError
from enticed.image.source import data_extents, inspect
from enticed.limits import PROGRESS_INTERVAL_S
from enticed.reflink import clone_file
from enticed.store.store import Store
from protocol.errors import AbsentError, DeniedError, LocalError
from protocol.group import GroupId, Privacy
from protocol.identifiers import ImageId
from protocol.limits import STATEMENT_MAX_RELATIVES
from protocol.manifest import Fragments, encode_manifest
from protocol.statement import Digests, Relative, Sha256, Sha512, Statement


@dataclass(frozen=True, slots=True)
class _Imported:
    """What importing found out, for the caller."""

    statement: Statement
    fragments: int
    new_bytes: int
    has_its_group: bool
    """Whether the group that it was published for, if any, stands beside it."""


class Publishing:
    """Images are imported one after another: each takes all the disk and processors that publishing may have."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        stockroom: Stockroom,
        discovery: Discovery,
        naming: Naming,
        publisher: Publisher | None,
        groups: Groups,
    ) -> None:
        self._groups = groups
        self._driver = driver
        self._store = store
        self._stockroom = stockroom
        self._discovery = discovery
        self._naming = naming
        self._publisher = publisher
        self._turn = asyncio.Lock()

    async def publish(self, what: Publication, progressed: Progressed) -> Published:
        """As `Engine.publish`. Cancelled while it is read, nothing of the image stays; after that the image does, whole
        and without its name."""
        started = time.monotonic()
        if self._publisher is None:
            raise DeniedError(NO_KEY)
        publisher = self._publisher
        name = self._naming.checked(what.name)
        self._naming.require_publisher(publisher, name)
        relatives = self._relatives(what, name)
        group = None if what.private is None else self._groups.named(what.private)
        async with self._turn:
            imported = await self._in_thread(what, relatives, group, publisher, progressed)
        statement, image = imported.statement, imported.statement.image
        await self._discovery.announced(image, self._stockroom.group(image))
        version = await self._naming.publish(publisher, name, image)
        for digest_name in statement.digests.names if statement.digests else ():
            if not self._naming.may_publish(publisher, digest_name):
                continue  # a digest is a name like others: whoever may sign only some, need not be able to sign it
            await self._naming.publish(publisher, digest_name, image)
        return Published(
            image,
            name,
            version,
            statement.virtual_size_bytes,
            statement.data_bytes,
            imported.fragments,
            imported.new_bytes,
            time.monotonic() - started,
            self._naming.signatures_needed,
        )

    def _relatives(self, what: Publication, name: str) -> tuple[ImageId, ...]:
        """Images of this store to compare with: those named, or what the name meant before."""
        if what.relatives is not None:
            named = tuple(self._naming.known(relative) for relative in what.relatives)
            for image in named:
                self._store.image(image)
            return named
        try:
            earlier = self._naming.known(name)
            # The relatives of a relative are likely ones too: an image published again and again keeps its ancestors.
            ancestors = [relative.image for relative in self._stockroom.statement(earlier).relatives]
        except AbsentError:
            return ()
        here = {stored.image for stored in self._store.images()}
        return tuple(dict.fromkeys(image for image in (earlier, *ancestors) if image in here))

    async def _in_thread(
        self,
        what: Publication,
        relatives: tuple[ImageId, ...],
        group: GroupId | None,
        publisher: Publisher,
        progressed: Progressed,
    ) -> _Imported:
        cancel, loop = threading.Event(), asyncio.get_running_loop()
        told_at = 0.0

        def progress(done_bytes: int, all_bytes: int) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= PROGRESS_INTERVAL_S or done_bytes == all_bytes:
                told_at = time.monotonic()
                loop.call_soon_threadsafe(progressed, done_bytes, all_bytes)

        # The caller may close its descriptor when it is cancelled; the thread's own lives as long as the thread needs.
        fd = os.dup(what.fd)

        async def work() -> _Imported:
            try:
                imported = await self._stockroom.room.within(
                    self._import, what, fd, relatives, group, publisher, cancel, progress
                )
            finally:
                os.close(fd)
            image = imported.statement.image
            self._stockroom.tell_on_hand(self._stockroom.image(image))
            if not imported.has_its_group:
                raise LocalError(f"image {image.short} is here with so many statements that none can be added")
            return imported

        return await to_its_end(work(), cancel.set)

    def _import(
        self,
        what: Publication,
        fd: int,
        relatives: tuple[ImageId, ...],
        group: GroupId | None,
        publisher: Publisher,
        cancel: threading.Event,
        progress: Callable[[int, int], None],
    ) -> _Imported:
        source = inspect(fd)
        if source.size_bytes == 0:
            raise LocalError("an empty file is no image")
        with self._store.begin_import(sum(end - start for start, end in data_extents(source))) as draft:
            if clone_file(fd, draft.raw_fd):
                # Blocks shared with the source: what is read from now on cannot change under us.
                source, sink = inspect(draft.raw_fd), None
            else:
                sink = draft.raw_fd
            found = decompose(source, sink, digests=what.digests, cancel=cancel, progress=progress)
            root, pages = encode_manifest(found.virtual_size_bytes, found.fragments)
            shared, new_bytes = self._compare(found.fragments, relatives, root.image_id)
            statement = Statement(
                root.image_id,
                root.virtual_size_bytes,
                root.total_data_bytes,
                what.source_format,
                what.verbatim,
                _digests(what, found),
                shared,
                int(self._driver.clock()),
            )
            envelopes = [publisher.sign_statement(statement)]
            if group is not None:
                envelopes.insert(0, publisher.sign_privacy(Privacy(root.image_id, group, statement.issued_at)))
            if cancel.is_set():
                raise AbandonedError("given up before it was kept")
            stored = draft.commit(root, pages, tuple(envelopes))
        return _Imported(statement, root.fragments, new_bytes, group is None or envelopes[0] in stored.statements)

    def _compare(
        self, fragments: Fragments, relatives: tuple[ImageId, ...], image: ImageId
    ) -> tuple[tuple[Relative, ...], int]:
        """What each relative shares with the image, most first, and the bytes that none of them has. The image itself,
        where it is published again, has all of them and is no relative."""
        sizes = fragments.sizes_bytes.astype(np.int64)
        new = np.ones(len(fragments), np.bool_)
        shared: list[Relative] = []
        for relative in relatives:
            found = self._store.find_on_hand(fragments, [relative]).found
            new &= ~found
            if relative != image and found.any():
                shared.append(Relative(relative, int(sizes[found].sum())))
        shared.sort(key=lambda one: -one.shared_bytes)
        return tuple(shared[:STATEMENT_MAX_RELATIVES]), int(sizes[new].sum())


def _digests(what: Publication, found: Decomposition) -> Digests | None:
    if found.content is None:
        return None
    return Digests(
        Sha256(found.content.sha256),
        Sha512(found.content.sha512),
        Sha256(what.source_sha256) if what.source_sha256 else None,
        Sha512(what.source_sha512) if what.source_sha512 else None,
    )
