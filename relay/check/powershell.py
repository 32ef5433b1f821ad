"""Exchange Online PowerShell, filled in: safely quoted words, and the lines that remedies name."""

from __future__ import annotations

from dataclasses import dataclass

CONNECT = "Connect-ExchangeOnline"
PATIENCE = (
    "Exchange needs 30 minutes to 2 hours after such a change; a failed try within that time proves nothing."
)


def quote(text: str) -> str:
    """A PowerShell string that stands for exactly this text, whatever it holds.

    Within single quotes nothing is expanded; a quote is doubled, and PowerShell takes the typographic ones for
    quotes, too (about_Quoting_Rules).
    """
    for mark in "'\u2018\u2019\u201a\u201b":
        text = text.replace(mark, mark * 2)
    return f"'{text}'"


@dataclass(frozen=True, slots=True)
class App:
    """The application as Exchange must know it. ``object_id`` is the Enterprise application's, the token's ``oid``."""

    client_id: str
    object_id: str = ""

    @property
    def principal(self) -> str:
        """What names the service principal in a command."""
        return quote(self.object_id) if self.object_id else "<object id of the Enterprise application>"

    def show_principal(self) -> str:
        """Whether Exchange knows the application, and by which object id."""
        return f"Get-ServicePrincipal | Where-Object AppId -eq {quote(self.client_id)} | Format-List AppId, ObjectId"

    def new_principal(self) -> str:
        """Make it known."""
        return f"New-ServicePrincipal -AppId {quote(self.client_id)} -ObjectId {self.principal} -DisplayName 'relay'"

    def show_permission(self, mailbox: str) -> str:
        """Whether it may use the mailbox, in the classic model."""
        return f"Get-MailboxPermission -Identity {quote(mailbox)} -User {self.principal}"

    def add_permission(self, mailbox: str) -> str:
        """Let it."""
        return f"Add-MailboxPermission -Identity {quote(mailbox)} -User {self.principal} -AccessRights FullAccess"

    def test_scope(self, mailbox: str) -> str:
        """Whether an Exchange role lets it, in the model with roles."""
        return (
            f"Test-ServicePrincipalAuthorization -Identity {quote(self.client_id)} -Resource {quote(mailbox)}"
        )

    def assign_role(self, role: str) -> str:
        """Give it an Exchange role, for every mailbox; `relay setup --print-powershell` has the scoped form."""
        return f"New-ManagementRoleAssignment -Role {quote(role)} -App {quote(self.client_id)}"
