"""What each Microsoft cloud means for an upstream that names no addresses itself (facts 7.1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cloud:
    """Addresses and scopes of one cloud."""

    host: str
    authority: str
    graph_url: str
    smtp_scope: str
    graph_scope: str


CLOUDS = {
    "public": Cloud(
        "smtp.office365.com",
        "https://login.microsoftonline.com",
        "https://graph.microsoft.com",
        "https://outlook.office365.com/.default",
        "https://graph.microsoft.com/.default",
    ),
    "gcc-high": Cloud(
        "smtp.office365.us",
        "https://login.microsoftonline.us",
        "https://graph.microsoft.us",
        "https://outlook.office365.us/.default",
        "https://graph.microsoft.us/.default",
    ),
    # The SMTP host and scope of the DoD cloud rest on field evidence alone.
    "dod": Cloud(
        "outlook-dod.office365.us",
        "https://login.microsoftonline.us",
        "https://dod-graph.microsoft.us",
        "https://outlook-dod.office365.us/.default",
        "https://dod-graph.microsoft.us/.default",
    ),
    # Microsoft's Graph documentation names this authority; msal calls it an older name of the same service.
    "china": Cloud(
        "smtp.partner.outlook.cn",
        "https://login.chinacloudapi.cn",
        "https://microsoftgraph.chinacloudapi.cn",
        "https://partner.outlook.cn/.default",
        "https://microsoftgraph.chinacloudapi.cn/.default",
    ),
}
