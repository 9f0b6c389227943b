"""A generated app's chat page in a real browser."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.deploy.browser import DARK, LIGHT, in_every_light, opened
from tests.deploy.monitoring import wait_for
from tests.deploy.served import ALICE, Served, begin_chat, serving

pytestmark = pytest.mark.deploy

# So few that no history is summarised: that is one call more.
BOB, QUOTA = "bob-0123456789", 4
LIVE_MS = 15_000
MARMALADE = "Marmalade is made of oranges."


@pytest.fixture(scope="module")
def english(browsed: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(browsed["en"], tmp_path_factory.mktemp("english")) as running:
        yield running


@pytest.fixture(scope="module")
def korean(browsed: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An app that speaks Korean, and takes few questions a minute."""
    path = tmp_path_factory.mktemp("korean")
    settings = {"APP_API_KEYS": f"alice:{ALICE},bob:{BOB}", "REQUESTS_PER_MINUTE": str(QUOTA)}
    with serving(browsed["ko"], path, settings) as running:
        yield running


@pytest.mark.parametrize(
    ("options", "language"), [(LIGHT, "en"), (DARK, "ko")], ids=["mouse en", "touch ko"]
)
def test_a_conversation(
    browser: Browser,
    english: Served,
    korean: Served,
    axe: str,
    options: dict[str, Any],
    language: str,
) -> None:
    served = korean if language == "ko" else english
    with opened(browser, **options) as seen:
        page = seen.page
        page.goto(f"{served.url}/")
        expect(page.locator("#key-form")).to_be_visible()
        for light in in_every_light(seen):
            assert seen.barriers(axe) == [], light
            assert seen.overflow() <= 0, light
        begin_chat(seen, served)
        served.fake.next(served.fakes.Reply(text=MARMALADE))
        page.locator("#box").fill("What is marmalade?")
        page.keyboard.press("Enter")
        expect(page.locator("article .answer")).to_have_text(MARMALADE)
        expect(page.locator("article")).to_have_attribute("data-state", "done")
        # Both ratings are taken, by keyboard too; the last one counts, and is still there later.
        good, bad = page.locator(".choice").all()
        good.click()
        expect(good).to_have_attribute("aria-pressed", "true")
        bad.focus()
        page.keyboard.press("Enter")
        expect(bad).to_have_attribute("aria-pressed", "true")
        expect(good).to_have_attribute("aria-pressed", "false")
        page.reload()
        expect(page.locator("article .answer")).to_have_text(MARMALADE)
        expect(page.locator(".choice").nth(1)).to_have_attribute("aria-pressed", "true")
        for light in in_every_light(seen):
            assert seen.barriers(axe) == [], light
            assert seen.overflow() <= 0, light
        # It goes on where it was: the model is told what was said before.
        served.fake.next(served.fakes.Reply(text="Since 1480."))
        page.locator("#box").fill("Since when?")
        page.keyboard.press("Enter")
        expect(page.locator("article .answer").last).to_have_text("Since 1480.")
        said = served.fake.ledger.calls[-1].messages
        before = [("user", "What is marmalade?"), ("assistant", MARMALADE)]
        assert [*said][-3:] == [*before, ("user", "Since when?")]
        assert page.locator("html").get_attribute("lang") == language
        assert seen.violations() == []
        assert seen.errors == []


