"""Who may come in: the first password, signing in and out, sessions, forms, hosts, headers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import stat

import aiohttp
import pytest

from relay.simulator import pki
from relay.web.gate import FREE, Gate, TooMany
from relay.web.sessions import ABSOLUTE, IDLE, LINK, MOST, OneTimeLink, Sessions
from tests.web.client import CONFIG, Site, hashed
from tests.web.stage import PASSWORD, token_of

PAGES = ("/", "/queue", "/queue/find?text=a", "/activity", "/senders", "/senders/0", "/settings",
         "/settings/listener/0", "/password")  # fmt: skip


class Time:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# the first password


async def test_the_first_password_is_set_by_the_link_once_and_goes_into_the_file(fresh):
    """Then it is asked for; the file keeps its comments and mode."""
    assert "no password yet" in (await fresh.get("/login")).text
    page = await fresh.get(fresh.link)
    done = await fresh.post(fresh.link, {"password": PASSWORD, "again": PASSWORD}, token_of(page.text))
    assert (done.status, done.location) == (303, "/")
    assert "The password is set" in (await fresh.get("/")).text
    text = fresh.config.read_text()
    assert text.startswith("# by hand\n")
    assert "# so the guide" in text
    assert "$argon2id$" in text
    assert PASSWORD not in text
    assert stat.S_IMODE(fresh.config.stat().st_mode) == 0o600
    again = await fresh.get(fresh.link)
    assert again.status == 410
    assert "works no longer" in again.text


@pytest.mark.parametrize(
    ("new", "again", "words"),
    [
        ("short", "short", "at least 12"),
        ("a long enough one", "another one here", "differ"),
        ("a" * 20, "a" * 20, "repeats"),
    ],
)
async def test_a_weak_password_is_refused_and_the_link_still_works(fresh, new, again, words):
    page = await fresh.get(fresh.link)
    answer = await fresh.post(fresh.link, {"password": new, "again": again}, token_of(page.text))
    assert answer.status == 422
    assert words in answer.text
    assert (await fresh.get(fresh.link)).status == 200


async def test_a_wrong_link_sets_nothing(fresh):
    page = await fresh.get(fresh.link)
    wrong = fresh.link[:-1] + ("A" if fresh.link[-1] != "A" else "B")
    answer = await fresh.post(wrong, {"password": PASSWORD, "again": PASSWORD}, token_of(page.text))
    assert answer.status == 410
    assert "password:" not in fresh.config.read_text()


async def test_where_the_file_cannot_hold_it_the_password_is_kept_beside_the_spool(fresh, monkeypatch):
    """As for a relay that the environment alone configures."""
    monkeypatch.setattr(type(fresh.daemon.pages), "_store_in_file", lambda self, hashed: "")
    page = await fresh.get(fresh.link)
    await fresh.post(fresh.link, {"password": PASSWORD, "again": PASSWORD}, token_of(page.text))
    kept = fresh.folder / "spool.db.web-password"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text().startswith("$argon2id$")
    fresh.client.cookie_jar.clear()
    assert (await fresh.sign_in()).status == 303


def test_the_link_is_short_lived_and_works_once():
    time = Time()
    link = OneTimeLink(time)
    assert not link.fits("")
    token = link.make()
    assert link.fits(token)
    assert not link.fits(token + "x")
    time.now += LINK + 1
    assert not link.fits(token)
    token = link.make()
    link.spend()
    assert not link.fits(token)


# signing in and out


@pytest.mark.parametrize("path", PAGES)
async def test_without_a_session_every_page_asks_for_the_password(site, path):
    """And leads on to where one wanted to go."""
    site.client.cookie_jar.clear()
    answer = await site.get(path)
    assert answer.status == 303
    assert answer.location.startswith("/login?next=%2F")


async def test_a_wrong_password_is_refused_and_said_in_the_log(site):
    site.client.cookie_jar.clear()
    answer = await site.sign_in("not the password")
    assert answer.status == 403
    assert "not the password" in answer.text
    event, fields = site.said[-1]
    assert (event, fields["where"]) == ("advice", "web")
    assert fields["client"] == "127.0.0.1"
    assert "not the password" not in str(fields)


async def test_sign_in_leads_only_to_our_own_pages(site):
    site.client.cookie_jar.clear()
    for bad in ("//evil.example/", "https://evil.example/", "/\\evil.example", "/login"):
        page = await site.get("/login")
        answer = await site.post("/login", {"password": PASSWORD, "next": bad}, token_of(page.text))
        assert answer.location == "/"
        site.client.cookie_jar.clear()


async def test_signing_out_ends_the_session_here_and_not_only_in_the_browser(site):
    cookies = {one.key: one.value for one in site.client.cookie_jar}
    await site.post("/logout", {})
    site.client.cookie_jar.clear()
    site.client.cookie_jar.update_cookies(cookies)
    assert (await site.get("/")).status == 303


async def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(site):
    site.client.cookie_jar.clear()
    answer = await site.sign_in()
    cookie = next(one for one in answer.headers.getall("Set-Cookie") if one.startswith("relay_session="))
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {one.strip() for one in cookie.split(";")}
    assert "Secure" not in cookie  # that is for TLS alone: over http a browser would not keep it


async def test_tries_are_limited_for_each_client_and_a_right_password_is_not_tried_then(site):
    site.client.cookie_jar.clear()
    for _ in range(FREE):
        assert (await site.sign_in("wrong")).status == 403
    answer = await site.sign_in(PASSWORD)
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert "Too many tries" in answer.text


async def test_the_gate_opens_again_after_its_pause_and_forgets_after_success():
    time = Time()
    gate = Gate(time)
    for _ in range(FREE):
        assert not await gate.check("10.0.0.1", "wrong", hashed())
    with pytest.raises(TooMany) as refused:
        await gate.check("10.0.0.1", PASSWORD, hashed())
    assert await gate.check("10.0.0.2", PASSWORD, hashed())
    time.now += refused.value.seconds + 1
    assert await gate.check("10.0.0.1", PASSWORD, hashed())
    assert not await gate.check("10.0.0.1", "wrong", hashed())  # counted from one again


async def test_all_clients_together_are_limited_too():
    time = Time()
    gate = Gate(time)
    tried = 0
    with pytest.raises(TooMany):
        for tried in range(100):
            await gate.check(f"10.0.0.{tried}", "wrong", hashed())
    assert tried == 30
    time.now += 61
    assert await gate.check("10.0.0.200", PASSWORD, hashed())


def test_sessions_end_by_idleness_by_age_and_by_number():
    time = Time()
    sessions = Sessions(time)
    token, _ = sessions.begin()
    time.now += IDLE - 1
    assert sessions.find(token, touch=False) is not None  # what a page fetches by itself is no sign of life
    time.now += 2
    assert sessions.find(token, touch=True) is None
    token, _ = sessions.begin()
    for _ in range(int(ABSOLUTE // (IDLE - 1))):
        time.now += IDLE - 1
        assert sessions.find(token, touch=True) is not None
    time.now += IDLE - 1
    assert sessions.find(token, touch=True) is None
    for _ in range(MOST + 5):
        sessions.begin()
    assert len(sessions) == MOST


async def test_another_password_signs_every_other_browser_out(site):
    cookies = {one.key: one.value for one in site.client.cookie_jar}
    new = "an entirely different one"
    answer = await site.post("/password", {"old": "wrong", "password": new, "again": new})
    assert answer.status == 403
    answer = await site.post("/password", {"old": PASSWORD, "password": new, "again": new})
    assert answer.status == 303
    assert (await site.get("/")).status == 200
    site.client.cookie_jar.clear()
    site.client.cookie_jar.update_cookies(cookies)
    assert (await site.get("/")).status == 303
    site.client.cookie_jar.clear()
    assert (await site.sign_in(PASSWORD)).status == 403
    assert (await site.sign_in(new)).status == 303


# forms


@pytest.mark.parametrize(
    "path",
    ["/logout", "/holds/release", "/queue/act", "/senders", "/senders/0", "/senders/0/move", "/senders/0/remove",
     "/settings/upstream/0", "/settings/upstream/0/check", "/settings/listener/0", "/settings/listener/0/remove",
     "/settings/saving/x", "/password"],
)  # fmt: skip
async def test_a_form_without_its_token_does_nothing(site, path):
    """Whatever the cookie says."""
    before = site.config.read_text()
    for csrf in ("", "made up"):
        answer = await site.post(path, {"sure": "1", "verb": "delete", "scope": "all"}, csrf)
        assert answer.status == 403
        assert "out of date" in answer.text
    assert site.config.read_text() == before
    assert (await site.get("/")).status == 200


async def test_the_login_form_has_a_token_of_its_own(site):
    site.client.cookie_jar.clear()
    await site.get("/login")
    assert (await site.post("/login", {"password": PASSWORD}, "made up")).status == 403
    other = await site.get("/login")
    site.client.cookie_jar.clear()  # the token is bound to the browser's cookie
    assert (await site.post("/login", {"password": PASSWORD}, token_of(other.text))).status == 403


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Origin": "null"}]
)
async def test_a_form_from_another_site_is_refused_even_with_the_token(site, headers):
    answer = await site.post("/logout", {}, **headers)
    assert answer.status == 403
    assert "another site" in answer.text


async def test_bodies_are_bounded_and_only_forms_are_taken(site):
    big = await site.post("/senders", {"default_sender": "x" * 300_000})
    assert big.status == 413
    many = await site.post("/senders", [(f"f{n}", "1") for n in range(1500)])
    assert many.status == 413
    async with site.client.post(site.url + "/senders", json={"csrf": site.csrf}) as answer:
        assert answer.status == 415


# names and headers


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "192.168.1.5", "relay.example.com"])
async def test_known_names_and_addresses_are_served(site, name):
    assert (await site.get("/healthz", Host=f"{name}:8025")).status == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "relay.example.com.evil.example", ""]
)
async def test_a_name_that_is_not_ours_is_refused(site, name):
    """DNS rebinding: a page of another site makes its own name lead to this address."""
    for path in ("/", "/login", "/healthz"):
        answer = await site.get(path, Host=f"{name}:8025")
        assert answer.status == 421
        assert "web.names" in answer.text


@pytest.mark.parametrize("path", ["/", "/login", "/healthz", "/no-such-page", "/queue/0000000000000"])
async def test_every_answer_wears_its_headers(site, path):
    headers = (await site.get(path)).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["X-Frame-Options"], headers["X-Content-Type-Options"]) == ("DENY", "nosniff")
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "relay"


@pytest.mark.parametrize("path", PAGES)
async def test_no_page_holds_inline_script_or_style_or_an_address_outside(site, path):
    """What the policy forbids is not there in the first place."""
    html = (await site.get(path)).text
    assert " style=" not in html
    assert "<style" not in html
    assert " onclick" not in html
    assert html.count("<script") == html.count('<script src="/static/')
    assert 'src="http' not in html
    assert 'href="http' not in html


async def test_health_says_ok_and_no_more(site):
    site.client.cookie_jar.clear()
    answer = await site.get("/healthz")
    assert (answer.status, answer.text) == (200, "ok\n")


async def test_no_secret_is_ever_sent_to_the_browser(site):
    """Neither the client secret nor the password's hash, on any page."""
    for path in PAGES:
        html = (await site.get(path)).text
        assert "a-secret-nobody-may-see" not in html
        assert "$argon2" not in html


