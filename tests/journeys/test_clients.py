"""Mail from real clients arrives intact: text, attachments, 8-bit, SMTPUTF8, dot lines, 25 MB."""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import json
import os
import shutil
import smtplib
import subprocess
from email.message import EmailMessage
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOTS = "one\n.\n..\n.two dots..\n...\n. \nlast\n"


def tool(name: str) -> str:
    """A program that `make test` installs; a missing one is a failure, not a skip."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: run `make test`, which installs it"
    return found


def run(*command: str, given: bytes = b"") -> None:
    done = subprocess.run(command, input=given, capture_output=True, timeout=60)
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])


def read(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def body_of(raw: bytes) -> bytes:
    return raw.split(b"\r\n\r\n", 1)[1]


def text_of(part: EmailMessage) -> str:
    """Its text as the sender's editor would have shown it."""
    return part.get_content().replace("\r\n", "\n").rstrip("\n")


def one(microsoft, count: int = 1) -> tuple[dict, bytes]:
    message = microsoft.arrived(count)[-1]
    raw = microsoft.raw(message)
    assert message["mail_from"] == message["header_from"] == "notifications@contoso.com"
    return message, raw


def attachment(size: int) -> bytes:
    return hashlib.shake_128(b"attachment").digest(size)


def test_swaks_with_dot_lines(microsoft, relay):
    run(
        tool("swaks"), "--server", f"127.0.0.1:{relay.port}", "--from", "app@legacy.local", "--to", "anna@example.net",
        "--header", "Subject: dots", "--body", DOTS,
    )  # fmt: skip
    message, raw = one(microsoft)
    assert message["recipients"] == ["anna@example.net"]
    assert body_of(raw).decode().replace("\r\n", "\n").rstrip("\n") == DOTS.rstrip("\n")
    assert read(raw)["Reply-To"] == "app@legacy.local"


def test_swaks_pipelines_to_several_recipients(microsoft, relay):
    run(
        tool("swaks"), "--server", f"127.0.0.1:{relay.port}", "--from", "app@legacy.local", "--pipeline",
        "--to", "anna@example.net,bert@example.net", "--attach", f"@{ROOT / 'config.example.yaml'}",
    )  # fmt: skip
    message, raw = one(microsoft)
    assert message["recipients"] == ["anna@example.net", "bert@example.net"]
    (part,) = list(read(raw).iter_attachments())
    assert part.get_payload(decode=True) == (ROOT / "config.example.yaml").read_bytes()


def test_curl_uploads_a_file(microsoft, relay, tmp_path):
    source = EmailMessage()
    source["From"], source["To"], source["Subject"] = "Scan Müller <scan@x.local>", "anna@example.net", "scan"
    source.set_content("see attachment")
    source.add_attachment(attachment(300_000), maintype="application", subtype="pdf", filename="scan.pdf")
    path = tmp_path / "mail.eml"
    path.write_bytes(source.as_bytes(policy=email.policy.SMTP))
    run(
        tool("curl"), "-sS", f"smtp://127.0.0.1:{relay.port}", "--mail-from", "scan@x.local",
        "--mail-rcpt", "anna@example.net", "-T", str(path),
    )  # fmt: skip
    _, raw = one(microsoft)
    (part,) = list(read(raw).iter_attachments())
    assert part.get_payload(decode=True) == attachment(300_000)
    assert read(raw)["From"].addresses[0].display_name == "Scan Müller"


def test_msmtp_with_eight_bit_text(microsoft, relay):
    text = (
        "From: app@legacy.local\nTo: anna@example.net\nSubject: umlauts\nMIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGrüße aus Köln\n"
    )
    run(
        tool("msmtp"), "--host=127.0.0.1", f"--port={relay.port}", "--tls=off", "--auth=off",
        "--from=app@legacy.local", "anna@example.net", given=text.encode(),
    )  # fmt: skip
    _, raw = one(microsoft)
    assert body_of(raw) == "Grüße aus Köln\r\n".encode()
    assert text_of(read(raw)) == "Grüße aus Köln"


