"""The page in a real Chromium, against a real relay and the simulated Microsoft 365."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage

import pytest

from tests.journeys.kit import until
from tests.web.chromium import DESKTOP, DOWN, ENTER, PHONE, TAB, Chromium
from tests.web.stage import PASSWORD, Stage

WRONG = "wrong~secret~value~of~forty~characters~x"
XSS = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
PAGES = ("/", "/queue", "/queue?state=held", "/queue/find?text=anna", "/activity", "/senders?sender=a@scanners.local",
         "/senders/0", "/settings", "/settings/listener/0", "/password")  # fmt: skip


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A relay that starts with a secret that is wrong, and a page without a password."""
    one = Stage(tmp_path_factory.mktemp("stage"))
    one.write(one.folder / "client-secret", WRONG + "1")
    yield one
    one.stop()


@pytest.fixture(scope="module")
def visitor(stage, tmp_path_factory):
    """A browser, signed in by way of the one-time link."""
    link = stage.start()
    browser = Chromium(tmp_path_factory.mktemp("profile"))
    browser.get(link)
    browser.write("#password", PASSWORD)
    browser.write("#again", PASSWORD)
    browser.press("button.main")
    yield browser
    browser.close()


@pytest.fixture
def browser(visitor, stage):
    """The same for each test; afterwards: nothing was asked of anybody else, and nothing complained."""
    yield visitor
    visitor.dark(False)
    visitor.size(*DESKTOP)
    visitor.listen()
    assert [url for url in visitor.requests if not url.startswith((stage.origin + "/", "data:"))] == []
    assert visitor.console == []


