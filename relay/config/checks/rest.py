"""Recipients, spool and web."""

from __future__ import annotations

from relay.config.findings import Findings
from relay.config.model import Config
from relay.config.values import is_loopback, split_bind


def check(config: Config, findings: Findings) -> None:
    """Every check of these sections."""
    _recipients(config, findings)
    _spool(config, findings)
    _web(config, findings)


def _recipients(config: Config, findings: Findings) -> None:
    if not config.recipients.allow:
        findings.warn("recipients.allow", "the list is empty, so every recipient is refused")
    if "*" in config.recipients.deny:
        findings.warn("recipients.deny", "this refuses every recipient")


def _spool(config: Config, findings: Findings) -> None:
    if config.spool.local is not None and config.spool.url.startswith("sqlite:"):
        findings.fault(
            "spool.local",
            "the spool is on this host's own disk already; a local one is for the time when a database is away",
            "take spool.local out, or set spool.url to postgresql://user@host/database",
            involves=("spool.url",),
        )
    if config.spool.delay_notice >= config.spool.max_age:
        findings.warn(
            "spool.delay_notice", "mail fails before it is called delayed; make it shorter than max_age",
            involves=("spool.max_age",),
        )  # fmt: skip
    if config.spool.retry[0] >= config.spool.max_age:
        findings.warn(
            "spool.retry", "the first wait is longer than max_age: nothing is ever tried twice",
            involves=("spool.max_age",),
        )  # fmt: skip


def _web(config: Config, findings: Findings) -> None:
    if config.web is None:
        return
    if config.web.tls is None and not is_loopback(split_bind(config.web.bind)[0]):
        findings.warn(
            "web.bind", "the page can be reached from other machines without TLS; set web.tls, or bind 127.0.0.1",
            involves=("web.tls",),
        )  # fmt: skip
