"""The scripts for the Exchange side: safely filled in, repeatable, dry on request, and tested both ways."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.check.powershell import quote
from relay.cli.app import build_app
from relay.setup.exchange import MODELS, Target, script

CLIENT = "b7a0d3f2-91c4-4c55-8e0a-6c1b2d3e4f05"
OBJECT = "1c2d3e4f-0000-4111-8222-333344445555"
FULL = Target(CLIENT, OBJECT, ("notifications@contoso.com", "o'brien@contoso.com"))
_TOKEN = re.compile(
    r"<#.*?#>|#[^\n]*|'(?:''|[^'])*'|\"(?:`.|\"\"|[^\"])*\"|[{}()\[\]]|[^\s{}()\[\]'\"#]+|\s+|.", re.DOTALL
)
_PAIRS = {")": "(", "}": "{", "]": "["}
"""Just enough of PowerShell's lexical rules to see that nothing is left open."""


def words_of(text: str) -> list[str]:
    """The words of a script, strings and comments as one each; empty when a bracket or a quote is left open."""
    words, open_ = [], []
    for word in _TOKEN.findall(text):
        if word in ("'", '"'):
            return []
        if word in _PAIRS.values():
            open_.append(word)
        elif word in _PAIRS and (not open_ or open_.pop() != _PAIRS[word]):
            return []
        if not word.isspace():
            words.append(word)
    return [] if open_ else words


@pytest.mark.parametrize("model", MODELS)
def test_each_script_is_whole(model: str) -> None:
    """Plain ASCII (Windows PowerShell takes a file without byte order mark for ANSI), all brackets closed."""
    text = script(model, FULL)
    assert text.isascii()
    assert words_of(text), "a bracket or a quote is left open"
    assert "[CmdletBinding(SupportsShouldProcess = $true)]" in text
    assert f"$AppId = '{CLIENT}'" in text
    assert f"$ObjectId = '{OBJECT}'" in text
    assert "@('notifications@contoso.com', 'o''brien@contoso.com')" in text
    assert "{{" not in text and "}}" not in text
    assert "30 minutes to 2 hours" in text


@pytest.mark.parametrize("model", MODELS)
def test_nothing_changes_in_a_dry_run(model: str) -> None:
    """Every cmdlet that changes something stands in a block that ShouldProcess opens: -WhatIf never reaches it."""
    guarded = 0
    depth_of_guard: list[int] = []
    depth = 0
    for line in script(model, FULL).splitlines():
        code = line.split("#", 1)[0]
        cmdlet = re.match(r"\s*(?:\$\w+ = )?((?:New|Add|Set|Remove)-\w+)", code)
        if cmdlet:
            assert depth_of_guard, line
            guarded += 1
        opens = code.count("{") - code.count("}")
        if "ShouldProcess(" in code and code.rstrip().endswith("{"):
            depth_of_guard.append(depth)
        depth += opens
        while depth_of_guard and depth <= depth_of_guard[-1]:
            depth_of_guard.pop()
    assert guarded >= 2
    assert depth == 0


@pytest.mark.parametrize("model", MODELS)
def test_asks_before_it_makes(model: str) -> None:
    """For each thing that is made there is a question first whether it is there: a second run makes nothing."""
    text = script(model, FULL)
    for made in set(re.findall(r"^\s*(?:\$\w+ = )?(?:New|Add)-(\w+)", text, re.MULTILINE)):
        first = min(text.index(f"New-{made} ") if f"New-{made} " in text else len(text),
                    text.index(f"Add-{made} ") if f"Add-{made} " in text else len(text))  # fmt: skip
        assert f"Get-{made}" in text[:first], made


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        ("classic", ["New-ServicePrincipal", "-AccessRights FullAccess", "Set-CASMailbox"]),
        ("rbac", ["New-ServicePrincipal", "'Application SMTP.SendAsApp' -App $AppId -CustomResourceScope 'relay'",
                  "MemberOfGroup -eq", "Test-ServicePrincipalAuthorization", "Set-CASMailbox"]),
        ("graph-scope", ["'Application Mail.Send' -App $AppId -CustomResourceScope 'relay graph'",
                         "Test-ServicePrincipalAuthorization", "Remove Mail.Send"]),
        ("graph-policy", ["New-ApplicationAccessPolicy", "-AccessRight RestrictAccess",
                          "Test-ApplicationAccessPolicy"]),
    ],
)  # fmt: skip
def test_each_model_does_its_own(model: str, lines: list[str]) -> None:
    """What Microsoft's pages ask for in that model, and a test with a mailbox that must not work."""
    text = script(model, FULL)
    for line in lines:
        assert line in text
    assert "Test-RelayAccess $Stranger" in text
    assert ("Set-CASMailbox" in text) == (model in ("classic", "rbac"))


@pytest.mark.parametrize(
    "nasty", ["it's", "a'; Remove-Mailbox x; '", "$(Get-Secret)", "\u2019; x", "`n", "\u201bx"]
)
def test_a_quoted_text_is_only_a_text(nasty: str) -> None:
    """Nothing that is filled in can end its string: PowerShell's typographic quotes included."""
    shown = quote(nasty)
    marks = "'\u2018\u2019\u201a\u201b"
    inner = shown[1:-1]
    assert shown[0] == shown[-1] == "'"
    assert not re.search(f"(?<![{marks}])[{marks}](?:[{marks}]{{2}})*(?![{marks}])", inner)
    assert re.sub(f"([{marks}])\\1", r"\1", inner) == nasty


def printed(*words: str) -> Result:
    """`relay setup --print-powershell WORDS...`."""
    return CliRunner().invoke(build_app("setup"), ["setup", "--print-powershell", *words])


def test_printed_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filled in from the options; without any, the script asks. Nothing else on standard output."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    given = (
        "--client-id",
        CLIENT,
        "--object-id",
        OBJECT,
        "--mailbox",
        "a@contoso.com",
        "--mailbox",
        "b@contoso.com",
    )
    result = printed("rbac", *given)
    assert result.exit_code == 0
    assert result.stdout == script("rbac", Target(CLIENT, OBJECT, ("a@contoso.com", "b@contoso.com")))
    assert printed("classic").stdout == script("classic", Target())
    wrong = printed("nonsense")
    assert (wrong.exit_code, "classic, rbac" in wrong.stderr) == (2, True)
