"""The chat page: served whole, from here alone, under a strict policy."""

import re

from app.foundation.project import load_project
from tests.running import RunningApp


def test_the_page_and_everything_it_names(app: RunningApp) -> None:
    with app.http(None) as http:
        page = http.get("/")
        assert page.status_code == 200
        named = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
        assert named
        for address in named:
            assert not address.startswith(("http:", "https:", "//")), address
            assert http.get(f"/{address.lstrip('/')}").status_code == 200, address
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_scripts_are_scripts_and_are_checked_for_news(app: RunningApp) -> None:
    with app.http(None) as http:
        script = http.get("/assets/chat/chat.js")
        again = http.get("/assets/chat/chat.js", headers={"If-None-Match": script.headers["etag"]})
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cache-control"] == "no-cache"
    assert again.status_code == 304


def test_what_the_page_is_told(app: RunningApp) -> None:
    with app.http(None) as http:
        told = http.get("/assets/chat/config.json").json()
    assert told["name"] == load_project().name
    assert told["key_required"] is True
    assert told["feedback"] is True
