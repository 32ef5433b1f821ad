"""What the assistant says: the guide's steps with the exact clicks, and what to type where at the end."""

from __future__ import annotations

from collections.abc import Sequence

from relay.check.listeners import EVERYWHERE
from relay.settings import Listener, Web

BEFORE = """\
Before you start (the guide's step 0): you need the right to register an application and to grant consent (Global or
Application Administrator), an Exchange Online subscription, and a mailbox that mail is sent from. A mailbox of its own
(notifications@...) is better than a person's, who may leave. Outbound TCP 587 and 443 must be open."""

REGISTER = """\
Steps 1 and 2 - register the application
  https://entra.microsoft.com > Applications > App registrations > New registration
  Name: relay. Accounts in this organizational directory only (single tenant). No redirect URI. Register."""

PERMISSIONS = """\
Steps 3 and 4 - permission and consent
  In the application: API permissions > Add a permission > Microsoft Graph > Application permissions (not Delegated)
  > Mail.Send > Add permissions. Then Grant admin consent > Yes. The column Status must turn green.
  That is enough to send over Graph. For SMTP (keeps display names, takes large mail) see, at any later time:
  relay setup --print-powershell classic (or rbac)."""

IDS = """\
Step 6 - the two ids (we take them before the secret, so that they can be looked up at Microsoft)
  In the application: Overview. Copy Directory (tenant) ID and Application (client) ID; not the Object ID."""

CREDENTIAL = """\
Step 5 - the secret
  In the application: Certificates & secrets > Client secrets > New client secret. Description: relay. Expires:
  24 months. Add. Copy the column Value at once (not Secret ID): it is shown only now. Note the column Expires.
  What you paste here is not shown, and goes into a file of its own that only relay may read.
  (A certificate that relay renews by itself, a managed identity, or a user who signs in once: docs/credentials.md. Name it
  in the configuration, then run relay setup again: it keeps the credential it finds there.)"""

SETTINGS = """\
Step 7 - the settings"""

WHO = """\
What will connect to relay?
  host        programs on this machine, such as Signify at localhost
  lan         printers, scanners and other machines of your network (and this machine)
  containers  containers on this machine (and this machine)"""


def page(web: Web | None) -> str:
    """How one gets to the admin page for the first time; empty where there is none."""
    if web is None:
        return ""
    scheme = "https" if web.certificate is not None else "http"
    first = (
        "" if web.password is not None
        else "\n  relay run writes a link into its log (in a terminal: on the screen) by which the page's password is set."
    )  # fmt: skip
    return f"Admin page: {scheme}://{web.bind}/{first}\n"


def ending(listeners: Sequence[Listener], clients: str | None, address: str) -> str:
    """What to type into Signify, the printer or the container. ``address``: this machine's, for other machines."""
    lines = ["What to type, and where:"]
    for one in listeners:
        local = one.host == "localhost" or one.host.startswith("127.") or one.host == "::1"
        server = (
            "localhost" if local or clients == "host" else address if one.host in EVERYWHERE else one.host
        )
        login = {"none": "none", "optional": "none needed", "required": "a name and password from `clients`"}[
            one.auth
        ]
        security = {
            "none": "none", "starttls": "STARTTLS", "implicit": "TLS/SSL", "auto": "none, STARTTLS or TLS/SSL",
        }[one.tls.mode]  # fmt: skip
        lines.append(
            f"  {_who(clients, local=local)}: server {server}, port {one.port}, credentials: {login}, encryption: {security}"
        )
    lines.append(
        "  In Signify: Gear > Ruleset > Notifications > Use own SMTP details; leave Credentials required off. From: any "
        "address; mail leaves from the mailbox above."
    )
    if clients == "containers":
        lines.append(
            "  From inside a container, this machine is host.docker.internal or the bridge's address."
        )
    return "\n".join(lines)


def _who(clients: str | None, *, local: bool) -> str:
    if local or clients == "host":
        return "On this machine"
    return {"lan": "On the printer or scanner", "containers": "In the container"}.get(
        clients or "", "On other machines"
    )
