"""Whether Entra knows a tenant: one public request, which needs no credential."""

from __future__ import annotations

from pathlib import Path

PATIENCE = 10.0
"""Seconds: somebody is waiting at a prompt."""


def tenant_exists(
    authority: str, tenant: str, *, proxy: str | None = None, ca_file: Path | None = None
) -> bool | None:
    """None when Entra cannot be asked just now. Blocking, bounded."""
    from relay.tokens.wire import Http

    try:
        http = Http.for_entra(authority, proxy, ca_file, PATIENCE)
        try:
            answer = http.get(f"{authority}/{tenant}/v2.0/.well-known/openid-configuration")
        finally:
            http.close()
    except Exception:  # no network, a proxy, a certificate: the check says which; a question need not
        return None
    return {200: True, 400: False, 404: False}.get(answer.status_code)
