"""A real Chromium without a window, and what went over its network and console."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.journeys.kit import until

ROOT = Path(__file__).parents[2]
AXE = ROOT / ".tools" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--no-default-browser-check", "--hide-scrollbars", "--force-device-scale-factor=1", "--lang=en-GB",
)  # fmt: skip
DESKTOP, PHONE = (1280, 860), (390, 844)


def _program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    assert found, (
        f"{names[0]} is missing: install the Debian packages chromium and chromium-driver (make tools)"
    )
    return found


class Chromium:
    """One browser with an empty profile."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        os.environ.setdefault("SE_AVOID_STATS", "true")
        self.driver = webdriver.Chrome(options=options, service=Service(_program("chromedriver")))
        self.driver.set_page_load_timeout(30)
        self.requests: list[str] = []
        self.console: list[str] = []
        self.size(*DESKTOP)
        self.driver.get("about:blank")
        self.listen()
        self.requests.clear()  # of the browser's own first page
        self.console.clear()

    def close(self) -> None:
        """End it."""
        self.driver.quit()

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """The window, or a phone's."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def dark(self, on: bool) -> None:
        """What the system prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self._cdp("Emulation.setEmulatedMedia", features=[scheme])

    def scripts(self, on: bool) -> None:
        """Switch the page's own scripts off and on."""
        self._cdp("Emulation.setScriptExecutionDisabled", value=not on)

    def _cdp(self, command: str, **words: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, words)

    def get(self, url: str) -> None:
        """Open a page."""
        self.driver.get(url)

    def find(self, css: str) -> WebElement:
        """The first element; waits for it."""
        return until(lambda: self.driver.find_elements(By.CSS_SELECTOR, css), what=f"{css} on {self.url}")[0]

    def all(self, css: str) -> list[WebElement]:
        """All elements there are now."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self.driver.current_url)

    @property
    def text(self) -> str:
        """What a person sees."""
        return str(self.find("main").text)

    def wait_for(self, words: str, seconds: float = 30.0) -> None:
        """Until the page shows this."""
        until(
            lambda: words in self._text_now(), seconds, f"{words!r} on {self.url}: {self._text_now()[:1500]}"
        )

    def _text_now(self) -> str:
        found = self.driver.execute_script(
            "const m = document.querySelector('main'); return m ? m.innerText : ''"
        )
        return str(found)

    def write(self, css: str, words: str) -> None:
        """Into a field, in place of what it held."""
        field = self.find(css)
        field.clear()
        field.send_keys(words)

    def press(self, css: str) -> None:
        """Click, and wait for the page that follows."""
        element = self.find(css)
        marker = self.find("html")
        element.click()
        until(lambda: _is_gone(marker), what=f"a new page after {css}")

    def keys(self, *keys: str) -> None:
        """As a person who has no mouse."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> dict[str, Any]:
        """What has the focus: its name, and whether that can be seen."""
        found: dict[str, Any] = self.driver.execute_script(
            "const e = document.activeElement, s = getComputedStyle(e);"
            "return {tag: e.tagName, text: (e.innerText || e.value || e.name || '').trim(), id: e.id,"
            " href: e.getAttribute('href') || '', name: e.getAttribute('name') || '',"
            " ring: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2}"
        )
        return found

    def axe(self, *rules: str) -> list[dict[str, Any]]:
        """Serious and critical findings of axe-core on this page; of these rules alone, when some are named."""
        assert AXE.exists(), "axe-core is missing: run `make tools`"
        self.driver.execute_script("if (!window.axe) {" + AXE.read_text(encoding="utf-8") + "}")
        found = self.driver.execute_async_script(
            "const [rules, done] = arguments, only = rules.length ? {runOnly: {type: 'rule', values: rules}} : {};"
            "axe.run(document, {resultTypes: ['violations'], preload: false, ...only})"
            ".then((r) => done(r.violations), (e) => done(String(e)))",
            list(rules),
        )
        assert isinstance(found, list), found
        return [
            {"id": one["id"], "impact": one["impact"], "nodes": [node["html"][:200] for node in one["nodes"][:3]],
             "why": one["nodes"][0]["failureSummary"]}
            for one in found if one["impact"] in ("serious", "critical")
        ]  # fmt: skip

    def listen(self) -> None:
        """Take in what the browser has logged since the last time: addresses asked for, and complaints."""
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        for line in self.driver.get_log("browser"):
            # an answer such as 403 or 422 to a form is what the form is for
            if line["source"] != "network" and line["level"] in ("WARNING", "SEVERE"):
                self.console.append(f"{line['level']}: {line['message']}")

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A screenshot of the page, all of it or what fits the window."""
        data = self._cdp(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole, optimizeForSpeed=False
        )
        path.write_bytes(base64.b64decode(data["data"]))


def _is_gone(element: WebElement) -> bool:
    try:
        element.is_enabled()
    except Exception:
        return True
    return False


TAB, ENTER, DOWN = Keys.TAB, Keys.ENTER, Keys.ARROW_DOWN
