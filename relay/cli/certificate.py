"""`relay certificate`: a certificate that the relay makes itself, as the application's credential."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.options import AsJson, ConfigPath, settings_of, usage
from relay.cli.output import emit_json, iso, local, say, show_fields
from relay.errors import TokenError

if TYPE_CHECKING:
    from relay.settings import Certificate, Upstream
    from relay.tokens.keypair import CertificateFacts

certificate_app = typer.Typer(
    help="Make, show or replace the certificate by which relay signs in to Microsoft 365.",
    no_args_is_help=True,
    add_completion=False,
)

UpstreamName = Annotated[
    str | None,
    typer.Option(
        "--upstream", metavar="NAME", help="server_name of the upstream; needed when several have one."
    ),
]
LONGEST_WAIT = 300.0
"""Seconds that `rotate` waits for Entra to take the new certificate; the next call goes on from there."""
PAUSE = 10.0


@certificate_app.command("new")
def new(
    file: Annotated[
        Path, typer.Argument(help="The PEM file to write, with key and certificate. It must not exist yet.")
    ],
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long it is good for.")] = 365,
    name: Annotated[str, typer.Option("--name", help="Its common name. Default: relay on this host.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key and a self-signed certificate, and say where to upload its public part.

    The private key stays in FILE (mode 0600) on this host; FILE.cer is what Entra gets.
    """
    from relay.tokens import keypair

    public = file.with_name(file.name + ".cer")
    pair = keypair.make(name or f"relay on {socket.gethostname()}", days * 86400.0, time.time())
    try:
        keypair.write_private(file, keypair.to_pem(pair), new=True)
        keypair.write_private(public, pair.leaf_pem().encode(), mode=0o644)
    except FileExistsError:
        usage(
            f"{file} exists already; take another name, or replace a registered one by `relay certificate rotate`"
        )
    except OSError as error:
        usage(f"{file} cannot be written: {error.strerror or error}")
    known = keypair.facts(pair.leaf)
    if as_json:
        emit_json({**_shape(known), "file": str(file.absolute()), "public": str(public.absolute())})
        return
    _show(known, file)
    say(_CLICKS.format(public=public, sha1=known.sha1, file=file.absolute()))


_CLICKS = """
Now, in the Microsoft Entra admin center (the guide's step 5):
  1. Applications > App registrations > Owned applications > your application
  2. Certificates & secrets > Certificates > Upload certificate
  3. Choose {public} > Add
  4. Compare the thumbprint shown there with {sha1}

Then in the configuration, instead of client_secret:
    certificate:
      file: {file}
      rotate: true        # relay replaces it in time by itself
      object_id: GUID     # Object ID on the application's Overview page

The relay's user must be able to read the file; with rotate: true also to write it and its folder."""


@certificate_app.command("show")
def show(
    file: Annotated[
        Path | None, typer.Argument(help="A file; without it, those of the configuration.")
    ] = None,
    upstream: UpstreamName = None,
    config: ConfigPath = None,
    as_json: AsJson = False,
) -> None:
    """Show the certificate's thumbprints, as the Entra admin center does, and its end. Never its key."""
    rows = [_of_file(file)] if file else [_of_upstream(one) for one in _upstreams(config, upstream)]
    if as_json:
        emit_json(rows)
        return
    for number, row in enumerate(rows):
        if number:
            typer.echo("")
        show_fields([(name.replace("_", " "), _word(value)) for name, value in row.items()])


@certificate_app.command("rotate")
def rotate(upstream: UpstreamName = None, config: ConfigPath = None, as_json: AsJson = False) -> None:
    """Replace the certificate now: the new one is registered by Graph addKey, and used once it has logged in.

    Works with the daemon running (it takes the new file at its next token) or stopped. After an interruption, run it
    again: it goes on from there. The old certificate stays usable until the end.
    """
    found = _upstreams(config, upstream)
    if len(found) > 1:
        usage("several upstreams have a certificate: name one with --upstream")
    done = _advance(found[0])
    if as_json:
        emit_json(
            {"old": _shape(done.old), "new": _shape(done.new), "removed": done.removed, "note": done.note}
        )
        return
    _show(done.new, found[0].credential.file)  # type: ignore[union-attr]
    say(f"The new certificate has logged in and is in place. The old one: SHA-1 {done.old.sha1}.")
    if done.note:
        say(done.note)
    elif not done.removed:
        say(
            f"It stays registered until it ends by itself, on {local(done.old.ends)}; you may delete it in step 5."
        )


def _advance(upstream: Upstream) -> Any:
    """Until Entra takes the new one. Raises TokenError."""
    from relay.clock import SystemClock
    from relay.tokens.rotation import advance

    deadline = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            return advance(upstream, SystemClock())
        except TokenError as error:
            if error.code != "rotation-pending" or time.monotonic() >= deadline:
                raise
            say("The new certificate is registered; waiting for Entra to take it ...")
            time.sleep(PAUSE)


def _upstreams(config: Path | None, name: str | None) -> list[Upstream]:
    """Those with a certificate, or the named one."""
    from relay.settings import Certificate

    every = settings_of(config).upstreams
    found = [one for one in every if isinstance(one.credential, Certificate) and name in (None, one.name)]
    if not found:
        whose = f"upstream {name!r}" if name else "upstream"
        usage(f"no {whose} with a certificate; make one with `relay certificate new`")
    return found


def _of_upstream(upstream: Upstream) -> dict[str, Any]:
    from relay.settings import Certificate

    certificate = upstream.credential
    assert isinstance(certificate, Certificate)
    row = {
        "upstream": upstream.name,
        **_row(certificate),
        "rotate": bool(certificate.rotation and certificate.rotation.automatic),
    }
    waiting = certificate.file.with_name(certificate.file.name + ".next")
    return {**row, "next": str(waiting) if waiting.exists() else None}


def _of_file(file: Path) -> dict[str, Any]:
    from relay.settings import Certificate

    return _row(Certificate(file, None))


def _row(certificate: Certificate) -> dict[str, Any]:
    """Facts and file of one. Raises TokenError."""
    from relay.tokens.credentials import load_certificate
    from relay.tokens.keypair import facts

    row = {**_shape(facts(load_certificate(certificate).leaf)), "file": str(certificate.file)}
    if os.name == "posix":
        row["mode"] = f"{certificate.file.stat().st_mode & 0o777:04o}"
    return row


def _shape(known: CertificateFacts) -> dict[str, Any]:
    from relay.tokens.expiry import days_left

    shape = dataclasses.asdict(known)
    left = days_left(known.ends, time.time())
    return {**shape, "begins": iso(known.begins), "ends": iso(known.ends), "days_left": left}


def _show(known: CertificateFacts, file: Path) -> None:
    show_fields(
        [
            ("file", file),
            ("subject", known.subject),
            ("SHA-1", known.sha1),
            ("SHA-256", known.sha256),
            ("ends", local(known.ends)),
        ]
    )


def _word(value: Any) -> Any:
    return ("yes" if value else "no") if isinstance(value, bool) else value
