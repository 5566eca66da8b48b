"""Why an order does not go on, in one line for people: which piece, who was asked, what each of them answered."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from enticed.core.books import Books
from enticed.core.image_book import PieceState
from enticed.core.orders import Order, OrderState
from enticed.core.progress import read_whole
from enticed.core.pulls import Pull
from enticed.core.vocabulary import ORIGIN, name_of
from protocol.identifiers import NodeId

LISTED_MAX_COUNT = 5
"""Hosts, or ranges of pieces, that a line names; of the rest it says how many there are."""

QUIET_S = 5.0
"""Where those who were asked have sent nothing for so long, a line says so."""


def why(books: Books, order: Order, now: float) -> str:
    """What an order waits for, failed for, or is doing."""
    pull = books.pulls.get(order.image) if order.image is not None else None
    disk = books.disk
    pause = disk.unnoted.get(order.key) if order.image is None else disk.paused.get(order.image)
    if order.state is OrderState.READY:
        return "all of it is here"
    if order.ended:
        return order.reason or f"it is {order.state}"
    if order.state is OrderState.PAUSED and pause is not None:
        wait = "until a probe works" if disk.degraded else f"for {max(0.0, pause.until - now):.0f} s more"
        return f"it waits for this host's disk, {wait}: {pause.reason}"
    if pull is None:
        return f"it is being found out what {order.target} means"
    match pull.stage:
        case OrderState.RESOLVING:
            return _why_no_manifest(books, pull, now)
        case OrderState.FETCHING:
            return _why_not_all(books, pull, now)
        case OrderState.VERIFYING:
            return "all has come, and is being written to the disk for good"
        case _:
            return "space is being reserved, and what local images have of it is counted"


def _why_no_manifest(books: Books, pull: Pull, now: float) -> str:
    if pull.manifest_from is not None:
        return f"its manifest was asked of {name_of(pull.manifest_from)} {now - pull.manifest_asked_at:.0f} s ago"
    return pull.denied or f"no manifest yet; {asked_of(books, pull)}"


def _why_not_all(books: Books, pull: Pull, now: float) -> str:
    book = books.images[pull.image]
    read = read_whole(book, pull)
    missing = np.flatnonzero((book.state < PieceState.WRITTEN) & (pull.missing_bytes > 0) & ~read)
    to_last = f"once readers have waited for nothing for {books.policy.readers_quiet_s:.0f} s"
    if not len(missing):
        if read.any():
            return "all has come, and is being written to the disk for good"
        return "what is missing is in local images, and is being cloned"
    holders = pull.availability.rarity[missing]
    rarest = int(missing[np.argmin(holders)])
    share = f"{len(missing)} of {book.pieces} pieces are missing"
    if read.any():
        share += f" ({read.sum()} more have come for readers, and are written to the disk for good {to_last})"
    sources = {one.node for one in books.requests.of_image(pull.image)}
    if sources and holders.min():
        asked = f"{share}: some were asked of {names_of(sources)}"
        quiet_s = _quiet_s(books, sources, now)
        return f"it goes on, {asked}" if quiet_s < QUIET_S else f"{asked}, of whom nothing has come for {quiet_s:.0f} s"
    return f"{share}, piece {rarest} is with {holders.min()} of those who were asked; {asked_of(books, pull, rarest)}"


def _quiet_s(books: Books, sources: set[NodeId], now: float) -> float:
    """For how long none of them has answered."""
    peers = [books.source(node) for node in sources]
    waited = [now - one.waited_for_since for one in peers if one is not None and one.waited_for_since is not None]
    return min(waited, default=0.0)


def asked_of(books: Books, pull: Pull, piece: int | None = None) -> str:
    """Who was asked for an image, or for what of this piece, and what each answered."""
    nodes = sorted(pull.asked)
    told = (f"{name_of(node)} ({_answer(books, pull, node, piece)})" for node in nodes[:LISTED_MAX_COUNT])
    return f"asked: {listed(told, len(nodes))}"


def _answer(books: Books, pull: Pull, node: NodeId, piece: int | None) -> str:
    said = pull.answers.get(node, "")
    if node in pull.charged:
        return "sent corrupt bytes"
    if node == ORIGIN:
        return said or "has not answered"
    if node not in books.peers:
        return "is being dialled" if node in books.dialling else said or "is not connected"
    if node not in pull.availability:
        return said or "has not answered"
    if piece is None:
        return said or "has some of it"
    has_it = bool(pull.availability.held_by_any([node]) >> piece & 1)
    return (said or "has it") if has_it else "has not got it"


def listed(texts: Iterable[str], in_all: int | None = None) -> str:
    """Some texts in a line; in_all: how many there would be, where `texts` are the first of them."""
    shown = list(texts)
    more = (len(shown) if in_all is None else in_all) - LISTED_MAX_COUNT
    return ", ".join(shown[:LISTED_MAX_COUNT]) + (f" and {more} more" if more > 0 else "") or "nobody"


def names_of(nodes: set[NodeId]) -> str:
    """Nodes for people, a few of them."""
    return listed(sorted(map(name_of, nodes)))


def ranges_of(pieces: NDArray[np.int64]) -> str:
    """`3-7, 9, 12-14` and so on, a few of them."""
    breaks = np.flatnonzero(np.diff(pieces) > 1)
    firsts = pieces[np.concatenate(([0], breaks + 1))].tolist()
    lasts = pieces[np.concatenate((breaks, [len(pieces) - 1]))].tolist()
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in zip(firsts, lasts, strict=True)]
    return ", ".join(texts[:LISTED_MAX_COUNT]) + (", ..." if len(texts) > LISTED_MAX_COUNT else "")
