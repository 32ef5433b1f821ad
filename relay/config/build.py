"""From the validated model to `relay.settings.Settings`: secrets read, files resolved, clouds filled in."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from relay import settings as to
from relay.config import files
from relay.config.clouds import CLOUDS
from relay.config.credentials import Credentials
from relay.config.findings import Findings
from relay.config.model import (
    DEFAULT_BIND,
    ClientSection,
    Config,
    ListenerSection,
    SenderSection,
    UpstreamSection,
    WebSection,
)
from relay.config.secrets import SecretReader
from relay.config.values import compile_pattern, is_loopback, split_bind
from relay.dburl import has_password

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class Builder:
    """Builds the settings; what turns out wrong on the way goes to the findings."""

    def __init__(self, config: Config, secrets: SecretReader, findings: Findings) -> None:
        self._config = config
        self._secrets = secrets
        self._findings = findings
        self._credentials = Credentials(secrets, findings)

    def settings(self, source: str) -> to.Settings:
        """Everything. Of use only when the findings hold no fault afterwards."""
        config = self._config
        listeners = config.listeners or (ListenerSection(bind=DEFAULT_BIND),)
        return to.Settings(
            upstreams=tuple(self._upstream(one, f"upstreams[{n}]") for n, one in enumerate(config.upstreams)),
            listeners=tuple(self._listener(one, f"listeners[{n}]") for n, one in enumerate(listeners)),
            clients=tuple(self._client(one, f"clients[{n}]") for n, one in enumerate(config.clients)),
            senders=tuple(self._sender(one) for one in config.senders),
            default_sender=config.default_sender,
            recipients=to.RecipientPolicy(**dict(config.recipients)),
            spool=self._spool(),
            postmaster=config.postmaster,
            alerts=to.Alerts(**dict(config.alerts)),
            web=self._web(config.web) if config.web else None,
            log=to.Log(**dict(config.log)),
            workers=config.workers,
            source=source,
        )

    def _upstream(self, upstream: UpstreamSection, path: str) -> to.Upstream:
        cloud = CLOUDS[upstream.cloud]
        return to.Upstream(
            name=upstream.server_name,
            from_email=upstream.from_email,
            tenant_id=upstream.tenant_id,
            client_id=upstream.client_id,
            credential=self._credentials.first(upstream, path),
            host=upstream.host or cloud.host,
            port=upstream.port,
            timeout=upstream.timeout,
            batch_size=upstream.batch_size,
            transport=upstream.transport,
            cloud=upstream.cloud,
            authority=upstream.authority or cloud.authority,
            graph_url=upstream.graph_url or cloud.graph_url,
            smtp_scope=cloud.smtp_scope,
            graph_scope=cloud.graph_scope,
            ca_file=self._authorities(upstream, path),
            proxy=upstream.proxy,
            limits=to.MailboxLimits(**dict(upstream.limits)),
            client_secret_expires=upstream.client_secret_expires,
            next_credential=self._credentials.following(upstream, path),
            next_secret_expires=self._next_expires(upstream),
        )

    def _next_expires(self, upstream: UpstreamSection) -> datetime.date | None:
        return upstream.next_credential.client_secret_expires if upstream.next_credential else None

    def _authorities(self, upstream: UpstreamSection, path: str) -> Path | None:
        if upstream.ca_file is None:
            return None
        file = files.readable(upstream.ca_file, f"{path}.ca_file", self._findings)
        files.check_authorities(file, f"{path}.ca_file", self._findings)
        return file

    def _listener(self, listener: ListenerSection, path: str) -> to.Listener:
        host, port = split_bind(listener.bind)
        return to.Listener(
            bind=listener.bind,
            host=host,
            port=port,
            allow=listener.allow or (LOOPBACK if is_loopback(host) else EVERYWHERE),
            tls=self._tls(listener, f"{path}.tls"),
            auth=listener.auth,
            auth_in_clear=listener.auth_in_clear,
            answer_after=listener.answer_after,
            answer_within=listener.answer_within,
            newlines=listener.newlines,
            proxy_protocol_from=listener.proxy_protocol_from,
            limits=to.ListenerLimits(**dict(listener.limits)),
        )

    def _tls(self, listener: ListenerSection, path: str) -> to.ListenerTls:
        tls = listener.tls
        if tls.mode == "none" or tls.certificate is None or tls.key is None:
            return to.ListenerTls(tls.mode, None, None, tls.minimum)
        certificate, key = self._pair(tls.certificate, tls.key, path)
        return to.ListenerTls(tls.mode, certificate, key, tls.minimum)

    def _pair(self, certificate: str, key: str, path: str) -> tuple[Path, Path]:
        paths = (f"{path}.certificate", f"{path}.key")
        first = files.readable(certificate, paths[0], self._findings)
        second = files.readable(key, paths[1], self._findings, private=True)
        files.check_pair(first, second, paths, self._findings)
        return first, second

    def _client(self, client: ClientSection, path: str) -> to.ClientLogin:
        password = self._secrets.read_hash(client.password, f"{path}.password")
        return to.ClientLogin(client.username, password, client.may_send_as)

    def _sender(self, rule: SenderSection) -> to.SenderRule:
        name = rule.upstream or self._config.upstreams[0].server_name
        senders = {upstream.server_name: upstream.from_email for upstream in self._config.upstreams}
        from_address = rule.from_ or senders.get(name)
        return to.SenderRule(
            match=compile_pattern(rule.match) if rule.match.startswith("/") else rule.match,
            network=rule.client if not isinstance(rule.client, str) else None,
            user=rule.client.removeprefix("user:") if isinstance(rule.client, str) else None,
            from_address=None if from_address == "keep" else from_address,
            login=rule.login,
            name=rule.name,
            reply_to=rule.reply_to,
            upstream=name,
        )

    def _spool(self) -> to.SpoolSettings:
        spool = dict(self._config.spool)
        for key in ("url", "local"):
            if (spool[key] or "").startswith("sqlite:///"):
                file = files.resolve(spool[key].removeprefix("sqlite:///"), f"spool.{key}", self._findings)
                spool[key] = "sqlite:///" + file.as_posix()
        if not spool["url"].startswith("sqlite:") and has_password(spool["url"]):
            self._findings.warn(
                "spool.url", "it holds a password; a ~/.pgpass file keeps it out of the configuration"
            )
        return to.SpoolSettings(**spool)

    def _web(self, web: WebSection) -> to.Web:
        host, port = split_bind(web.bind)
        password = self._secrets.read_hash(web.password, "web.password") if web.password is not None else None
        certificate = key = None
        if web.tls is not None:
            certificate, key = self._pair(web.tls.certificate, web.tls.key, "web.tls")
        names = tuple(name.lower() for name in web.names)
        return to.Web(web.bind, host, port, password, certificate, key, names, web.metrics_from)
