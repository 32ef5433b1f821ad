"""A longer run than the tests': `make fuzz`. Octets of a message through reader, header, rewrite and fitting.

Coverage-guided (atheris, libFuzzer); crashes are written to the working folder. Arguments are libFuzzer's.
"""

from __future__ import annotations

import asyncio
import sys

import atheris

with atheris.instrument_imports(include=["relay"]):
    from tests.dialogs.submitted import submitted
    from tests.fuzz.test_fuzz_mime import arrived


def one_input(octets: bytes) -> None:
    """The first octet says how the message is cut into packets."""
    if not octets:
        return
    stored = arrived(octets[1:], octets[0] or 100_000)
    if stored is None:
        return
    left = asyncio.run(submitted(stored))
    mended = not any("left too long" in note for note in left.notes)
    faults = [one for one in left.faults() if mended or one != "a line over 998 octets"]
    if len(stored.message.header) < 40_000 and faults:  # a longer one may grow beyond 256 kB, and is refused
        raise AssertionError(faults)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
