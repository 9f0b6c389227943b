"""The documentation's screenshots are of the pages as they are. `make screenshots` renews them."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.deploy.browser import Seen, opened
from tests.deploy.screenshots import MOMENT, RENEW, SCALE, Gallery
from tests.deploy.served import Served, begin_chat, serving, sign_in
from tests.deploy.traffic import CALLERS, a_week, timezone
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

QUESTIONS = {
    "en": "When should a client retry a failed model call?",
    "ko": "실패한 모델 호출은 언제 다시 시도해야 하나요?",
}
ANSWERS = {
    "en": """Retry only what can **succeed on a second try**: timeouts, connection errors, `429` \
and `5xx`. Anything else is a mistake in the request, and sending it again only costs time.

1. **Wait longer each time**, with jitter, so that clients do not come back in step.
2. **Obey** `Retry-After` when it fits your deadline; otherwise move on to the next provider.
3. **Keep one idempotency key** per logical request, so that nobody pays twice.""",
    "ko": """**다시 하면 성공할 수 있는 것**만 다시 시도하세요. 시간 초과, 연결 오류, \
`429`, `5xx`가 그렇습니다. 나머지는 요청 자체의 잘못이라, 다시 보내도 시간만 듭니다.

1. **갈수록 오래 기다립니다.** 여러 클라이언트가 한꺼번에 몰리지 않도록 간격을 조금씩 흩뜨립니다.
2. `Retry-After`가 기한 안이면 **그대로 따르고**, 아니면 다음 제공자로 넘어갑니다.
3. 논리적인 요청 하나에 **멱등 키 하나**를 씁니다. 그래야 아무도 두 번 내지 않습니다.""",
}
WIDTHS = {"chat": 1160, "ops": 1040, "phone": 390}


@pytest.fixture(scope="module")
def gallery(browser: Browser, pytestconfig: pytest.Config) -> Gallery:
    renew = bool(pytestconfig.getoption(RENEW, default=False))
    return Gallery(browser.new_page(), ROOT / "build/screenshots", ROOT / "docs/images", renew)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_screenshots_show_what_there_is(
    browser: Browser, browsed: dict[str, Path], tmp_path: Path, gallery: Gallery, language: str
) -> None:
    ending = "" if language == "en" else f".{language}"
    settings = {
        "APP_API_KEYS": ",".join(f"{name}:{name}-0123456789" for name in CALLERS),
        "APP_TIMEZONE": timezone(),
        "DAILY_COST_CAP_PER_CALLER_USD": "1.6",
        "OPENAI_INPUT_USD_PER_MTOK": "0.4",
        "OPENAI_OUTPUT_USD_PER_MTOK": "1.6",
        "PROVIDERS": "openai,anthropic",
    }
    gallery.complaints.clear()
    with serving(browsed[language], tmp_path, settings, a_week()) as served:
        for name, scheme in (("ops", "light"), ("phone", "dark"), ("chat", "light")):
            options = {
                "color_scheme": scheme,
                "device_scale_factor": SCALE,
                "extra_http_headers": {"X-Request-ID": "6b4f8e6aa2a442d0a7d7692c31f0be55"},
                "has_touch": name == "phone",
                "locale": {"en": "en-US", "ko": "ko-KR"}[language],
                "timezone_id": "UTC",
                "viewport": {"width": WIDTHS[name], "height": 400},
            }
            with opened(browser, **options) as seen:
                seen.page.clock.set_fixed_time(MOMENT)
                is_chat = name == "chat"
                end = chat(seen, served, language) if is_chat else ops(seen, served, name)
                gallery.take(f"{name}{ending}", seen, end)
                assert seen.violations() == []
                assert seen.errors == []
    assert gallery.renew or not gallery.complaints, (
        f"{'; '.join(gallery.complaints)}. `make screenshots` takes them anew: look at each of"
        " those in docs/images, and commit it."
    )


def ops(seen: Seen, served: Served, name: str) -> float:
    """The operations page of a day; where its screenshot ends, in pixels from the top."""
    page = seen.page
    sign_in(seen, served)
    expect(page.locator("#operations")).to_be_visible()
    page.goto("about:blank")  # nothing has the focus
    page.goto(f"{served.url}/ops#day")
    expect(page.locator("#attention")).to_contain_text("85%")
    expect(page.locator("#plots svg")).to_have_count(3)
    box = page.locator("#traffic" if name == "ops" else "#plots figure").first.bounding_box()
    assert box
    return box["y"] + box["height"] + 16


def chat(seen: Seen, served: Served, language: str) -> float:
    """The chat page with an answer; its height in pixels."""
    page, fakes = seen.page, served.fakes
    begin_chat(seen, served, "web-0123456789")
    usage = fakes.Usage(312, 118)
    served.fake.next(fakes.Reply(text=ANSWERS[language], usage=usage))
    page.locator("#box").fill(QUESTIONS[language])
    page.keyboard.press("Enter")
    expect(page.locator("article")).to_have_attribute("data-state", "done")
    height: float = page.evaluate("document.documentElement.scrollHeight")
    return height
