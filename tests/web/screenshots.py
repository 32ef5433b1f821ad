"""`python -m tests.web.screenshots`: the pictures of docs/admin-page.md, of a real relay with 10,000 queued messages."""

from __future__ import annotations

import shutil
import smtplib
import subprocess
import tempfile
from email.message import EmailMessage
from pathlib import Path

from tests.journeys.kit import until
from tests.web.chromium import DESKTOP, PHONE, ROOT, Chromium
from tests.web.stage import PASSWORD, Stage

OUT = ROOT / "docs" / "screenshots"
QUEUED = 10_000


def main() -> None:
    """Take them all."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="relay-pictures-") as name:
        stage, browser = Stage(Path(name)), None
        try:
            stage.fill(QUEUED)
            stage.microsoft.change(smtp_auth_disabled_mailboxes=["scans@contoso.com"])
            link = stage.start()
            browser = Chromium(Path(name) / "profile")
            Photographer(stage, browser).run(link)
        finally:
            if browser is not None:
                browser.close()
            stage.stop()


class Photographer:
    """Goes through the pages."""

    def __init__(self, stage: Stage, browser: Chromium) -> None:
        self.stage = stage
        self.browser = browser

    def run(self, link: str) -> None:
        """From the first password on."""
        self.browser.get(link)
        self.shoot("first-password", whole=False)
        self.browser.write("#password", PASSWORD)
        self.browser.write("#again", PASSWORD)
        self.browser.press("button.main")
        self.trouble()
        self.everywhere("overview", "/")
        self.everywhere("settings", "/settings")
        self.everywhere("senders", "/senders?sender=scanner-3@scanners.local")
        self.everywhere("queue", "/queue", whole=False)
        self.everywhere("activity", "/activity", whole=False)
        self.message()
        self.confirm()
        self.save_with_a_wrong_secret()

    def trouble(self) -> None:
        """The administrator has switched one mailbox off; the others deliver."""
        for sender, subject in (
            ("scanner-3@scanners.local", "Scan 2026-11-26, 12 pages"),
            ("erp@legacy.local", "Invoices of November"),
        ):
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = sender, "anna@example.net", subject
            message.set_content("Hello.\n")
            with smtplib.SMTP("127.0.0.1", self.stage.listen, timeout=30) as client:
                client.send_message(message)
        until(lambda: self.stage.relay.events("held"), what="the hold")
        until(lambda: len(self.stage.microsoft.messages()) > 25, 60, "some deliveries")

    def everywhere(self, name: str, path: str, *, whole: bool = True) -> None:
        """Desktop, phone, and desktop in the dark."""
        self.browser.get(self.stage.origin + path)
        self.shoot(name, whole=whole)
        self.browser.size(*PHONE, phone=True)
        self.browser.get(self.stage.origin + path)
        self.shoot(f"{name}-phone", whole=False)
        self.browser.size(*DESKTOP)
        self.browser.dark(True)
        self.browser.get(self.stage.origin + path)
        self.shoot(f"{name}-dark", whole=whole)
        self.browser.dark(False)

    def message(self) -> None:
        """One that is held."""
        self.browser.get(self.stage.origin + "/queue?lane=scans@contoso.com")
        self.browser.press("th.subject a")
        self.shoot("message")

    def confirm(self) -> None:
        """Many at once."""
        self.browser.get(self.stage.origin + "/queue?sender=erp@legacy.local")
        self.browser.find("input[name=scope][value=all]").click()
        self.browser.press("button[value=hold]")
        self.shoot("confirm", whole=False)

    def save_with_a_wrong_secret(self) -> None:
        """What Save says."""
        self.browser.get(self.stage.origin + "/settings")
        self.browser.write("#f-client_secret", "wrong~secret~value~of~forty~characters~x")
        self.browser.press("form.card button.main")
        until(lambda: "Not stored" in self.browser.text, 60, "the end of the check")
        self.shoot("save-wrong-secret")

    def shoot(self, name: str, *, whole: bool = True) -> None:
        """One picture, small enough to be kept."""
        path = OUT / f"{name}.png"
        self.browser.picture(path, whole=whole)
        if (smaller := shutil.which("pngquant")) is not None:
            subprocess.run(
                [smaller, "--force", "--skip-if-larger", "--strip", "--output", path, "64", path], check=True
            )
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
