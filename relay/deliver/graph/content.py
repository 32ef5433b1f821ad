"""What of a message's tree becomes the body Graph knows, and what becomes attachments.

Graph has one body, text or HTML, and a flat list of files. An alternative keeps its HTML; texts that follow one
another are joined; a picture is inline when the HTML shows it by its Content-ID (RFC 2392), else a file that
readers see. Every other part is a file with its exact octets, nested messages as ``.eml`` among them.
"""

from __future__ import annotations

import html
import re
import urllib.parse
from dataclasses import dataclass

from relay.deliver.graph.charsets import decode_text
from relay.deliver.graph.parameters import file_name, safe_name
from relay.deliver.graph.structure import Part, Store
from relay.rewrite.encoding import clean, decode_words, to_text
from relay.rewrite.fields import cut, regular, value_of

TEXT_LIMIT = 3 * 1024 * 1024
"""Octets of body text in JSON; the whole request stays below 4 MB (facts 6.2). More text becomes a file."""
NESTED_HEADER = 65536
"""Octets of a nested message in which its subject is looked for."""

_EXTENSIONS = {
    "text/plain": ".txt", "text/html": ".html", "text/calendar": ".ics", "text/csv": ".csv", "text/x-vcard": ".vcf",
    "text/vcard": ".vcf", "text/rfc822-headers": ".txt", "text/xml": ".xml", "text/rtf": ".rtf",
    "message/rfc822": ".eml", "message/global": ".eml", "message/delivery-status": ".txt",
    "message/disposition-notification": ".txt", "application/pdf": ".pdf", "application/zip": ".zip",
    "application/json": ".json", "application/xml": ".xml", "application/rtf": ".rtf", "application/ics": ".ics",
    "application/msword": ".doc", "application/pgp-signature": ".asc", "application/pgp-encrypted": ".txt",
    "image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/tiff": ".tif", "image/bmp": ".bmp",
    "image/svg+xml": ".svg", "image/webp": ".webp", "audio/mpeg": ".mp3", "audio/wav": ".wav", "video/mp4": ".mp4",
}  # fmt: skip
_NAMES = {
    "application/pkcs7-mime": "smime.p7m", "application/x-pkcs7-mime": "smime.p7m",
    "application/pkcs7-signature": "smime.p7s", "application/x-pkcs7-signature": "smime.p7s",
    "application/ms-tnef": "winmail.dat", "application/vnd.ms-tnef": "winmail.dat",
    "application/pgp-signature": "signature.asc", "application/pgp-encrypted": "version.txt",
    "message/delivery-status": "delivery-status.txt", "message/disposition-notification": "disposition.txt",
    "text/rfc822-headers": "headers.txt", "text/calendar": "invite.ics",
}  # fmt: skip
"""What mail programs call these."""
_CID = re.compile(r"""cid:([^"'\s<>)]{1,900})""", re.IGNORECASE)
_SHELL = re.compile(r"</body\s*>|</html\s*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file of the message; its octets are in the store."""

    name: str
    content_type: str
    start: int
    size: int
    inline: bool = False
    content_id: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class Content:
    """Body and files. ``notes`` says what is not as it was."""

    text: str
    html: bool
    attachments: tuple[Attachment, ...]
    notes: tuple[str, ...]


def choose_content(root: Part, store: Store) -> Content:
    """Sort the leaves of the tree into body and files."""
    return _Chooser(store).run(root)


class _Chooser:
    """Walks the tree once, in order."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._texts: list[Part] = []
        self._files: list[Part] = []
        self._notes: list[str] = []

    def run(self, root: Part) -> Content:
        self._walk(root)
        text, is_html = self._body()
        page = text if is_html else ""
        named = {html.unescape(cid).casefold() for cid in _CID.findall(page)}
        shown = named | {urllib.parse.unquote(cid) for cid in named}
        files = tuple(
            self._attachment(part, number, shown, page) for number, part in enumerate(self._files, 1)
        )
        return Content(text, is_html, files, tuple(dict.fromkeys(self._notes)))

    def _note(self, text: str) -> None:
        self._notes.append(text)

    def _walk(self, part: Part) -> None:
        if not part.children:
            self._leaf(part)
        elif part.kind == "multipart/alternative":
            self._alternative(part)
        elif part.kind == "multipart/related":
            self._related(part)
        else:
            self._explain(part.kind)
            for child in part.children:
                self._walk(child)

    def _explain(self, kind: str) -> None:
        if kind == "multipart/signed":
            self._note("signed message: the signature is attached, and cannot be verified any more")
        elif kind == "multipart/encrypted":
            self._note("encrypted message: its parts are attached as files")
        elif kind == "multipart/report":
            self._note("report: its text is the body, its machine-readable parts are files")

    def _leaf(self, part: Part) -> None:
        undivided = part.kind.startswith("multipart/") and not part.too_deep
        if undivided:
            self._note(f"{part.kind} without a usable boundary: taken for plain text")
        if undivided or _is_body(part):
            self._flaws(part)
            self._texts.append(part)
        else:
            self._attach(part)

    def _flaws(self, part: Part) -> None:
        for flaw in part.flaws:
            self._note(f"{_shown_name(part)}: {flaw}")

    def _attach(self, part: Part) -> None:
        self._flaws(part)
        self._files.append(part)
        charset = part.media.parameters.get("charset", "").lower()
        if part.too_deep:
            self._note("parts nested too deep are kept together in one file")
        elif part.kind.startswith("text/") and charset not in ("", "utf-8", "us-ascii"):
            self._note(f"{_shown_name(part)}: that its character set is {charset[:40]} is not kept")
        if part.kind in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
            self._note("S/MIME message: kept as the file smime.p7m, which readers may not open as a message")
        elif part.kind == "text/calendar":
            self._note("calendar part: kept as a file, not as an invitation to answer")

    def _alternative(self, part: Part) -> None:
        """The last HTML, else the last plain text, else the last there is; what is not text goes along as a file."""
        best = max(enumerate(part.children), key=lambda item: (_rank(item[1]), item[0]))[1]
        for child in part.children:
            if child is best:
                self._walk(child)
                continue
            for leaf in child.leaves():
                if _is_body(leaf) or (
                    leaf.kind.startswith("text/") and leaf.kind != "text/calendar" and not _named(leaf)
                ):
                    self._note(f"alternative form {leaf.kind} left out: Graph keeps one")
                else:
                    self._leaf(leaf)

    def _related(self, part: Part) -> None:
        """The root first (RFC 2387), then what belongs to it."""
        start = part.media.parameters.get("start", "").strip("<> ")
        root = next(
            (child for child in part.children if start and child.content_id == start), part.children[0]
        )
        self._walk(root)
        for child in part.children:
            if child is not root:
                for leaf in child.leaves():
                    self._attach(leaf)

    def _body(self) -> tuple[str, bool]:
        """The text, and whether it is HTML; what is too large becomes a file."""
        as_html = any(part.kind == "text/html" for part in self._texts)
        pieces: list[tuple[str, bool]] = []
        filed: list[Part] = []
        room = TEXT_LIMIT
        for part in self._texts:
            piece = self._piece(part, as_html) if part.size <= room else None
            if piece is None or (cost := _json_size(piece[0])) > room:
                filed.append(part)
                piece = self._elsewhere(part)
            else:
                room -= cost
            if piece[0].strip() or len(self._texts) == 1:
                pieces.append(piece)
        self._files[:0] = filed
        return self._joined(pieces)

    def _piece(self, part: Part, as_html: bool) -> tuple[str, bool]:
        """The text of one part, and whether it is HTML; plain text among HTML keeps its lines."""
        octets = self._store.read(part.start, part.size)
        is_html = part.kind == "text/html"
        decoded = decode_text(octets, part.media.parameters.get("charset", ""), html=is_html)
        if decoded.note:
            self._note(f"text: {decoded.note}")
        if part.media.parameters.get("format", "").lower() == "flowed":
            self._note("format=flowed is not kept: long lines stay broken")
        if as_html and not is_html and decoded.content.strip():
            return f'<div style="white-space: pre-wrap">{html.escape(decoded.content)}</div>', True
        return decoded.content, is_html

    def _elsewhere(self, part: Part) -> tuple[str, bool]:
        """What stands for a text that became a file."""
        name = _shown_name(part)
        self._note(f"text of {part.size} octets is too long for a body: attached as {name}")
        return f"(The text of this message is attached as {name}.)", False

    def _joined(self, pieces: list[tuple[str, bool]]) -> tuple[str, bool]:
        """Texts in a row as one, HTML if any of them is."""
        if len(pieces) > 1:
            self._note(f"{len(pieces)} text parts were joined to one body")
        texts = [text for text, _ in pieces]
        if not any(is_html for _, is_html in pieces):
            return "\r\n".join(texts), False
        return _appended(texts[0], "".join(f"<hr>{text}" for text in texts[1:])), True

    def _attachment(self, part: Part, number: int, shown: set[str], page: str) -> Attachment:
        asked = file_name(part.disposition, part.media)
        name = safe_name(asked) or self._default_name(part, number)
        if asked and name != asked:
            self._note(f"file name changed: {name}")
        located = bool(part.location) and not part.content_id and part.location in page
        return Attachment(
            name,
            _file_type(part),
            part.start,
            part.size,
            inline=part.content_id.casefold() in shown or located,
            content_id=part.content_id,
            location=part.location,
        )

    def _default_name(self, part: Part, number: int) -> str:
        if part.kind in ("message/rfc822", "message/global"):
            fields, _, _ = cut(regular(self._store.read(part.start, min(part.size, NESTED_HEADER))))
            subject = next(
                (decode_words(to_text(value_of(raw))) for name, raw in fields if name == b"subject"), ""
            )
            stem = safe_name(re.sub(r"[/\\:\s]+", " ", clean(subject))[:80].strip()) or f"message-{number}"
            return f"{stem}.eml"
        if part in self._texts:
            return _shown_name(part)
        return _NAMES.get(part.kind) or f"attachment-{number}{_extension(part.kind)}"


def _is_body(part: Part) -> bool:
    """Text that is shown, not filed: RFC 2183 section 2.10, and mail programs' habit to name what is a file."""
    if part.kind not in ("text/plain", "text/html"):
        return False
    return part.disposition.text not in ("attachment", "form-data") and not _named(part)


def _named(part: Part) -> bool:
    return bool(file_name(part.disposition, part.media))


def _rank(part: Part) -> int:
    """How welcome a form of an alternative is as the body."""
    kinds = {leaf.kind for leaf in part.leaves() if _is_body(leaf)}
    return 2 if "text/html" in kinds else 1 if "text/plain" in kinds else 0


def _file_type(part: Part) -> str:
    """The media type of a part as a file."""
    if part.too_deep:
        return "application/octet-stream"
    return "text/plain" if part.kind.startswith("multipart/") else part.kind


def _extension(kind: str) -> str:
    return _EXTENSIONS.get(kind) or (".txt" if kind.startswith("text/") else ".bin")


def _shown_name(part: Part) -> str:
    """What to call a part in a note, and a text that became a file."""
    given = safe_name(file_name(part.disposition, part.media))
    if given or part.kind not in ("text/plain", "text/html"):
        return given or ("message.txt" if part.kind.startswith("multipart/") else part.kind)
    return "message" + _EXTENSIONS[part.kind]


def _json_size(text: str) -> int:
    """Octets of the text within JSON in UTF-8."""
    octets = text.encode("utf-8")
    return len(octets) + sum(map(octets.count, (b'"', b"\\", b"\r", b"\n", b"\t", b"\f")))


def _appended(page: str, more: str) -> str:
    """HTML with more at its end, inside of the document where that shows its end."""
    end = _SHELL.search(page) if more else None
    place = end.start() if end else len(page)
    return page[:place] + more + page[place:]
