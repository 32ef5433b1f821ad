"""A longer run than the tests': `make fuzz`. Command lines through the parsers of paths, parameters, PROXY and AUTH.

They may say no in their own words; any other error is a find. Arguments are libFuzzer's.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["relay"]):
    from relay.accept import addresses, auth, params, proxy, replies
    from relay.message import Reply

REFUSALS = (
    addresses.BadAddress, params.BadParameter, params.UnknownParameter, proxy.BadProxyHeader, auth.BadCredentials,
)  # fmt: skip


def one_input(octets: bytes) -> None:
    """Each parser in turn."""
    text = octets.decode("utf-8", "replace")
    with contextlib.suppress(*REFUSALS):
        path = addresses.parse_path(text)
        if path.address and not (addresses.is_valid(path.address) and path.address.isprintable()):
            raise AssertionError(path)
        params.mail_parameters(path.rest)
    for parse in (params.rcpt_parameters, auth.decode, auth.plain_parts):
        with contextlib.suppress(*REFUSALS):
            parse(text)
    with contextlib.suppress(*REFUSALS):
        proxy.read_header(octets)
    line = replies.encode(Reply(550, "5.7.1", text))
    if line.count(b"\n") != 1 or not line.endswith(b"\r\n") or len(line) > 512:
        raise AssertionError(line)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
