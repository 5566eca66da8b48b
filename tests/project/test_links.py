"""Links between our documents lead somewhere: to a file that there is, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.project.imports import ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "protocol").glob("*.md")]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """The headings of a document, as its links name them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(document: Path) -> list[str]:
    found = []
    for link in LINK.findall(FENCED.sub("", document.read_text())):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            found.append(f"{document.name}: {link}")
    return found


def test_every_link_between_documents_leads_somewhere() -> None:
    assert [one for document in DOCUMENTS for one in broken(document)] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# A: b, `c`\n[x](#a-b-c) [y](#d) [z](none.md) [w](a.md#a-b-c)\n```\n[v](nothing)\n```\n")
    assert broken(document) == ["a.md: #d", "a.md: none.md"]
