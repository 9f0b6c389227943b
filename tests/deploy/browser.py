"""A real browser for the tests: Debian's headless Chromium, unpacked below `build/` and not
installed, and axe, which looks for what shuts people out.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, sync_playwright

from tests.deploy.debian import Debian
from tests.kit import run

PACKAGE = "chromium-headless-shell"
INSTALLED = Path("/usr/lib/chromium") / PACKAGE
# So that a page's lines break at the same words everywhere.
FONTS = ("fonts-dejavu-core", "fonts-inter", "fonts-nanum", "fonts-noto-color-emoji")
AXE = "4.14.1"
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
LIGHT: dict[str, Any] = {"viewport": DESKTOP, "color_scheme": "light", "locale": "en-US"}
DARK: dict[str, Any] = {
    "viewport": PHONE,
    "color_scheme": "dark",
    "locale": "ko-KR",
    "has_touch": True,
}
# What axe calls so is a barrier; below it are matters of taste.
BARRIERS = {"serious", "critical"}
_RUN = "axe.run({ resultTypes: ['violations'] })"  # of what is well, no details
_NOTE_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""
_FONTS_CONF = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{cache}/fonts/usr/share/fonts</dir>
  <cachedir>{cache}/fonts/cache</cachedir>
  <alias>
    <family>sans-serif</family>
    <prefer><family>Inter</family><family>NanumGothic</family></prefer>
  </alias>
  <alias>
    <family>monospace</family>
    <prefer><family>DejaVu Sans Mono</family></prefer>
  </alias>
</fontconfig>
"""


@dataclass
class Seen:
    """A page in a browser, and what went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    received: int = 0  # bytes, as sent

    def violations(self) -> list[str]:
        """What the page did against its Content-Security-Policy."""
        found: list[str] = self.page.evaluate("window.violations")
        return found

    def barriers(self, axe: str) -> list[str]:
        """What axe finds serious."""
        self.page.evaluate(axe)
        found: dict[str, Any] = self.page.evaluate(_RUN)
        return [
            f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
            for rule in found["violations"]
            if rule["impact"] in BARRIERS
            for node in rule["nodes"]
        ]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the screen."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wider


@contextmanager
def chromium(cache: Path) -> Iterator[Browser]:
    """A running browser; it is downloaded once."""
    program, environment = _fetch(cache)
    with sync_playwright() as playwright:
        # The sandbox needs what containers do not grant; only the app's own pages are opened.
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox"],
            env={**os.environ, **environment},
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, **options: Any) -> Iterator[Seen]:
    """A page in a fresh profile, watched."""
    context = browser.new_context(**options)
    context.add_init_script(_NOTE_VIOLATIONS)
    seen = Seen(context.new_page())

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            seen.errors.append(message.text)

    def came(event: dict[str, Any]) -> None:
        seen.received += int(event["encodedDataLength"])

    seen.page.on("console", said)
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    network = context.new_cdp_session(seen.page)
    network.send("Network.enable")
    network.on("Network.loadingFinished", came)
    try:
        yield seen
    finally:
        context.close()


def in_every_light(seen: Seen) -> Iterator[str]:
    """Show a page on a desktop and on a phone, in light and dark; it ends as it began."""
    page, before = seen.page, seen.page.viewport_size
    assert before
    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            yield f"{size['width']} pixels, {scheme}"
    page.set_viewport_size(before)
    page.emulate_media(color_scheme=None)


def fetch_axe(cache: Path) -> str:
    """The script of axe; it is downloaded once."""
    found, kept = cache / "node_modules/axe-core/axe.min.js", cache / "package.json"
    wanted = json.dumps({"private": True, "dependencies": {"axe-core": AXE}})
    if not found.exists() or kept.read_text() != wanted:
        assert shutil.which("npm"), "npm is missing: axe comes from it"
        cache.mkdir(parents=True, exist_ok=True)
        kept.write_text(wanted)
        run(cache, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
    return found.read_text(encoding="utf-8")


def _fetch(cache: Path) -> tuple[Path, dict[str, str]]:
    """The browser's program, and the variables with which it finds its libraries and fonts."""
    root, installed = cache / "root", INSTALLED.exists()
    wanted = " ".join((*FONTS, *(() if installed else (PACKAGE,))))
    complete = cache / "complete"
    if not complete.exists() or complete.read_text() != wanted:
        debian = Debian(cache, installed=True)
        # Fonts are those of the tests alone, whatever the machine has.
        debian.alone(*FONTS, into=cache / "fonts")
        if not installed:
            debian.with_all_they_need(PACKAGE, into=root)
        complete.write_text(wanted)
    (cache / "fonts.conf").write_text(_FONTS_CONF.format(cache=cache))
    environment = {"FONTCONFIG_FILE": str(cache / "fonts.conf")}
    if installed:
        return INSTALLED, environment
    libraries = sorted({str(path.parent) for path in root.glob("usr/lib/**/*.so*")})
    program = root / INSTALLED.relative_to("/")
    return program, {**environment, "LD_LIBRARY_PATH": ":".join(libraries)}
