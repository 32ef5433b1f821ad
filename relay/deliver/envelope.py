"""The MAIL and RCPT lines, with the extensions the server offers."""

from __future__ import annotations

from relay.deliver.parcel import Parcel
from relay.deliver.session import Features
from relay.message import Recipient


def mail_line(parcel: Parcel, features: Features) -> bytes:
    """``MAIL FROM`` with SIZE (RFC 1870), BODY (6152), SMTPUTF8 (6531), RET and ENVID (3461), CRLF included."""
    line = f"MAIL FROM:<{parcel.mail_from}>"
    if features.size is not None:
        line += f" SIZE={parcel.size}"
    if parcel.eight_bit and features.eight_bit:
        line += " BODY=8BITMIME"
    if parcel.utf8_welcome and features.utf8:
        line += " SMTPUTF8"
    if features.dsn:
        if parcel.ret:
            line += f" RET={parcel.ret}"
        if parcel.envid:
            line += f" ENVID={parcel.envid}"
    return f"{line}\r\n".encode()


def rcpt_line(recipient: Recipient, features: Features) -> bytes:
    """``RCPT TO`` with NOTIFY and ORCPT where DSN is offered (RFC 3461 section 4), CRLF included."""
    line = f"RCPT TO:<{recipient.address}>"
    if features.dsn:
        if recipient.notify:
            line += f" NOTIFY={recipient.notify}"
        if recipient.orcpt:
            line += f" ORCPT={recipient.orcpt}"
    return f"{line}\r\n".encode()