async def test_an_unexpected_error_goes_to_the_log_and_not_to_the_browser(site, monkeypatch):
    async def broken():
        raise ValueError("inner details")

    monkeypatch.setattr(site.daemon.pages, "status", broken)
    answer = await site.get("/")
    assert answer.status == 500
    assert "inner details" not in answer.text
    assert any(event == "trouble" and "inner details" in str(fields["what"]) for event, fields in site.said)


async def test_a_page_that_cannot_listen_does_not_keep_mail_from_flowing(site, tmp_path_factory):
    """It says so, with what to do."""
    port = site.url.rpartition(":")[2]
    second = Site(
        tmp_path_factory.mktemp("second"),
        password=False,
        config=CONFIG.replace("bind: 127.0.0.1:0\n  names", f"bind: 127.0.0.1:{port}\n  names"),
    )
    await second.start()
    try:
        assert second.daemon.pages.url == ""
        assert second.daemon.listeners
        assert any(
            fields.get("where") == "web" and "cannot listen" in str(fields["what"])
            for _, fields in second.said
        )
    finally:
        await second.stop()


async def test_a_reload_without_the_section_closes_the_page_and_one_with_it_opens_it(site):
    text = site.config.read_text()
    site.config.write_text(text[: text.index("web:")])
    await site.daemon.reload()
    assert site.daemon.pages.url == ""
    site.config.write_text(text)
    await site.daemon.reload()
    site.url = site.daemon.pages.url.rstrip("/")
    assert (await site.get("/healthz")).status == 200


