#Requires -Modules ExchangeOnlineManagement
<#
relay over Microsoft Graph with Mail.Send consented in Entra (as the set-up guide does it), limited to the mailboxes of
one group by an application access policy. Microsoft prefers roles (graph-scope) by now; this still works.

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

# 2. The mailboxes, as one mail-enabled security group
$group = Get-DistributionGroup -Identity 'relay mailboxes' -ErrorAction SilentlyContinue
if (-not $group -and $PSCmdlet.ShouldProcess('relay mailboxes', 'New-DistributionGroup')) {
    $group = New-DistributionGroup -Name 'relay mailboxes' -Type Security -MemberJoinRestriction Closed
}
foreach ($mailbox in $Mailboxes) {
    $address = (Get-Mailbox -Identity $mailbox).PrimarySmtpAddress
    $member = $group -and (Get-DistributionGroupMember -Identity $group.Identity -ResultSize Unlimited |
        Where-Object { $_.PrimarySmtpAddress -eq $address })
    if (-not $member -and $PSCmdlet.ShouldProcess($mailbox, 'Add-DistributionGroupMember')) {
        Add-DistributionGroupMember -Identity $group.Identity -Member $mailbox
    }
}

# 3. The app may use the members of that group only
$policy = Get-ApplicationAccessPolicy -ErrorAction SilentlyContinue | Where-Object { $_.AppId -eq $AppId }
if (-not $policy -and $PSCmdlet.ShouldProcess($AppId, 'New-ApplicationAccessPolicy')) {
    New-ApplicationAccessPolicy -AppId $AppId -PolicyScopeGroupId $group.PrimarySmtpAddress `
        -AccessRight RestrictAccess -Description 'relay sends for these mailboxes only' | Out-Null
}

# The test: each mailbox meant works, the stranger does not
function Test-RelayAccess([string] $mailbox) {
    (Test-ApplicationAccessPolicy -AppId $AppId -Identity $mailbox).AccessCheckResult -eq 'Granted'
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
