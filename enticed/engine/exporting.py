"""An image's papers, as `entice export` is given them."""

from __future__ import annotations

from enticed.origin.papers import NamePaper, Papers, write_papers
from enticed.store.images import StoredImage
from enticed.store.names import SavedName
from protocol.codec import pack_record
from protocol.statement import StatementSet


def papers_of(stored: StoredImage, records: tuple[SavedName, ...]) -> int:
    """A descriptor of the image's papers; blocks."""
    pages = stored.read_pages(0, stored.root.pages_size_bytes)
    names = tuple(NamePaper(saved.name, saved.expires_at, saved.envelope) for saved in records)
    statements = pack_record(StatementSet(stored.statements))
    return write_papers(Papers(stored.image, stored.root.encoded, statements, pages, names))
