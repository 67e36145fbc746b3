"""Tests of what the tests in a browser rest on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.chromium import Page, find_chromium
from tests.browser.origin import Origin


def test_without_a_browser_tests_are_skipped_but_fail_in_ci(tmp_path: Path) -> None:
    """A developer may have none; where everything is checked one that is missing must not go unseen."""
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        find_chromium({"PATH": str(tmp_path)})
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        find_chromium({"PATH": str(tmp_path), "CI": "true"})
    browser = tmp_path / "google-chrome"
    browser.touch(mode=0o755)
    assert find_chromium({"PATH": str(tmp_path), "CI": "true"}) == str(browser)


async def test_a_page_tells_what_happens_in_order(page: Page) -> None:
    """Whether its scripts were evaluated or are part of the document."""
    await page.run("(numbers) => { for (const number of numbers) tell(number) }", [1, 2, 3])
    await page.load("tell({ four: [4, null] }); console.log('written', 5)")
    assert await page.tells(lambda told: len(told) >= 4, "all is told") == [1, 2, 3, {"four": [4, None]}]
    assert page.console == ["written 5"]
    assert await page.run("async () => 6") == 6


async def test_a_page_shows_what_an_origin_serves(page: Page, origin: Origin) -> None:
    """Documents and modules with the media types that browsers insist on; what is not there is 404."""
    origin.files |= {"/six.js": "export const six = 6", "/six.html": "<script type=module>import {six} from './six.js'; tell(six)</script>"}
    await page.go(f"{origin.url}/six.html")
    assert await page.tells(lambda told: told, "the module has run") == [6]
    assert await page.run("async () => (await fetch('/seven.js')).status") == 404


async def test_an_exception_in_a_page_ends_the_waiting(page: Page) -> None:
    """What a test waits for will not come any more, so it says at once what went wrong."""
    await page.run("() => { setTimeout(() => { throw new Error('a defect') }) }")
    with pytest.raises(AssertionError, match=r"still not: the moon is full; told: \[\].*a defect"):
        await page.tells(lambda told: told, "the moon is full")
    assert [error.partition("\n")[0] for error in page.errors] == ["a defect"]
    page.errors.clear()