def test_smtplib_with_smtputf8(microsoft, relay):
    source = EmailMessage(policy=email.policy.SMTPUTF8)
    source["From"], source["To"], source["Subject"] = "app@legacy.local", "jürgen@exämple.net", "Grüße"
    source.set_content("hallo")
    with smtplib.SMTP("127.0.0.1", relay.port) as client:
        client.send_message(source)
    message, raw = one(microsoft)
    assert message["recipients"] == ["jürgen@exämple.net"]
    assert "SMTPUTF8" in message["mail_params"]
    assert read(raw)["Subject"] == "Grüße"


def test_smtplib_with_a_25_mb_attachment(microsoft, relay):
    data = attachment(18_500_000)
    source = EmailMessage()
    source["From"], source["To"], source["Subject"] = "scanner@scanners.local", "anna@example.net", "big scan"
    source.set_content("see attachment")
    source.add_attachment(data, maintype="image", subtype="tiff", filename="scan.tif")
    assert len(source.as_bytes(policy=email.policy.SMTP)) > 25_000_000
    with smtplib.SMTP("127.0.0.1", relay.port) as client:
        client.send_message(source)
    _, raw = one(microsoft)
    sent = source.as_bytes(policy=email.policy.SMTP)
    assert hashlib.sha256(body_of(raw)).hexdigest() == hashlib.sha256(body_of(sent)).hexdigest()


@pytest.mark.parametrize("octets", [bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"") * 40])
def test_the_body_passes_octet_for_octet(microsoft, relay, octets):
    lines = [octets[start : start + 900] for start in range(0, len(octets), 900)]
    body = b"\r\n".join([b".", b"..", *lines, b"", b".", b"end"]) + b"\r\n"
    header = b"From: app@legacy.local\r\nTo: anna@example.net\r\nSubject: octets\r\n\r\n"
    with smtplib.SMTP("127.0.0.1", relay.port) as client:
        client.sendmail(
            "app@legacy.local", ["anna@example.net"], header + body, mail_options=["BODY=8BITMIME"]
        )
    message, raw = one(microsoft)
    assert body_of(raw) == body
    assert message["mail_params"].get("BODY") == "8BITMIME"


NODE = """
const nodemailer = require('nodemailer');
const job = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const transport = nodemailer.createTransport({host: '127.0.0.1', port: job.port, ignoreTLS: true, pool: true});
(async () => {
  for (const mail of job.mails) {
    mail.attachments = (mail.files || []).map(f => ({filename: f.name, content: Buffer.from(f.data, 'base64')}));
    await transport.sendMail(mail);
  }
  transport.close();
})().catch(error => { console.error(error); process.exit(1); });
"""


def test_nodemailer_with_html_attachment_and_pooling(microsoft, relay):
    modules = ROOT / ".tools" / "node_modules"
    assert (modules / "nodemailer").is_dir(), (
        "nodemailer is not installed: run `make test`, which installs it"
    )
    data = attachment(200_000)
    mails = [
        {
            "from": '"Überwachung" <monitor@legacy.local>',
            "to": "anna@example.net",
            "bcc": "secret@example.net",
            "subject": f"Bericht {number} – fertig",
            "text": DOTS,
            "html": "<p>Grüße</p>",
            "files": [{"name": "übersicht.bin", "data": base64.b64encode(data).decode()}],
        }
        for number in range(3)
    ]
    done = subprocess.run(
        [tool("node"), "-e", NODE],
        input=json.dumps({"port": relay.port, "mails": mails}).encode(),
        env={**os.environ, "NODE_PATH": str(modules)},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    message, raw = one(microsoft, 3)
    assert sorted(message["recipients"]) == ["anna@example.net", "secret@example.net"]
    assert not message["has_bcc"]
    parsed = read(raw)
    assert parsed["From"].addresses[0].display_name == "Überwachung"
    (part,) = list(parsed.iter_attachments())
    assert (part.get_filename(), part.get_payload(decode=True)) == ("übersicht.bin", data)
    assert text_of(parsed.get_body(("plain",))) == DOTS.rstrip("\n")