async def test_over_tls_the_cookie_is_secure_and_bound_to_the_host(tmp_path):
    """And browsers are told to come back over TLS only."""
    ca, pair = pki.prepare(tmp_path, ("localhost",))
    tls = f"  tls: {{{{certificate: '{pair}', key: '{pair}'}}}}\n"
    site = Site(tmp_path, config=CONFIG + tls, trust=ssl.create_default_context(cafile=str(ca)))
    await site.start()
    try:
        assert site.url.startswith("https://127.0.0.1:")
        site.client.cookie_jar.clear()
        answer = await site.sign_in()
        cookie = next(one for one in answer.headers.getall("Set-Cookie") if "relay_session=" in one)
        assert cookie.startswith("__Host-relay_session=")
        assert "Secure" in cookie
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
        await site.daemon.reload()  # reads the certificate again
        assert (await site.get("/")).status == 200
    finally:
        await site.stop()


async def test_connections_are_bounded_and_the_page_recovers(site, monkeypatch):
    """Whoever opens many takes none of the sockets that mail needs."""
    monkeypatch.setattr("relay.web.server.CONNECTIONS", 5)
    host, port = site.daemon.pages._server.address
    open_ones = [await asyncio.open_connection(host, port) for _ in range(10)]
    closed = [await asyncio.wait_for(reader.read(), 10) == b"" for reader, _ in open_ones[6:]]
    assert all(closed)
    for _, writer in open_ones:
        writer.close()
    site.client.cookie_jar.clear()
    await site.client.close()
    site.client = site.visitor()
    for _ in range(100):
        with contextlib.suppress(aiohttp.ClientError):
            if (await site.get("/healthz")).status == 200:
                return
        await site.daemon.clock.sleep(0.05)
    raise AssertionError("the page does not answer again")


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the relay ends the connection."""
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_a_head_that_does_not_come_to_its_end_ends_the_connection(site, monkeypatch, before):
    """One that drips a letter at a time would keep its place for ever: as the first request, and behind another."""
    monkeypatch.setattr("relay.web.slow.HEAD", 0.3)
    monkeypatch.setattr("relay.web.app.HEAD", 0.3)
    monkeypatch.setattr("relay.web.app.KEEPALIVE", 0.0)
    reader, writer = await asyncio.open_connection(*site.daemon.pages._server.address)
    writer.write(before)
    if before:
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"ok\n"), 20)
    writer.write(b"GET / HTTP/1.1\r\nHost: local")
    assert await ended(reader) == b""
    writer.close()


async def test_a_request_may_take_longer_than_its_head(site, monkeypatch):
    """The time of the head ends with the head: an answer that takes a while still comes."""
    monkeypatch.setattr("relay.web.slow.HEAD", 0.2)
    health = site.daemon.health

    async def slow_health():
        await asyncio.sleep(0.6)
        return await health()

    monkeypatch.setattr(site.daemon, "health", slow_health)
    assert (await site.get("/healthz")).status == 200


async def test_a_body_that_does_not_come_is_not_waited_for(site, monkeypatch):
    monkeypatch.setattr("relay.web.slow.BODY", 0.2)
    reader, writer = await asyncio.open_connection(*site.daemon.pages._server.address)
    writer.write(
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 100\r\n\r\npassword=a"
    )
    assert b"408" in await asyncio.wait_for(reader.readline(), 20)
    writer.close()
