"""
Why a file is no picture that is read here, and what to do with it: told by its first bytes, never by its name. Each
cause is a phrase of the program, which front doors translate.
"""

from __future__ import annotations

from pathlib import Path

from engines.images import endings

HEAD_BYTES = 512
EMPTY = "the file is empty: copy or download it once more"
CUT_OFF = "the file ends in its middle: copy or download it once more"
DAMAGED = "it is damaged, or of a kind that is not read here: save it as JPG or PNG in another program"
POINTER = "it is a pointer of Git LFS and not the file itself: fetch that with git lfs pull"
WEB_PAGE = "it is a web page: open it in a browser, and save the picture itself"
TEXT = "it is text, and no picture"
DOCUMENT = "it is a PDF: save its page as JPG or PNG"
VIDEO = "it is a video: save one of its pictures as JPG or PNG"
RAW = "it is a camera's raw file: develop it into a JPG or TIFF first"
LAYERS = "it is a drawing with layers or lines: save it as JPG or PNG first"
ARCHIVE = "it is an archive: unpack it first"
ENCRYPTED = "it is encrypted: decrypt it first"
ANOTHER = "this format is not read here: save it as JPG or PNG in another program"
NONE = "it is no picture: JPG, PNG, WEBP, HEIC, TIFF, AVIF, BMP and GIF are read"
TOO_MANY_SCANS = "it goes over the whole picture too often: save it as JPG in another program"
CRASHES = "it ends the program that decodes it: save it as JPG or PNG in another program"
NEGATIVE = "what was kept of it is damaged: draw it anew"
NO_COPY = "no copy of it is so small"
NO_ROOM = "to decode it takes too much memory: make it smaller first"

# First bytes, where they lie, and the cause. What comes first counts.
SIGNS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", POINTER),
    (0, b"%PDF", DOCUMENT),
    (0, b"8BPS", LAYERS),  # Photoshop
    (0, b"gimp xcf", LAYERS),
    (0, b"\xff\x0a", f"JPEG XL: {ANOTHER}"),
    (0, b"\0\0\0\x0cJXL ", f"JPEG XL: {ANOTHER}"),
    (0, b"\0\0\0\x0cjP  ", f"JPEG 2000: {ANOTHER}"),
    (0, b"\xff\x4f\xff\x51", f"JPEG 2000: {ANOTHER}"),
    (0, b"\0\0\x01\0", f"ICO: {ANOTHER}"),
    (0, b"v/1\x01", f"OpenEXR: {ANOTHER}"),
    (0, b"#?RADIANCE", f"HDR: {ANOTHER}"),
    (0, b"SIMPLE  =", f"FITS: {ANOTHER}"),
    (128, b"DICM", f"DICOM: {ANOTHER}"),
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"IIRO", RAW),  # Olympus
    (0, b"IIRS", RAW),
    (0, b"IIU\0", RAW),  # Panasonic
    (0, b"FOVb", RAW),  # Sigma
    (0, b"\0MRM", RAW),  # Minolta
    (4, b"ftypcrx ", RAW),  # Canon's CR3
    *((4, b"ftyp" + brand, VIDEO) for brand in (b"iso", b"mp4", b"avc1", b"qt  ", b"M4V", b"3gp", b"dash")),
    (8, b"AVI ", VIDEO),
    (0, b"\x1a\x45\xdf\xa3", VIDEO),  # Matroska, WebM
    (0, b"Salted__", ENCRYPTED),
    (0, b"age-encryption.org", ENCRYPTED),
    (0, b"-----BEGIN PGP", ENCRYPTED),
    (0, b"PK\x03\x04", ARCHIVE),
    (0, b"7z\xbc\xaf\x27\x1c", ARCHIVE),
    (0, b"Rar!", ARCHIVE),
    (0, b"\x1f\x8b", ARCHIVE),
    (0, b"\xfd7zXZ\0", ARCHIVE),
    (0, b"BZh", ARCHIVE),
    (0, b"\x28\xb5\x2f\xfd", ARCHIVE),
)
# How what is read begins; a TIFF in either order of bytes, and in its form for large files.
READ_SIGNS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM", b"GIF8")


def cause(path: Path) -> str:
    """Return why a file is no picture that can be read. OSError: it cannot be opened."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return EMPTY
    if _is_encrypted_zip(head):
        return ENCRYPTED
    for at, sign, why in SIGNS:
        if head[at : at + len(sign)] == sign:
            return why
    if head.startswith(READ_SIGNS) or head[4:8] == b"ftyp":
        return DAMAGED if endings.is_whole(path.resolve()) else CUT_OFF  # no link
    return _text(head) or NONE


def _is_encrypted_zip(head: bytes) -> bool:
    """Return whether the first file of a ZIP is encrypted: bit 0 of its flags (APPNOTE.TXT, section 4.4.4)."""
    return head.startswith(b"PK\x03\x04") and len(head) > 6 and bool(head[6] & 1)


def _text(head: bytes) -> str:
    """Say what text it is, if it is text; a character that the head cuts is none of its faults."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in start:
        return WEB_PAGE
    if b"<svg" in start:
        return LAYERS
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as exc:
        if exc.start < len(head) - 3:
            return ""
        text = head[: exc.start].decode("utf-8")
    return TEXT if text and all(letter.isprintable() or letter in "\r\n\t" for letter in text) else ""
