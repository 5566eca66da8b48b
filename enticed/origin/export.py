"""Filling an origin: in an order in which what was broken off is never taken for whole, and can be gone on with."""

from __future__ import annotations

import os

from enticed.origin.layout import PAGES, RAW, ROOT, STATEMENTS, object_of, object_of_name
from enticed.origin.papers import Papers
from enticed.origin.port import Depot, Progressed


def export_image(depot: Depot, papers: Papers, raw_fd: int, progressed: Progressed, *, force: bool = False) -> int:
    """Write an image: its root after all else, its names after that; how many bytes were written.

    Raw bytes, pages and root that are there in their size are left (their names say what they are), unless `force`.
    Statements and names are written every time: there may be newer ones. Raises as `Depot` does; what was begun stays,
    but for an object that is not whole.
    """
    image, written_bytes = papers.image, 0
    raw, size_bytes = object_of(image, RAW), os.fstat(raw_fd).st_size
    if force or depot.size_bytes(raw) != size_bytes:
        depot.put_file(raw, raw_fd, size_bytes, progressed)
        written_bytes += size_bytes
    for part, data in ((PAGES, papers.pages), (STATEMENTS, papers.statements), (ROOT, papers.root)):
        name = object_of(image, part)
        if force or part == STATEMENTS or depot.size_bytes(name) != len(data):
            depot.put(name, data)
            written_bytes += len(data)
    for paper in papers.names:
        depot.put(object_of_name(paper.name), paper.record)
        written_bytes += len(paper.record)
    return written_bytes
