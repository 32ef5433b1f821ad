"""Reading a token: what it grants, for whom, and what that means for the administrator (facts 1.4, 1.6)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.settings import ManagedIdentity
from relay.tokens import claims
from relay.tokens.contract import Resource, Token
from tests.tokens.fake_entra_server import CLIENT, GRAPH, OUTLOOK, TENANT, make_token, make_upstream

UPSTREAM = make_upstream("https://localhost", None)


def token(resource: Resource, **changes: object) -> Token:
    """A token of that resource; a claim set to None is left out."""
    aud = OUTLOOK if resource is Resource.SMTP else GRAPH
    payload = {"aud": aud, "tid": TENANT, "appid": CLIENT, **changes}
    payload = {name: value for name, value in payload.items() if value is not None}
    text = make_token(**payload)
    decoded = claims.decode(text)
    return Token(text, resource, time.time() + 3600, claims.roles(decoded), decoded)


def found(one: Token, **options: float) -> dict[str, str]:
    """Slug and level of each finding."""
    return {finding.slug: finding.level for finding in claims.judge(one, UPSTREAM, **options)}


@pytest.mark.parametrize(
    ("resource", "roles", "expected"),
    [
        (Resource.GRAPH, ["Mail.Send"], {"role-present": "ok"}),
        (Resource.GRAPH, None, {"role-absent": "warn"}),
        (Resource.GRAPH, ["User.Read.All"], {"role-other": "warn"}),
        (Resource.SMTP, ["SMTP.SendAsApp"], {"role-present": "ok"}),
        (Resource.SMTP, None, {"role-absent": "warn"}),
        (Resource.SMTP, ["IMAP.AccessAsApp", "full_access_as_app"], {"role-other": "warn"}),
    ],
)
def test_the_table_of_rights(resource: Resource, roles: list[str] | None, expected: dict[str, str]) -> None:
    """Absent roles warn and never refuse: Exchange roles leave no trace in a token."""
    assert found(token(resource, roles=roles)) == expected


def test_may_send() -> None:
    """Only the right of the token's own service counts."""
    assert claims.may_send(token(Resource.GRAPH, roles=["Mail.Send"]))
    assert not claims.may_send(token(Resource.SMTP, roles=["Mail.Send"]))
    assert not claims.may_send(token(Resource.SMTP))


@pytest.mark.parametrize("aud", [GRAPH + "/", GRAPH.upper(), "00000003-0000-0000-c000-000000000000"])
def test_audiences_in_other_spellings(aud: str) -> None:
    """A slash, capitals, or the service's application id mean the same."""
    assert found(token(Resource.GRAPH, aud=aud, roles=["Mail.Send"])) == {"role-present": "ok"}


def test_a_token_for_another_service() -> None:
    """A Graph token at SMTP earns 535 5.7.3: said before."""
    assert found(token(Resource.SMTP, aud=GRAPH, roles=["Mail.Send"])) == {"audience": "fail"}


def test_a_user_token() -> None:
    """The scp claim shows the wrong flow."""
    assert found(token(Resource.GRAPH, scp="Mail.Send")) == {"delegated": "fail"}


def test_another_tenant_or_application() -> None:
    """Compared with the configuration, in any case of letters; an identity's own id need not be configured."""
    stranger = "99999999-9999-9999-9999-999999999999"
    good = {"roles": ["Mail.Send"]}
    assert found(token(Resource.GRAPH, tid=stranger, **good)) == {"role-present": "ok", "tenant": "warn"}
    assert found(token(Resource.GRAPH, appid=None, azp=stranger, **good)) == {
        "role-present": "ok",
        "application": "warn",
    }
    assert found(token(Resource.GRAPH, tid=TENANT.upper(), **good)) == {"role-present": "ok"}
    named = make_upstream("https://x", None, tenant_id="contoso.com", credential=ManagedIdentity(None))
    assert [f.slug for f in claims.judge(token(Resource.GRAPH, appid=stranger, **good), named)] == [
        "role-present"
    ]


def test_a_token_from_the_future() -> None:
    """Entra dates nbf back: one ahead of us means our clock is slow."""
    now = time.time()
    ahead = token(Resource.GRAPH, nbf=now + 600, roles=["Mail.Send"])
    assert found(ahead, now=now) == {"role-present": "ok", "clock": "fail"}
    assert found(ahead, now=now + 700) == {"role-present": "ok"}
    assert found(ahead) == {"role-present": "ok"}


def test_an_opaque_token() -> None:
    """Not ours to read: only sending decides."""
    assert found(Token("opaque", Resource.SMTP, 0.0)) == {"opaque": "warn"}


def test_every_warning_has_a_remedy_and_shows_no_token() -> None:
    """Findings are for pages and terminals."""
    one = token(Resource.SMTP, roles=["IMAP.AccessAsApp"], tid="99999999-9999-9999-9999-999999999999")
    findings = claims.judge(one, UPSTREAM)
    assert [finding.level for finding in findings] == ["warn", "warn"]
    assert all(finding.remedy and one.value not in finding.seen + finding.remedy for finding in findings)


@given(st.text(max_size=200))
def test_decoding_never_fails(text: str) -> None:
    """Anything at all is read as nothing, or as an object."""
    for value in (text, f"a.{text}.c", make_token(any=text)):
        assert isinstance(claims.decode(value), dict)
    assert claims.decode(make_token(any=text)) == {"any": text}


@pytest.mark.parametrize("value", ["x", None, [1, "a"], {}])
def test_roles_of_odd_shapes(value: object) -> None:
    """Only texts in a list are roles."""
    assert claims.roles({"roles": value}) == (("a",) if isinstance(value, list) else ())


def test_an_identitys_missing_right_is_not_sent_to_a_page_that_does_not_exist() -> None:
    """Managed identities have no API permissions page: the remedy is PowerShell."""
    identity = make_upstream("https://localhost", None, credential=ManagedIdentity(None))
    (finding,) = claims.judge(token(Resource.GRAPH), identity)
    assert (finding.slug, finding.level) == ("role-absent", "warn")
    assert "New-MgServicePrincipalAppRoleAssignment" in finding.remedy
    assert "App registrations" not in finding.remedy
