"""A page of the playground in a real Chromium: what it may not do is a failure, and what a person does is one call."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(__file__).parents[2] / "service/playground/node_modules/axe-core/axe.min.js"
PATIENCE = 120_000  # milliseconds until a busy machine has written a text
MOST_TABS = 120
expect.set_options(timeout=PATIENCE)
PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1280, "height": 900}


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, view: str, **options: Any) -> Iterator["Playground"]:
    """The page at a view. At the end it has asked nobody but the server, and broken nothing."""
    context = browser.new_context(**{"viewport": DESK, "accept_downloads": True, **options})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    found = Playground(page, address, view)
    found.open()
    yield found
    context.close()
    foreign = [url for url in found.asked if not url.startswith((f"{address}/", "blob:"))]
    assert not found.faults, found.faults
    assert not foreign, foreign


class Playground:
    """One page.

    Attributes:
        faults: what the browser complained about: errors of scripts, and breaches of the page's policy.
        asked: the URLs of all requests.
    """

    def __init__(self, page: Page, address: str, view: str) -> None:
        self.page, self.address, self.name = page, address, view
        self.faults: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("request", lambda request: self.asked.append(request.url))

    def _hear(self, kind: str, text: str) -> None:
        refused = text.startswith("Failed to load resource")  # a refusal of the server, which the page shows
        if kind in ("error", "warning") and not refused:
            self.faults.append(text)

    def open(self) -> None:
        self.page.goto(f"{self.address}/#{self.name.lower()}")

    @property
    def view(self) -> Locator:
        """The view that is shown."""
        return self.page.get_by_role("region", name=self.name, exact=True)

    def button(self, name: str) -> Locator:
        return self.view.get_by_role("button", name=name, exact=True)

    def click(self, name: str) -> None:
        self.button(name).click()

    def tab_to(self, target: Locator, key: str = "Tab") -> None:
        """Reach an element by the keyboard alone."""
        for _ in range(MOST_TABS):
            if target.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press(key)
        raise AssertionError(f"{target} cannot be reached by the keyboard")

    def press_on(self, target: Locator, *keys: str) -> None:
        """Reach an element by the keyboard, and press keys there."""
        self.tab_to(target)
        for key in keys:
            self.page.keyboard.press(key)

    def save(self, name: str) -> str:
        """The content of the file that a button saves."""
        with self.page.expect_download() as found:
            self.click(name)
        return Path(found.value.path()).read_text()

    def save_lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in self.save(name).splitlines()]

    def check(self, name: str) -> None:
        """No finding of axe in both themes, and no sideways scrolling on a phone; screenshots, if wanted."""
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme)
            self._shoot(f"{name}-{theme}")
            self._check_axe(theme)
        self.page.set_viewport_size(PHONE)
        self._shoot(f"{name}-phone")
        assert self.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        self._check_axe("phone")
        self.page.set_viewport_size(DESK)
        self.page.emulate_media(color_scheme="light")

    def _check_axe(self, where: str) -> None:
        self.page.evaluate(AXE.read_text() + "; undefined")
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        told = [
            f"{where}: {each['id']} ({each['impact']}): {node['html'][:200]}"
            for each in found["violations"]
            for node in each["nodes"]
        ]
        assert not told, told

    def _shoot(self, name: str) -> None:
        if folder := os.environ.get("TUREEN_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    def wait_until_still(self) -> None:
        """Until no work of the view runs."""
        expect(self.view.get_by_role("button", name="Stop")).to_have_count(0)
