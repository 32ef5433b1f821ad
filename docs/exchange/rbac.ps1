#Requires -Modules ExchangeOnlineManagement
<#
relay over SMTP by the Exchange role "Application SMTP.SendAsApp", limited to the mailboxes of one group.
The app needs NO permission in Entra for this. If it has SMTP.SendAsApp there, remove it: with it, Exchange asks for
mailbox permissions again.

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

# 3. The role, for the members of that group only
$scope = Get-ManagementScope -Identity 'relay' -ErrorAction SilentlyContinue
if (-not $scope -and $PSCmdlet.ShouldProcess('relay', 'New-ManagementScope')) {
    $name = $group.DistinguishedName.Replace("'", "''")
    $scope = New-ManagementScope -Name 'relay' -RecipientRestrictionFilter "MemberOfGroup -eq '$name'"
}
$assignment = Get-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' -ErrorAction SilentlyContinue |
    Where-Object { $_.App -in $AppId, $ObjectId }
if (-not $assignment -and $PSCmdlet.ShouldProcess('Application SMTP.SendAsApp', 'New-ManagementRoleAssignment')) {
    New-ManagementRoleAssignment -Role 'Application SMTP.SendAsApp' -App $AppId -CustomResourceScope 'relay' | Out-Null
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
    # asks Exchange itself and not its cache, so it is right at once
    [bool](Test-ServicePrincipalAuthorization -Identity $AppId -Resource $mailbox |
        Where-Object { $_.RoleName -eq 'Application SMTP.SendAsApp' -and $_.InScope -eq $true })
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
