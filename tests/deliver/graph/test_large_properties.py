"""What holds for every message: pieces of any size give one result, files keep their octets, nothing crashes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from email.message import EmailMessage
from email.policy import SMTP

from hypothesis import given, settings
from hypothesis import strategies as st

from relay.deliver.graph.charsets import decode_text
from relay.deliver.graph.content import choose_content
from relay.deliver.graph.convert import to_json
from relay.deliver.graph.decoders import decoder_for
from relay.deliver.graph.parameters import NAME_OCTETS, safe_name
from relay.deliver.graph.structure import Parser, Store
from relay.rewrite.fields import cut, regular
from relay.simulator import graph_schema
from tests.deliver.graph.large_kit import converted

EXAMPLES = settings(max_examples=150, deadline=None)
MIME_PIECES = st.sampled_from(
    [
        b"--a", b"--b", b"--ab", b"--a--", b"--b--", b"--", b"-", b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ",
        b"Content-Type: multipart/mixed; boundary=a", b"Content-Type: multipart/alternative; boundary=b",
        b"Content-Type: multipart/related; boundary=ab", b"Content-Type: multipart/digest; boundary=b",
        b"Content-Type: text/html", b"Content-Type: message/rfc822", b"Content-Type: application/pdf; name=x.pdf",
        b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: quoted-printable",
        b"Content-Transfer-Encoding: x-uuencode", b"Content-Disposition: attachment; filename=\"../x\"",
        b"QUJD", b"QQ==", b"QQ=", b"=41", b"=", b"= ", b"\xe4", b"\x00", b"begin 644 x", b"#86)C", b"end", b"text",
        b"<img src=cid:x>", b"Content-ID: <x>",
    ]
)  # fmt: skip


def tree_of(header: bytes, body: bytes, size: int) -> object:
    """Text, files and octets, with the body fed in pieces of that size."""
    fields, rest, _ = cut(regular(header))
    with Store() as store:
        parser = Parser(fields, store)
        parser.feed(rest)
        for at in range(0, len(body), size):
            parser.feed(body[at : at + size])
        content = choose_content(parser.close(), store)
        files = [(file, store.read(file.start, file.size)) for file in content.attachments]
        return content.text, content.html, content.notes, files


@given(st.lists(MIME_PIECES, max_size=40), st.integers(1, 30))
@EXAMPLES
def test_the_size_of_the_pieces_does_not_matter(pieces: list[bytes], size: int) -> None:
    """Wherever the octets are cut, the tree is the same."""
    header = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n"
    body = b"".join(pieces)
    assert tree_of(header, body, size) == tree_of(header, body, len(body) + 1)


@given(st.lists(st.one_of(MIME_PIECES, st.binary(max_size=20)), max_size=30))
@EXAMPLES
def test_no_message_is_beyond_conversion(pieces: list[bytes]) -> None:
    """Whatever arrives becomes JSON that is valid by the schema."""
    seen = asyncio.run(converted(b"".join(pieces)))
    graph_schema.check_message(json.loads(to_json(seen.message)), 5)
    assert len(seen.files) == len(seen.octets)
    assert all(name and name == safe_name(name) for name in seen.names)


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=300), st.sampled_from(["base64", "quoted-printable"]), st.text(max_size=40)
        ),
        max_size=6,
    )
)
@EXAMPLES
def test_files_of_the_email_package_arrive_exactly(files: list[tuple[bytes, str, str]]) -> None:
    """What the standard library packs is unpacked octet by octet, names as far as they are harmless."""
    message = EmailMessage(policy=SMTP)
    message["To"] = "a@b.example"
    message.set_content("text")
    kept = [(octets, encoding, safe_name(name.strip())) for octets, encoding, name in files]
    for octets, encoding, name in kept:
        message.add_attachment(octets, "application", "x-test", cte=encoding, filename=name or "none.bin")
    seen = asyncio.run(converted(message.as_bytes()))
    assert seen.octets == [octets for octets, _, _ in kept]
    assert seen.text.strip() == "text"


LEAVES = st.tuples(st.binary(max_size=60), st.sampled_from(["image/png", "application/pdf", "audio/wav"]))
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=12)


def pack(node: object, level: int = 0) -> EmailMessage:
    """A tree of lists (multipart/mixed) and files, by the standard library."""
    message = EmailMessage(policy=SMTP)
    if isinstance(node, tuple):
        message.set_content(node[0], *node[1].split("/"))
        return message
    assert isinstance(node, list)
    message.make_mixed(boundary=f"level {level}")
    for child in node:
        message.attach(pack(child, level + 1))
    return message


def files_of(node: object) -> list[tuple[bytes, str]]:
    """The leaves, in order."""
    if isinstance(node, tuple):
        return [node]
    assert isinstance(node, list)
    return [file for child in node for file in files_of(child)]


@given(TREES)
@EXAMPLES
def test_any_nesting_keeps_every_file_in_order(tree: object) -> None:
    """Multiparts within multiparts: the files come out in their order, with type and octets."""
    seen = asyncio.run(converted(pack(tree).as_bytes()))
    found = [(octets, file.content_type) for file, octets in zip(seen.files, seen.octets, strict=True)]
    assert found == files_of(tree)


@given(
    st.binary(max_size=400), st.sampled_from(["base64", "quoted-printable", "x-uuencode"]), st.integers(1, 40)
)
@EXAMPLES
def test_decoders_undo_their_encoding_in_pieces(data: bytes, encoding: str, size: int) -> None:
    """Base64, quoted-printable and uuencode, fed a few octets at a time."""
    lines = [binascii.b2a_uu(data[at : at + 45]) for at in range(0, len(data), 45)]
    encoded = {
        "base64": base64.encodebytes(data),
        "quoted-printable": binascii.b2a_qp(data, istext=False),
        "x-uuencode": b"begin 644 x\n" + b"".join(lines) + b"`\nend\n",
    }[encoding].replace(b"\n", b"\r\n")
    decoder = decoder_for(encoding)
    out = b"".join(decoder.feed(encoded[at : at + size]) for at in range(0, len(encoded), size))
    assert out + decoder.close() == data
    assert decoder.flaws == set()


@given(st.binary(max_size=200), st.sampled_from(["base64", "quoted-printable", "x-uuencode", "x-odd"]))
@EXAMPLES
def test_decoders_take_anything(data: bytes, encoding: str) -> None:
    """Octets that were never encoded do not stop a decoder, and give the same in one piece and in many."""
    one, many = decoder_for(encoding), decoder_for(encoding)
    whole = one.feed(data) + one.close()
    pieces = b"".join(many.feed(data[at : at + 1]) for at in range(len(data)))
    assert (pieces + many.close(), many.flaws) == (whole, one.flaws)


@given(
    st.binary(max_size=100),
    st.sampled_from(["", "utf-8", "utf-7", "utf-16", "shift_jis", "iso-2022-jp", "us-ascii", "x"]),
)
@EXAMPLES
def test_every_text_can_be_written_as_json(octets: bytes, charset: str) -> None:
    """No character set yields what UTF-8 cannot carry."""
    text = decode_text(octets, charset).content
    assert json.loads(to_json({"x": text})) == {"x": text}
    assert "\x00" not in text


@given(st.text(max_size=400))
@EXAMPLES
def test_names_are_only_names(name: str) -> None:
    """No separators, no line ends, not too long, and a safe name is its own safe name."""
    safe = safe_name(name)
    assert not set(safe) & set("/\\\r\n\x00")
    assert len(safe.encode()) <= NAME_OCTETS
    assert safe not in (".", "..")
    assert safe_name(safe) == safe
