"""Public-domain texts, taken out of Debian packages.

`austen()` gives Jane Austen's six novels from the package `r-cran-janeaustenr`
(an R data set; no R is needed to read it), and `king_james()` the verses of the
King James Bible from the package `bible-kjv-text`. Both works are in the public
domain. The packages are fetched with `apt-get download` and unpacked, never
installed. Used by `make_data.py` here and by `scripts/make_text_data.py`.
"""

import bz2
import lzma
import pathlib
import re
import struct
import subprocess
import zlib


def unpack(package, cache):
    """Downloads a Debian package into `cache` (once) and returns its unpacked root."""
    cache = pathlib.Path(cache)
    root = cache / package
    if not root.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", package], cwd=cache, check=True)
        deb = max(cache.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], check=True)
    return root


NOT_PROSE = (
    r"(chapter|volume)\b|(by\s*)?(jane austen.*)?$|persuasion$|finis$|\(end of volume"
    r"|\*|northanger abbey was written"
)


def _r_strings(data):
    """The first character vector in an R serialization (XDR, version 2 or 3)."""
    if data[:2] != b"X\n":
        raise ValueError("not an R serialization in XDR format")
    (version,) = struct.unpack_from(">i", data, 2)
    at = 14
    if version == 3:
        (size,) = struct.unpack_from(">i", data, at)
        at += 4 + size
    flags, count = struct.unpack_from(">ii", data, at)
    if flags & 0xFF != 16:
        raise ValueError("the object is not a character vector")
    at += 8
    lines = []
    for _ in range(count):
        _, size = struct.unpack_from(">ii", data, at)
        at += 8
        lines.append(data[at : at + size].decode("utf-8") if size > 0 else "")
        at += max(size, 0)
    return lines


def _r_objects(blob):
    """The serialized objects of an R lazy-load data base, in file order."""
    while blob:
        if blob[4:5] in b"23Z":
            body, new = blob[5:], bz2.BZ2Decompressor if blob[4:5] == b"2" else lzma.LZMADecompressor
            reader = new()
        else:
            body, reader = blob[4:], zlib.decompressobj()
        yield reader.decompress(body)
        blob = reader.unused_data


def austen(cache):
    """Jane Austen's six novels: a list of (first lines, list of paragraphs)."""
    root = unpack("r-cran-janeaustenr", cache)
    blob = (root / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    novels = []
    for data in _r_objects(blob):
        lines = _r_strings(data)
        text = "\n".join(line.rstrip() for line in lines)
        paragraphs = []
        for block in re.split(r"\n\s*\n", text):
            block = re.sub(r"\s+", " ", block).strip()
            # Title pages, headings, volume and chapter marks and closing lines are no prose.
            if not re.search(r"[a-z]", block) or re.match(NOT_PROSE, block, re.I):
                continue
            block = block.replace("--", " -- ").replace("_", "")
            paragraphs.append(re.sub(r"\s+", " ", block))
        novels.append((" ".join(line for line in lines[:3] if line), paragraphs))
    return novels


def king_james(cache):
    """The King James Bible: its verses in order, as (place, text) pairs."""
    root = unpack("bible-kjv-text", cache)
    blob = (root / "usr/lib/bible.data").read_bytes()
    # A header, a table of offsets, and 64 KiB chunks packed by compress(1) without their
    # three magic bytes; gzip unpacks them.
    (chunks,) = struct.unpack_from(">I", blob, 0x58)
    table = struct.unpack_from(f">{chunks + 1}I", blob, 0x5C)
    text = b""
    for start, end in zip(table, table[1:]):
        packed = b"\x1f\x9d\x90" + blob[start:end]
        text += subprocess.run(["gzip", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
    verses = []
    for line in text.decode("latin-1").splitlines()[1:]:
        name, _, verse = line.partition(" ")
        # Text in braces is an editor's note.
        verse = re.sub(r"\s+", " ", re.sub(r"\{[^}]*\}", "", verse)).strip()
        if verse:
            verses.append((name, verse))
    return verses
