"""The Exchange side as PowerShell scripts: to be read before they run, run as often as one likes, and tried dry.

Four models (facts 1.5, 6.5). Each script asks (`Get-`) before it makes (`New-`), makes nothing under ``-WhatIf``, and
ends with a positive and a negative test: the mailboxes meant work, another does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relay.check.powershell import quote

MODELS = ("classic", "rbac", "graph-scope", "graph-policy")
"""SMTP by consent and mailbox permission; SMTP by an Exchange role; Graph by a role; Graph by an access policy."""
GROUP = "relay mailboxes"
SCOPE = "relay"
_NO_OBJECT_ID = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What a script is filled in with; what is not known is asked for when it runs."""

    client_id: str = ""
    object_id: str = ""
    """The Enterprise application's: the ``oid`` of its tokens."""
    mailboxes: tuple[str, ...] = ()


_PURPOSE = {
    "classic": """\
relay over SMTP, classic grant: the app has SMTP.SendAsApp with admin consent in Entra (API permissions > APIs my
organization uses > Office 365 Exchange Online > Application permissions), and here gets FullAccess to each mailbox.""",
    "rbac": """\
relay over SMTP by the Exchange role "Application SMTP.SendAsApp", limited to the mailboxes of one group.
The app needs NO permission in Entra for this. If it has SMTP.SendAsApp there, remove it: with it, Exchange asks for
mailbox permissions again.""",
    "graph-scope": """\
relay over Microsoft Graph by the Exchange role "Application Mail.Send", limited to the mailboxes of one group.
Remove Mail.Send under API permissions in Entra once this works: rights add up, and a consent there covers every
mailbox of the tenant whatever is scoped here. Large attachments need the role "Application Mail.ReadWrite", too.""",
    "graph-policy": """\
relay over Microsoft Graph with Mail.Send consented in Entra (as the set-up guide does it), limited to the mailboxes of
one group by an application access policy. Microsoft prefers roles (graph-scope) by now; this still works.""",
}

_HEAD = """\
#Requires -Modules ExchangeOnlineManagement
<#
{purpose}

Save as relay-exchange.ps1, read it, then:
    ./relay-exchange.ps1 -WhatIf     shows what would be done, and changes nothing
    ./relay-exchange.ps1             does it; run it again whenever you like
The object id is that of the ENTERPRISE APPLICATION (Entra admin center > Applications > Enterprise applications), not
that of the App registration: with the wrong one every login just fails (535 5.7.3).
Changes take 30 minutes to 2 hours to show. A failed login within that time proves nothing.
#>
[CmdletBinding(SupportsShouldProcess = $true)]
param(
    [string] $AppId = {app_id},
    [string] $ObjectId = {object_id},
    [string[]] $Mailboxes = @({mailboxes}),
    # a mailbox that must NOT work, for the test at the end
    [string] $Stranger = ''
)
$ErrorActionPreference = 'Stop'
if (-not $AppId) {{ $AppId = Read-Host 'Application (client) ID' }}
if (-not $ObjectId) {{ $ObjectId = Read-Host 'Object ID of the Enterprise application' }}
if (-not $Mailboxes) {{ $Mailboxes = @((Read-Host 'Mailboxes, separated by commas') -split '\\s*,\\s*') }}
Connect-ExchangeOnline -ShowBanner:$false
"""

_PRINCIPAL = """
# 1. Exchange must know the application
$principal = Get-ServicePrincipal | Where-Object { $_.AppId -eq $AppId }
if ($principal -and $principal.ObjectId -ne $ObjectId) {
    Write-Warning "Exchange has object id $($principal.ObjectId) for this app, not $ObjectId."
    if ($PSCmdlet.ShouldProcess($AppId, 'Remove-ServicePrincipal with the wrong object id')) {
        Remove-ServicePrincipal -Identity $principal.Identity -Confirm:$false
        $principal = $null
    }
}
if (-not $principal -and $PSCmdlet.ShouldProcess($AppId, 'New-ServicePrincipal')) {
    $principal = New-ServicePrincipal -AppId $AppId -ObjectId $ObjectId -DisplayName 'relay'
}
"""

_PERMISSION = """
# 2. FullAccess to each mailbox
foreach ($mailbox in $Mailboxes) {
    $granted = $principal -and (Get-MailboxPermission -Identity $mailbox -User $principal.Identity |
        Where-Object { $_.AccessRights -contains 'FullAccess' -and -not $_.Deny })
    if (-not $granted -and $PSCmdlet.ShouldProcess($mailbox, 'Add-MailboxPermission FullAccess')) {
        Add-MailboxPermission -Identity $mailbox -User $principal.Identity -AccessRights FullAccess | Out-Null
    }
}
"""

_GROUP = """
# 2. The mailboxes, as one mail-enabled security group
$group = Get-DistributionGroup -Identity {group} -ErrorAction SilentlyContinue
if (-not $group -and $PSCmdlet.ShouldProcess({group}, 'New-DistributionGroup')) {{
    $group = New-DistributionGroup -Name {group} -Type Security -MemberJoinRestriction Closed
}}
foreach ($mailbox in $Mailboxes) {{
    $address = (Get-Mailbox -Identity $mailbox).PrimarySmtpAddress
    $member = $group -and (Get-DistributionGroupMember -Identity $group.Identity -ResultSize Unlimited |
        Where-Object {{ $_.PrimarySmtpAddress -eq $address }})
    if (-not $member -and $PSCmdlet.ShouldProcess($mailbox, 'Add-DistributionGroupMember')) {{
        Add-DistributionGroupMember -Identity $group.Identity -Member $mailbox
    }}
}}
"""

