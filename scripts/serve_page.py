#!/usr/bin/env python3
"""Chats on the page of `qoft serve` in a real browser.

    pip install playwright==1.65.2
    python3 scripts/serve_page.py --qoft target/release/qoft --browser /usr/bin/chromium --screenshot /tmp/page.png

Without --browser playwright's own Chromium is taken. Exit status 1 with the first thing that is otherwise than it
should be; any error of the page's script is one.
"""

import argparse
from pathlib import Path

from playwright.sync_api import expect, sync_playwright
from serve_openai import QUICKSTART, served


def chat(page, url):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    # Models are known once the key is.
    expect(page.locator("#key")).to_be_visible()
    page.fill("#key", "secret")
    page.locator("#key").blur()
    expect(page.locator("#model option")).to_have_count(1)
    page.fill("#tokens", "24")
    page.fill("#temperature", "0")
    page.fill("#text", "And it came to pass")
    page.press("#text", "Enter")
    expect(page.locator("#stop")).to_be_hidden(timeout=60_000)
    messages = page.locator(".message")
    expect(messages).to_have_count(2)
    first = messages.nth(1).inner_text()
    assert len(first) > 20, first
    # The same question to a new chat has the same answer.
    page.click("#reset")
    expect(messages).to_have_count(0)
    page.fill("#text", "And it came to pass")
    page.click("#send")
    expect(page.locator("#stop")).to_be_hidden(timeout=60_000)
    assert messages.nth(1).inner_text() == first
    # Markup in a message is text.
    page.fill("#text", "<img src=x onerror=alert(1)>")
    page.click("#send")
    expect(page.locator("#stop")).to_be_hidden(timeout=60_000)
    assert page.locator(".message img").count() == 0
    # An answer can be stopped, and an error is shown.
    page.fill("#tokens", "100")
    page.fill("#text", "Go on")
    page.click("#send")
    page.click("#stop", timeout=60_000)
    expect(page.locator("#send")).to_be_visible()
    page.fill("#temperature", "-1")
    page.fill("#text", "And now?")
    page.click("#send")
    expect(page.locator(".error").last).to_contain_text("temperature")
    assert not problems, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qoft", default="qoft", help="the program")
    parser.add_argument("--browser", help="the browser's program")
    parser.add_argument("--screenshot", type=Path, help="where a picture of the page goes")
    args = parser.parse_args()
    options = ["--served-model-name=base", "--chat-template=chatml", "--api-key=secret"]
    with served(args.qoft, QUICKSTART, *options) as url, sync_playwright() as playwright:
        sandbox = ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=args.browser, args=sandbox)
        page = browser.new_page(viewport={"width": 1000, "height": 700})
        try:
            chat(page, url.removesuffix("/v1") + "/")
        finally:
            if args.screenshot:
                page.screenshot(path=args.screenshot)
            browser.close()
    print("the page works")


if __name__ == "__main__":
    main()