def send(stage: Stage, sender: str, subject: str, to: str = "anna@example.net") -> None:
    """One message, as an old device would send it."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, to, subject
    message.set_content("Hello.\n")
    message.add_attachment(b"x", maintype="application", subtype="pdf", filename=XSS + ".pdf")
    with smtplib.SMTP("127.0.0.1", stage.listen, timeout=30) as client:
        client.send_message(message, from_addr=sender, to_addrs=[to])


@contextmanager
def held(stage: Stage, *subjects: str, to: str = "anna@example.net") -> Iterator[None]:
    """Mail of the scanners waits, since Exchange does not take it; in the end it is taken, and nothing waits."""
    stage.microsoft.change(smtp_auth_disabled_mailboxes=["scans@contoso.com"], exchange_down=True)
    stage.microsoft.change(exchange_down=False)  # no connection of before is left
    before = len(stage.relay.events("held"))
    try:
        for subject in subjects:
            send(stage, "scanner-3@scanners.local", subject, to)
        until(lambda: len(stage.relay.events("held")) > before, what="the hold")
        yield
    finally:
        stage.microsoft.change(smtp_auth_disabled_mailboxes=[])
        stage.relay.command("queue", "release", "--all", "--yes", check=False)
        until(lambda: stage.relay.status()["spool"]["messages"] == 0, what="an empty queue")


def sign_in(browser: Chromium, stage: Stage) -> None:
    browser.get(stage.origin + "/login")
    browser.write("#password", PASSWORD)
    browser.press("button.main")


def save(browser: Chromium, stage: Stage, secret: str, end: str) -> None:
    """Type a secret, press Save, wait for the last word."""
    browser.get(stage.origin + "/settings")
    browser.write("#f-client_secret", secret)
    browser.press("form.card button.main")
    browser.wait_for(end, 60)


def test_the_link_signs_in_once_and_the_password_does_afterwards(browser, stage):
    browser.wait_for("The password is set")
    first = stage.relay.log.read_text()
    assert "$argon2id$" in stage.config.read_text()
    assert PASSWORD not in first + stage.config.read_text()
    browser.press("form.out button")
    assert browser.url.endswith("/login")
    sign_in(browser, stage)
    assert browser.url == stage.origin + "/"


def test_save_names_what_is_wrong_and_stores_only_what_works_and_then_mail_flows(browser, stage):
    send(stage, "notify@signify.local", "Alarm in zone 4")
    until(lambda: stage.relay.events("held"), what="the hold")
    browser.get(stage.origin)
    browser.wait_for("Mail is held: 1 message waits")
    assert "client secret" in browser.text

    before = stage.config.read_text()
    save(browser, stage, WRONG, "Not stored: a step failed, and nothing was changed.")
    failed = browser.find("li.fail").text
    assert "Value" in failed
    assert "guide step 5" in failed
    assert stage.config.read_text() == before
    assert (stage.folder / "client-secret").read_text() == WRONG + "1"
    assert WRONG not in browser.driver.page_source

    save(browser, stage, stage.secret, "Stored and in force.")
    assert browser.all("li.fail") == []
    assert stage.config.read_text() == before  # the secret has a file of its own
    assert (stage.folder / "client-secret").read_text() == stage.secret
    assert stage.microsoft.arrived(1)[0]["subject"] == "Alarm in zone 4"
    browser.get(stage.origin)
    browser.wait_for("All is well: no mail is waiting.")


def test_a_held_mailbox_is_released_once_it_is_mended(browser, stage):
    count = len(stage.microsoft.messages())
    with held(stage, "12 pages"):
        browser.get(stage.origin)
        browser.wait_for("Mail of 1 mailbox is held")
        assert "Set-CASMailbox" in browser.find(".hold").text
        stage.microsoft.change(smtp_auth_disabled_mailboxes=[])
        browser.press(".hold button")
        browser.wait_for("Its mail is tried now")
        stage.microsoft.arrived(count + 1)
        browser.wait_for("All is well: no mail is waiting.")  # by itself: the page looks again


def test_hostile_mail_is_shown_as_text(browser, stage):
    hostile = '"<img/src=x/onerror=window.hacked=1>"@example.net'
    with held(stage, XSS + " subject", to=hostile):
        browser.get(stage.origin + "/queue")
        assert XSS + " subject" in browser.find("th.subject a").text
        browser.press("th.subject a")
        assert XSS + " subject" in browser.find("h1").text
        assert hostile in browser.text
        assert browser.find("a[download]").get_attribute("href").endswith("/message.eml")
        for path in ("/", "/activity", "/queue/find?text=img"):
            browser.get(stage.origin + path)
        assert browser.driver.execute_script("return window.hacked") is None
        browser.get(stage.origin + "/queue")
        browser.find("tbody input").click()
        browser.press("button[value=delete]")
        browser.press("button.danger")
        browser.wait_for("1 message deleted")


def tab_to(browser: Chromium, wanted, most: int = 60) -> None:
    """Press Tab until this has the focus; each stop on the way must show it."""
    for _ in range(most):
        browser.keys(TAB)
        found = browser.focused()
        assert found["ring"], f"no visible focus on {found}"
        if wanted(found):
            return
    raise AssertionError(f"the keyboard does not reach it on {browser.url}")


def test_everything_is_reached_with_the_keyboard_alone(browser, stage):
    """Skip link, pages, a message ticked and held, the confirmation, and out again."""
    with held(stage, "keyboard 1", "keyboard 2"):
        browser.get(stage.origin)
        browser.keys(TAB)
        assert browser.focused()["text"] == "Skip to the content"
        browser.keys(ENTER)
        assert browser.url.endswith("#main")
        browser.get(stage.origin)
        tab_to(browser, lambda one: one["text"] == "Queue")
        browser.keys(ENTER)
        until(lambda: browser.url.endswith("/queue"), what="the queue")
        tab_to(browser, lambda one: one["name"] == "scope")
        browser.keys(DOWN)  # all that wait
        tab_to(browser, lambda one: one["text"] == "Hold")
        browser.keys(ENTER)
        browser.wait_for("Hold: 2 messages?")
        tab_to(browser, lambda one: one["text"] == "Hold 2 messages")
        browser.keys(ENTER)
        browser.wait_for("2 messages held.")
        tab_to(browser, lambda one: one["text"] == "Sign out")
        browser.keys(ENTER)
        until(lambda: browser.url.endswith("/login"), what="the login")
        browser.keys(PASSWORD, ENTER)  # the field has the focus already
        until(lambda: browser.url == stage.origin + "/", what="the overview")


def test_axe_finds_nothing_serious_on_any_page_in_light_dark_and_on_a_phone(browser, stage):
    found: dict[str, object] = {}
    with held(stage, "held for axe"):
        browser.get(stage.origin + "/queue?lane=scans@contoso.com")
        message = browser.find("th.subject a").get_attribute("href").removeprefix(stage.origin)
        save(browser, stage, WRONG, "Not stored")
        for path in (browser.url.removeprefix(stage.origin), message, *PAGES):
            browser.get(stage.origin + path)
            found[f"{path} light"] = browser.axe()
            browser.dark(True)
            found[f"{path} dark"] = browser.axe("color-contrast")
            browser.dark(False)
        browser.size(*PHONE, phone=True)
        for path in ("/", "/queue", "/activity", message):
            browser.get(stage.origin + path)
            found[f"{path} phone"] = browser.axe()
            width = browser.driver.execute_script("return document.documentElement.scrollWidth")
            assert width <= PHONE[0], f"{path} is {width} pixels wide on a phone"
    assert {name: one for name, one in found.items() if one} == {}


def test_without_scripts_a_save_comes_to_its_end_by_itself(browser, stage):
    browser.scripts(False)
    try:
        browser.get(stage.origin + "/settings")
        browser.press("button[formaction$=check]")
        browser.wait_for("Token for Exchange Online", 60)
        browser.wait_for("The check is done", 60)
    finally:
        browser.scripts(True)
