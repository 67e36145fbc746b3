"""The system's Chromium, driven by Playwright: one browser for all tests, one context of its own for each page."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from playwright import async_api as playwright

from tests.loop_thread import LoopThread
from tests.waiting import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_HELPERS = Path(__file__).parent / "helpers.js"


def find_chromium(environ: Mapping[str, str]) -> str:
    """Return the path of a browser, or skip the test that asks; in CI it fails, since nobody would notice there."""
    path = next((path for name in NAMES if (path := shutil.which(name, path=environ.get("PATH")))), None)
    if path is not None:
        return path
    reason = "there is no Chromium on PATH; on Debian: apt-get install chromium"
    if environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Page:
    """One page in a context of its own, which shares neither connections nor storage with others.

    A page tells a test what happens in it: its script calls `tell(value)`, and the value is appended to `told`. What helpers.js
    defines is there in each document.
    """

    def __init__(self, thread: LoopThread, context: playwright.BrowserContext, page: playwright.Page) -> None:
        self.told: list[Any] = []
        self.console: list[str] = []  # what the browser and scripts wrote there
        self.errors: list[str] = []  # exceptions that no script caught
        self._thread = thread
        self._context = context
        self._page = page

    async def prepare(self) -> None:
        """Listen to it; called in its thread."""
        self._page.on("console", lambda message: self.console.append(message.text))
        self._page.on("pageerror", lambda error: self.errors.append(str(error)))
        await self._page.expose_binding("tell", lambda _, value: self.told.append(value))
        await self._page.add_init_script(path=_HELPERS)

    async def go(self, url: str) -> None:
        """Open a document; the one before it ends, and its connections with it."""
        await self._thread.call(self._page.goto(url))

    async def run(self, script: str, argument: Any = None) -> Any:
        """Evaluate an expression, or call a function with an argument, and return the result, awaited if it is a promise."""
        return await self._thread.call(self._page.evaluate(script, argument))

    async def load(self, script: str) -> None:
        """Add a classic script to the document, as if it stood there."""
        await self._thread.call(self._page.add_script_tag(content=script))

    async def tells(self, condition: Callable[[list[Any]], object], what: str) -> list[Any]:
        """Wait until a condition holds for what was told, and return that."""
        with contextlib.suppress(AssertionError):
            await wait_until(lambda: condition(self.told) or self.errors, what)
        assert condition(self.told), f"still not: {what}; told: {self.told}, console: {self.console}, errors: {self.errors}"
        return self.told

    async def set_cookie(self, name: str, value: str, url: str) -> None:
        """Give the page's context a cookie, as a server at this URL would."""
        await self._thread.call(self._context.add_cookies([{"name": name, "value": value, "url": url}]))

    def of(self, *types: str) -> list[Any]:
        """Return the payloads of what was told with one of these types, by helpers.js."""
        return [told[1] for told in self.told if told[0] in types]

    async def has(self, type: str, count: int = 1) -> list[Any]:
        """Wait until this many of a type were told, and return their payloads."""
        await self.tells(lambda _: len(self.of(type)) >= count, f"{count} of {type}")
        return self.of(type)

    async def close(self) -> None:
        """Close it, with all of its connections."""
        await self._thread.call(self._context.close())


class Chromium:
    """A browser for many tests.

    Playwright's objects belong to the loop on which they were made, and to its thread. The loop of a test ends with it, so they
    live on one that does not, and tests await what is done there.

    Args:
        thread: That loop.
    """

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread

    async def start(self, executable: str) -> None:
        """Start it; called in its thread."""
        self._playwright = await playwright.async_playwright().start()
        # Without its sandbox: it refuses to run as root with it, and nothing but our own pages is opened.
        self._browser = await self._playwright.chromium.launch(executable_path=executable, chromium_sandbox=False)

    async def stop(self) -> None:
        """End it, with its processes; called in its thread."""
        await self._browser.close()
        await self._playwright.stop()

    async def open(self, url: str) -> Page:
        """Return a new page that shows a document."""
        page = await self._thread.call(self._new_page())
        await page.go(url)
        return page

    async def _new_page(self) -> Page:
        context = await self._browser.new_context()
        page = Page(self._thread, context, await context.new_page())
        await page.prepare()
        return page
