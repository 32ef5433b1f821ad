#Requires -Modules ExchangeOnlineManagement
<#
relay over SMTP, classic grant: the app has SMTP.SendAsApp with admin consent in Entra (API permissions > APIs my
organization uses > Office 365 Exchange Online > Application permissions), and here gets FullAccess to each mailbox.

Save as relay-exchange.ps1, read it, then:
    ./relay-exchange.ps1 -WhatIf     shows what would be done, and changes nothing
    ./relay-exchange.ps1             does it; run it again whenever you like
The object id is that of the ENTERPRISE APPLICATION (Entra admin center > Applications > Enterprise applications), not
that of the App registration: with the wrong one every login just fails (535 5.7.3).
Changes take 30 minutes to 2 hours to show. A failed login within that time proves nothing.
#>
[CmdletBinding(SupportsShouldProcess = $true)]
param(
    [string] $AppId = '',
    [string] $ObjectId = '',
    [string[]] $Mailboxes = @(),
    # a mailbox that must NOT work, for the test at the end
    [string] $Stranger = ''
)
$ErrorActionPreference = 'Stop'
if (-not $AppId) { $AppId = Read-Host 'Application (client) ID' }
if (-not $ObjectId) { $ObjectId = Read-Host 'Object ID of the Enterprise application' }
if (-not $Mailboxes) { $Mailboxes = @((Read-Host 'Mailboxes, separated by commas') -split '\s*,\s*') }
Connect-ExchangeOnline -ShowBanner:$false

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

# 2. FullAccess to each mailbox
foreach ($mailbox in $Mailboxes) {
    $granted = $principal -and (Get-MailboxPermission -Identity $mailbox -User $principal.Identity |
        Where-Object { $_.AccessRights -contains 'FullAccess' -and -not $_.Deny })
    if (-not $granted -and $PSCmdlet.ShouldProcess($mailbox, 'Add-MailboxPermission FullAccess')) {
        Add-MailboxPermission -Identity $mailbox -User $principal.Identity -AccessRights FullAccess | Out-Null
    }
}

# SMTP AUTH must be on for each mailbox; its own setting wins over the tenant's, which may stay off
foreach ($mailbox in $Mailboxes) {
    if ((Get-CASMailbox -Identity $mailbox).SmtpClientAuthenticationDisabled -ne $false -and
        $PSCmdlet.ShouldProcess($mailbox, 'Set-CASMailbox -SmtpClientAuthenticationDisabled $false')) {
        Set-CASMailbox -Identity $mailbox -SmtpClientAuthenticationDisabled $false
    }
}

# The test: each mailbox meant works, the stranger does not
function Test-RelayAccess([string] $mailbox) {
    $principal = Get-ServicePrincipal | Where-Object { $_.AppId -eq $AppId }
    [bool](Get-MailboxPermission -Identity $mailbox -User $principal.Identity |
        Where-Object { $_.AccessRights -contains 'FullAccess' -and -not $_.Deny })
}
if ($WhatIfPreference) { Write-Host 'Dry run: nothing was changed, so nothing is tested.'; return }
$failed = @($Mailboxes | Where-Object { -not (Test-RelayAccess $_) })
foreach ($mailbox in $Mailboxes) {
    Write-Host ('{0,-5} {1}' -f $(if ($mailbox -in $failed) { 'FAIL' } else { 'ok' }), $mailbox)
}
if (-not $Stranger) {
    Write-Warning 'Give -Stranger with a mailbox that relay must not use, to test that as well.'
} elseif (Test-RelayAccess $Stranger) {
    Write-Host "FAIL  $Stranger can be used, and must not"
    $failed += $Stranger
} else {
    Write-Host "ok    $Stranger cannot be used, as it should be"
}
if ($failed) { throw "Not as it should be: $($failed -join ', ')" }
Write-Host 'Wait 30 minutes to 2 hours, then run: relay check'
