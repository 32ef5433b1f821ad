"""Sender rules: upstreams and users that exist, rules that can match."""

from __future__ import annotations

import re

from relay.config.faults import printable
from relay.config.findings import Findings
from relay.config.model import Config, SenderSection
from relay.config.tree import close

# A repeated group that itself ends in a repetition: time can grow exponentially with the sender's length.
_NESTED_REPEAT = re.compile(r"[*+}]\)[*+{]")


def check(config: Config, findings: Findings) -> None:
    """Every check of this section."""
    everything: int | None = None
    for index, rule in enumerate(config.senders):
        path = f"senders[{index}]"
        _upstream(rule, path, config, findings)
        _user(rule, path, config, findings)
        _signed_in(rule, path, config, findings)
        if everything is not None:
            findings.warn(
                f"{path}.match", f"never used: senders[{everything}] matches every sender before it"
            )
        elif rule.match == "*" and rule.client is None:
            everything = index
        if rule.match.startswith("/") and _NESTED_REPEAT.search(rule.match):
            findings.warn(
                f"{path}.match", "a repetition inside a repetition can take very long; write it more simply"
            )


def _upstream(rule: SenderSection, path: str, config: Config, findings: Findings) -> None:
    names = [upstream.server_name for upstream in config.upstreams]
    if rule.upstream is None or rule.upstream in names:
        return
    meant = close(rule.upstream, names)
    known = ", ".join(f"`{name}`" for name in names)
    findings.fault(
        f"{path}.upstream",
        f"no upstream has the server_name `{printable(rule.upstream)}`",
        f"did you mean `{meant}`?" if meant else f"write one of: {known}",
        involves=tuple(f"upstreams[{index}].server_name" for index in range(len(names))),
    )


def _user(rule: SenderSection, path: str, config: Config, findings: Findings) -> None:
    if not isinstance(rule.client, str):
        return
    name, names = rule.client.removeprefix("user:"), [client.username for client in config.clients]
    if name in names:
        return
    meant = close(name, names)
    findings.fault(
        f"{path}.client",
        f"`clients` has no username `{printable(name)}`",
        f"did you mean `user:{meant}`?" if meant else "add it to `clients`, or write a network",
        involves=("clients",),
    )


def _signed_in(rule: SenderSection, path: str, config: Config, findings: Findings) -> None:
    """A user's sign-in opens the mailbox of that user and no other."""
    named = rule.upstream or config.upstreams[0].server_name
    upstream = next((one for one in config.upstreams if one.server_name == named), None)
    if upstream is None or upstream.user_login is None:
        return
    user = upstream.from_email
    mailboxes = rule.login or ((rule.from_ or user),)
    if all(one.lower() == user.lower() for one in mailboxes):
        return
    findings.fault(
        f"{path}.login" if rule.login else f"{path}.from",
        f"`{printable(named)}` signs in as a user (user_login), and so can submit as {user} alone",
        f"write login: {user} (another `from` needs Send As in Exchange), or use an application's credential",
        involves=tuple(f"upstreams[{index}].from_email" for index in range(len(config.upstreams))),
    )