_ROLE = """
# 3. The role, for the members of that group only
$scope = Get-ManagementScope -Identity {scope} -ErrorAction SilentlyContinue
if (-not $scope -and $PSCmdlet.ShouldProcess({scope}, 'New-ManagementScope')) {{
    $name = $group.DistinguishedName.Replace("'", "''")
    $scope = New-ManagementScope -Name {scope} -RecipientRestrictionFilter "MemberOfGroup -eq '$name'"
}}
$assignment = Get-ManagementRoleAssignment -Role {role} -ErrorAction SilentlyContinue |
    Where-Object {{ $_.App -in $AppId, $ObjectId }}
if (-not $assignment -and $PSCmdlet.ShouldProcess({role}, 'New-ManagementRoleAssignment')) {{
    New-ManagementRoleAssignment -Role {role} -App $AppId -CustomResourceScope {scope} | Out-Null
}}
"""

_POLICY = """
# 3. The app may use the members of that group only
$policy = Get-ApplicationAccessPolicy -ErrorAction SilentlyContinue | Where-Object { $_.AppId -eq $AppId }
if (-not $policy -and $PSCmdlet.ShouldProcess($AppId, 'New-ApplicationAccessPolicy')) {
    New-ApplicationAccessPolicy -AppId $AppId -PolicyScopeGroupId $group.PrimarySmtpAddress `
        -AccessRight RestrictAccess -Description 'relay sends for these mailboxes only' | Out-Null
}
"""

_SWITCH = """
# SMTP AUTH must be on for each mailbox; its own setting wins over the tenant's, which may stay off
foreach ($mailbox in $Mailboxes) {
    if ((Get-CASMailbox -Identity $mailbox).SmtpClientAuthenticationDisabled -ne $false -and
        $PSCmdlet.ShouldProcess($mailbox, 'Set-CASMailbox -SmtpClientAuthenticationDisabled $false')) {
        Set-CASMailbox -Identity $mailbox -SmtpClientAuthenticationDisabled $false
    }
}
"""

_TEST = """
# The test: each mailbox meant works, the stranger does not
function Test-RelayAccess([string] $mailbox) {{
{test}
}}
if ($WhatIfPreference) {{ Write-Host 'Dry run: nothing was changed, so nothing is tested.'; return }}
$failed = @($Mailboxes | Where-Object {{ -not (Test-RelayAccess $_) }})
foreach ($mailbox in $Mailboxes) {{
    Write-Host ('{{0,-5}} {{1}}' -f $(if ($mailbox -in $failed) {{ 'FAIL' }} else {{ 'ok' }}), $mailbox)
}}
if (-not $Stranger) {{
    Write-Warning 'Give -Stranger with a mailbox that relay must not use, to test that as well.'
}} elseif (Test-RelayAccess $Stranger) {{
    Write-Host "FAIL  $Stranger can be used, and must not"
    $failed += $Stranger
}} else {{
    Write-Host "ok    $Stranger cannot be used, as it should be"
}}
if ($failed) {{ throw "Not as it should be: $($failed -join ', ')" }}
Write-Host 'Wait 30 minutes to 2 hours, then run: relay check'
"""

_TESTS = {
    "classic": """\
    $principal = Get-ServicePrincipal | Where-Object { $_.AppId -eq $AppId }
    [bool](Get-MailboxPermission -Identity $mailbox -User $principal.Identity |
        Where-Object { $_.AccessRights -contains 'FullAccess' -and -not $_.Deny })""",
    "graph-policy": """\
    (Test-ApplicationAccessPolicy -AppId $AppId -Identity $mailbox).AccessCheckResult -eq 'Granted'""",
}
_ROLES = {"rbac": "Application SMTP.SendAsApp", "graph-scope": "Application Mail.Send"}


def script(model: str, target: Target) -> str:
    """The whole script of one of `MODELS`. Raises KeyError for another name."""
    head = _HEAD.format(
        purpose=_PURPOSE[model],
        app_id=quote(target.client_id),
        object_id=quote(target.object_id or _NO_OBJECT_ID),
        mailboxes=_listed(target.mailboxes),
    )
    return head + "".join(_steps(model)) + _TEST.format(test=_test(model))


def _steps(model: str) -> list[str]:
    group, scope = quote(GROUP), quote(SCOPE if model == "rbac" else f"{SCOPE} graph")
    if model == "classic":
        return [_PRINCIPAL, _PERMISSION, _SWITCH]
    if model == "graph-policy":
        return [_GROUP.format(group=group), _POLICY]
    role = _ROLE.format(scope=scope, role=quote(_ROLES[model]))
    return [_PRINCIPAL, _GROUP.format(group=group), role, *([_SWITCH] if model == "rbac" else [])]


def _test(model: str) -> str:
    if model in _TESTS:
        return _TESTS[model]
    role = quote(_ROLES[model])
    return (
        "    # asks Exchange itself and not its cache, so it is right at once\n"
        "    [bool](Test-ServicePrincipalAuthorization -Identity $AppId -Resource $mailbox |\n"
        f"        Where-Object {{ $_.RoleName -eq {role} -and $_.InScope -eq $true }})"
    )


def _listed(mailboxes: Sequence[str]) -> str:
    return ", ".join(quote(one) for one in mailboxes)
