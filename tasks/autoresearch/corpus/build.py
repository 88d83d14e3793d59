"""Makes the bundled corpus from the documentation of Python 3.11, with the standard library only.

    apt-get install python3.11-doc
    python tasks/autoresearch/corpus/build.py /usr/share/doc/python3.11/html

Every page of prose becomes plain text, cut at its sections and entries into documents of about 500
to 8,000 characters. A document is dropped if more than 40 % of its 8-word runs occur in earlier
ones. The others are ordered by the hash of their text and written to ``corpus.jsonl.xz``: one JSON
object per line, with ``page`` and ``text``. The same pages give the same bytes.
"""

import gzip
import hashlib
import json
import lzma
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

HERE = Path(__file__).parent
OUTPUT = HERE / "corpus.jsonl.xz"

SKIPPED_PAGES = re.compile(
    r"genindex|py-modindex|search\.html|license\.html|copyright\.html|download\.html|contents\.html"
)
"""Indices, forms and legal texts. The licence stands beside the corpus instead."""
SHORTEST, LONGEST = 500, 8000
"""Characters of a document; the last of a page and one before a long block may be shorter."""
SCRAP = 200
ENTRY_BREAK = 1500
"""An entry (function, class) begins a new document if the current one has this many characters."""
SHINGLE_WORDS = 8
NEAR_DUPLICATE = 0.4
"""A document is dropped when more than this share of its shingles occurs in earlier ones."""

BLOCKS = frozenset(
    ("p", "li", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "tr", "blockquote")
    + ("div", "section", "dl", "ul", "ol", "table", "caption")
)
VOID = frozenset(("br", "hr", "img", "input", "meta", "link", "col", "area", "wbr"))
SKIPPED_CLASSES = frozenset(
    ("headerlink", "sphinxsidebar", "related", "toctree-wrapper", "contents", "clearer")
)
SKIPPED_TAGS = frozenset(("script", "style", "nav", "form"))
SECTION, ENTRY, TEXT = "section", "entry", "text"
Unit = tuple[str, str]


class Page(HTMLParser):
    """Collects ``units``: (kind, text) of every block in the body; kind is a constant above."""

    def __init__(self) -> None:
        super().__init__()
        self.units: list[Unit] = []
        self._open: list[str] = []
        self._skip = 0  # depth at which skipping began
        self._body = 0  # depth of the body
        self._pre = 0
        self._text = ""
        self._kind = TEXT

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            self._text += "\n" if tag == "br" else ""
            return
        self._open.append(tag)
        named = dict(attrs)
        classes = set((named.get("class") or "").split())
        if named.get("role") == "main":
            self._body = len(self._open)
        if not self._skip and (tag in SKIPPED_TAGS or classes & SKIPPED_CLASSES):
            self._skip = len(self._open)
        if tag in BLOCKS:
            self._flush()
        if tag == "section":
            self._kind = SECTION
        elif tag == "dt" and "sig" in classes and self._kind == TEXT:
            self._kind = ENTRY
        elif tag == "li":
            self._text = "- "
        elif tag == "pre":
            self._pre = len(self._open)
        elif tag in ("td", "th"):
            self._text += " "

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._open:
            return
        while self._open:
            depth, last = len(self._open), self._open.pop()
            if last in BLOCKS:
                self._flush()
            self._skip = 0 if self._skip == depth else self._skip
            self._body = 0 if self._body == depth else self._body
            self._pre = 0 if self._pre == depth else self._pre
            if last == tag:
                return

    def handle_data(self, data: str) -> None:
        if self._body and not self._skip:
            self._text += data if self._pre else re.sub(r"\s+", " ", data)

    def _flush(self) -> None:
        text = self._text.strip("\n") if self._pre else re.sub(r"[ \t]+", " ", self._text).strip()
        if text not in ("", "-"):
            self.units.append((self._kind, text))
            self._kind = TEXT
            self._text = ""
        elif text == "":
            self._text = ""


def pages(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, HTML) of every page of prose, in the order of their names."""
    for path in sorted(folder.rglob("*.html*")):
        name = path.relative_to(folder).as_posix().removesuffix(".gz")
        if name.startswith("_") or SKIPPED_PAGES.search(name):
            continue
        raw = path.read_bytes()
        yield name, (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()


def documents(units: list[Unit]) -> Iterator[str]:
    """Yield the page's units, joined into documents of about SHORTEST to LONGEST characters."""
    parts: list[str] = []
    size = 0
    for kind, text in units:
        full = size + len(text) > LONGEST
        breaks = (kind == SECTION and size >= SHORTEST) or (kind == ENTRY and size >= ENTRY_BREAK)
        if parts and (full or breaks):
            yield "\n\n".join(parts)
            parts, size = [], 0
        for piece in pieces(text):
            if size + len(piece) > LONGEST:
                yield "\n\n".join(parts)
                parts, size = [], 0
            parts.append(piece)
            size += len(piece) + 2
    if size >= SCRAP:
        yield "\n\n".join(parts)


def pieces(text: str) -> Iterator[str]:
    """Cut a block that is too long for one document at its line ends."""
    while len(text) > LONGEST:
        at = text.rfind("\n", 1, LONGEST)
        at = at if at > 0 else LONGEST
        yield text[:at]
        text = text[at:].lstrip("\n")
    if text:
        yield text


def is_new(text: str, seen: set[int]) -> bool:
    """Return whether ``text`` is not a near-duplicate of earlier texts; if so, add its shingles."""
    words = re.findall(r"\w+", text.lower())
    shingles = {
        int.from_bytes(hashlib.blake2b(" ".join(run).encode(), digest_size=8).digest())
        for run in zip(*(words[i:] for i in range(SHINGLE_WORDS)), strict=False)
    }
    if not shingles or len(shingles & seen) > NEAR_DUPLICATE * len(shingles):
        return False
    seen |= shingles
    return True


def main(folder: Path) -> None:
    """Write the corpus and print what is in it."""
    found = []
    seen: set[int] = set()
    dropped = 0
    for name, html in pages(folder):
        page = Page()
        page.feed(html)
        page.close()
        for text in documents(page.units):
            if is_new(text, seen):
                found.append((hashlib.sha256(text.encode()).hexdigest(), name, text))
            else:
                dropped += 1
    if not found:
        sys.exit(f"no pages of Python's documentation under {folder}")
    found.sort()
    lines = "".join(
        json.dumps({"page": name, "text": text}, ensure_ascii=False) + "\n"
        for _, name, text in found
    )
    OUTPUT.write_bytes(lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME))
    characters = sum(len(text) for _, _, text in found)
    sys.stdout.write(
        f"{len(found):,} documents, {characters:,} characters, {dropped:,} near-duplicates "
        f"dropped, {OUTPUT.stat().st_size:,} bytes, sha256 "
        f"{hashlib.sha256(OUTPUT.read_bytes()).hexdigest()}\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/doc/python3.11/html"))