def test_a_conversation_that_does_not_go_smoothly(browser: Browser, english: Served) -> None:
    with opened(browser, **LIGHT) as seen:
        page, fakes, fake = seen.page, english.fakes, english.fake
        begin_chat(seen, english)
        box, last = page.locator("#box"), page.locator("article").last

        def say(text: str, behaviour: Any) -> None:
            fake.next(behaviour)
            box.fill(text)
            page.keyboard.press("Enter")

        # Stopped by its reader: the provider is told, and nothing more comes.
        words = " ".join(f"word{number}" for number in range(100))
        say("Count.", fakes.Reply(text=words, delay_between=0.1))
        expect(last.locator(".answer")).to_contain_text("word1 ")
        page.locator("#stop").click()
        expect(last).to_have_attribute("data-state", "stopped")
        wait_for("the call's end", lambda: fake.ledger.calls[-1].outcome == "client_left")

        # Broken off in the middle: what came stays, and another try is offered.
        say("Again.", fakes.ErrorInside(after_chunks=2, reply=fakes.Reply(text=words)))
        expect(last).to_have_attribute("data-state", "failed")
        expect(last.locator(".answer")).to_contain_text("word1")
        expect(last.locator(".said")).not_to_be_empty()
        fake.next(fakes.Reply(text="All of it."))
        again = last.get_by_role("button", name=re.compile("Try again"))
        expect(again).to_be_enabled(timeout=LIVE_MS)
        again.click()
        expect(last.locator(".answer")).to_have_text("All of it.")

        # The page goes away in the middle: what had come is still there, and can be asked again.
        say("Once more.", fakes.Reply(text=words, delay_between=0.1))
        expect(last.locator(".answer")).to_contain_text("word1 ")
        page.reload()
        expect(last).to_have_attribute("data-state", "failed")
        expect(last.locator(".answer")).to_contain_text("word1 ")
        expect(last.locator(".said")).to_have_text("The connection to the app was lost.")
        fake.next(fakes.Reply(text="All of it again."))
        again.click()
        expect(last.locator(".answer")).to_have_text("All of it again.")

        # Too long: it is refused with both numbers, and given back to be changed.
        turns = page.locator("article").count()
        box.fill("too long " * 9000)
        page.keyboard.press("Enter")
        expect(page.locator("#notice")).to_contain_text("limit of 4000 tokens")
        expect(box).to_have_value(re.compile("^too long"))
        assert page.locator("article").count() == turns

        # Korean: the Enter that ends a syllable's composing sends nothing.
        box.fill("")
        calls = len(fake.ledger.calls)
        keyboard = page.context.new_cdp_session(page)
        composing = {"text": "안녀", "selectionStart": 2, "selectionEnd": 2}
        keyboard.send("Input.imeSetComposition", composing)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
        keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
        keyboard.send("Input.insertText", {"text": "안녕하세요"})
        expect(box).to_have_value("안녕하세요")
        assert len(fake.ledger.calls) == calls
        fake.next(fakes.Reply(text="반갑습니다."))
        page.keyboard.press("Enter")
        expect(last.locator(".question")).to_have_text("안녕하세요")
        expect(last.locator(".answer")).to_have_text("반갑습니다.")
        assert fake.ledger.calls[-1].messages[-1] == ("user", "안녕하세요")
        assert seen.violations() == []
        # Refusals are in the console as what they are: answers of the server.
        assert [text for text in seen.errors if "Failed to load resource" not in text] == []


def test_whoever_asks_too_often_is_told_when_to_go_on(
    browser: Browser, korean: Served, axe: str
) -> None:
    with opened(browser, **DARK) as seen:
        page, ledger = seen.page, korean.fake.ledger
        page.clock.install()
        begin_chat(seen, korean, BOB)
        last, box = page.locator("article").last, page.locator("#box")

        def say(text: str, state: str) -> None:
            box.fill(text)
            page.keyboard.press("Enter")
            expect(last.locator(".question")).to_have_text(text)
            expect(last).to_have_attribute("data-state", state)

        for number in range(QUOTA):
            say(f"{number + 1}번", "done")
        before = len(ledger.calls)
        assert before >= QUOTA
        say("하나 더", "failed")
        assert len(ledger.calls) == before
        expect(last.locator(".said")).to_have_text(
            "요청이 너무 많습니다. 잠시 후 다시 시도해 주세요."
        )
        again = last.get_by_role("button", name="다시 시도")
        expect(again).to_be_disabled()
        found = re.fullmatch(r"(\d+)초 뒤 다시 시도", again.inner_text())
        assert found
        wait = int(found[1])
        assert 30 < wait <= 60
        expect(box).to_be_enabled()
        for light in in_every_light(seen):
            assert seen.barriers(axe) == [], light
            assert seen.overflow() <= 0, light

        # All but the last second of it goes by, for the app and for the page.
        with sqlite3.connect(korean.records) as records:
            records.execute("UPDATE rates SET expires_at = expires_at - ?", [wait - 1])
        records.close()
        page.clock.fast_forward(1000 * (wait - 1))
        expect(again).to_be_enabled()
        expect(again).to_have_text("다시 시도")
        korean.fake.next(korean.fakes.Reply(text="반갑습니다."))
        again.click()
        expect(last.locator(".answer")).to_have_text("반갑습니다.")
        expect(last.locator(".said")).to_have_count(0)
        assert len(ledger.calls) == before + 1
        assert ledger.calls[-1].messages[-1] == ("user", "하나 더")
        assert page.locator("article").count() == QUOTA + 1
        assert seen.violations() == []
        assert [text for text in seen.errors if "429" not in text] == []
