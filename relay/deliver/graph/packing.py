"""More files than a message may have: the last of them go together in one archive, so that none is lost."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import replace

from relay.deliver.graph.content import Attachment, Content
from relay.deliver.graph.structure import NoRoom, Store

ATTACHMENTS_LIMIT = 250
"""Files of one message (facts 3.1)."""
ARCHIVE = "further-attachments.zip"
_PIECE = 1 << 20
_EARLIEST = (1980, 1, 1, 0, 0, 0)


def pack(content: Content, store: Store) -> Content:
    """The content with at most `ATTACHMENTS_LIMIT` files. Raises NoRoom."""
    files = content.attachments
    if len(files) <= ATTACHMENTS_LIMIT:
        return content
    loose = sorted(files, key=lambda file: not file.inline)  # pictures of the text stay what they are
    kept, packed = loose[: ATTACHMENTS_LIMIT - 1], loose[ATTACHMENTS_LIMIT - 1 :]
    try:
        archive = _archive(packed, store)
    except OSError as error:
        raise NoRoom(str(error)) from error
    note = f"{len(files)} files, and {ATTACHMENTS_LIMIT} are allowed: the last {len(packed)} are in {ARCHIVE}"
    return replace(content, attachments=(*kept, archive), notes=(*content.notes, note))


def _archive(files: list[Attachment], store: Store) -> Attachment:
    """The files in one ZIP, not compressed, written behind everything else in the store."""
    with tempfile.TemporaryFile() as target:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for number, file in enumerate(files, 1):
                with archive.open(zipfile.ZipInfo(f"{number:03d} {file.name}", _EARLIEST), "w") as entry:
                    for offset in range(0, file.size, _PIECE):
                        entry.write(store.read(file.start + offset, min(_PIECE, file.size - offset)))
        start = store.end
        target.seek(0)
        while piece := target.read(_PIECE):
            store.write(piece)
    return Attachment(ARCHIVE, "application/zip", start, store.end - start)
