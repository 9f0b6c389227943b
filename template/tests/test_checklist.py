"""The checklist's command: its reports, its exit codes, and its look at a live deployment."""

import ast
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from string import Formatter

import pytest
from rich.console import Console

from checklist import cli, outside, report, scan
from checklist.items import HERE, ITEMS
from checklist.messages import load_texts
from checklist.outside_checks import Deployment
from checklist.results import Failure, Report, Result
from tests.conftest import StartApp
from tests.fake_provider import FakeProvider
from tests.running import ADMIN_TOKEN, CALLERS

HOSTILE = "<script>alert(1)</script> | `x` [red]y[/red] * _z_"


def a_report(open_items: int, of: int = len(ITEMS)) -> Report:
    """A report with so many open items."""
    results = [
        Result(item, 1.5, failures=[Failure("test_x", f"Expected {HOSTILE}.", HOSTILE, "a.py")])
        if number < open_items
        else Result(item, 0.5, evidence=["20 of 26 passed", HOSTILE])
        for number, item in enumerate(ITEMS)
    ]
    return Report(
        "Kim's <App>", datetime(2026, 1, 2, 3, 4, tzinfo=UTC), results[:of], len(ITEMS), 42.0
    )


@pytest.mark.parametrize(("open_items", "code"), [(0, 0), (1, 1), (2, 1), (3, 2), (12, 2)])
def test_the_exit_code_is_the_verdict(open_items: int, code: int) -> None:
    found = a_report(open_items)
    assert found.exit_code == code
    assert (
        found.verdict
        == {
            0: load_texts().text("report.ready"),
            1: load_texts().text("report.nearly", limit=3),
            2: load_texts().text("report.not_ready", open=open_items, limit=3),
        }[code]
    )


def test_a_part_of_the_checklist_has_no_verdict() -> None:
    assert a_report(0, of=2).verdict == load_texts().text("report.partial", total=2, of=len(ITEMS))


def test_open_items_of_two_lists_do_not_add_up() -> None:
    found = a_report(2)
    launch = next(result for result in found.results if result.item.of_launch)
    found.results[found.results.index(launch)] = Result(launch.item, 0.1)
    assert (found.open, found.exit_code) == (3, 1)


def test_an_item_without_evidence_is_open() -> None:
    assert not Result(ITEMS[0], 0.1).checked


def test_the_terminal_says_all_of_it() -> None:
    written = StringIO()
    Console(width=160, file=written).print(report.as_text(a_report(1)))
    text = written.getvalue()
    for words in ("☐", "☑", "20 of 26 passed", "[red]y[/red]", "a.py", "1.1", "5.2"):
        assert words in text


def test_json_is_for_programs() -> None:
    content = json.loads(report.as_json(a_report(2)))
    assert (content["checked"], content["open"], content["exit_code"]) == (len(ITEMS) - 2, 2, 1)
    assert content["items"][0]["failures"][0]["look"] == "a.py"
    assert content["items"][11]["evidence"] == ["20 of 26 passed", HOSTILE]


def test_markdown_keeps_its_table() -> None:
    text = report.as_markdown(a_report(1))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(ITEMS)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert "<script>" not in text


def test_html_is_whole_and_needs_nothing() -> None:
    text = report.as_html(a_report(3))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(?:src|href)=|url\(|@import", text)

    class Reader(HTMLParser):
        depth = articles = 0

        def handle_starttag(self, tag: str, attrs: object) -> None:
            self.depth += tag not in {"meta"}
            self.articles += tag == "article"

        def handle_endtag(self, tag: str) -> None:
            self.depth -= 1

    reader = Reader()
    reader.feed(text)
    assert (reader.depth, reader.articles) == (0, len(ITEMS))


def test_both_languages_say_the_same() -> None:
    english, korean = load_texts("en").texts, load_texts("ko").texts
    assert english.keys() == korean.keys()
    for key, text in english.items():
        assert _gaps(text) == _gaps(korean[key]), key


def _gaps(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_every_check_has_its_words() -> None:
    texts = load_texts("en").texts
    used = 0
    for item in ITEMS:
        assert {f"{item.number}.title", f"{item.number}.what"} <= texts.keys()
        for node in ast.walk(ast.parse(item.module.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            place = {"that": 1, "found": 0}.get(node.func.attr)
            if place is None or not isinstance(key := node.args[place], ast.Constant):
                continue
            given = {word.arg for word in node.keywords if word.arg}
            assert _gaps(texts[f"{item.number}.{key.value!s}"]) <= given, key.value
            used += 1
    assert used > 60
    words = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("*.py"))
    said = set(re.findall(r"""seen_as\(["'](\w+)["']""", words)) | {"listened", "running", "ended"}
    assert {f"seen.{key}" for key in said} == {key for key in texts if key.startswith("seen.")}
    assert {path.name for path in HERE.glob("test_*.py")} == {item.module.name for item in ITEMS}


@pytest.mark.parametrize("arguments", [["--item", "9.9"], ["--report", "x.pdf"], ["--nonsense"]])
def test_a_command_that_is_none_is_no_verdict(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == cli.EX_USAGE
    assert "checklist" in capsys.readouterr().err


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The owner's keys in the environment, and nobody at the keyboard."""
    monkeypatch.setenv(outside.ADMIN_TOKEN, ADMIN_TOKEN)
    monkeypatch.setenv(outside.APP_KEY, CALLERS["alice"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    return monkeypatch


def test_a_live_app_is_seen_from_outside(
    start_app: StartApp,
    fake: FakeProvider,
    keys: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = start_app()
    code = cli.main(["--url", app.url, "--format", "json"])
    told = capsys.readouterr()
    content = json.loads(told.out)
    assert [item["item"] for item in content["items"] if not item["checked"]] == []
    assert code == 0
    assert len(content["items"]) == 8, "all but TLS, which this machine's own address has not"
    assert any("3.2" in note for note in content["notes"])
    assert len(fake.ledger.calls) <= Deployment.MOST_CALLS
    requests = [line for line in app.log_lines() if "duration_ms" in line]
    assert len(requests) <= Deployment.MOST_REQUESTS
    assert str(Deployment.MOST_REQUESTS) in told.err, "the cost is said beforehand"
    for secret in (ADMIN_TOKEN, CALLERS["alice"]):
        assert secret not in told.out + told.err


def test_what_is_wrong_is_seen_from_outside(
    start_app: StartApp, keys: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = start_app(max_input_tokens=50_000, max_body_bytes=8 * 1024 * 1024, allow_anonymous=True)
    code = cli.main(["--url", app.url, "--format", "json"])
    content = json.loads(capsys.readouterr().out)
    found = {item["item"] for item in content["items"] if not item["checked"]}
    assert found == {"url.tokens", "url.oversized", "url.key"}
    assert code == 2


@pytest.mark.parametrize("token", ["", "wrong-token-0123", CALLERS["alice"]])
def test_only_the_owner_may_look(
    start_app: StartApp,
    fake: FakeProvider,
    keys: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    token: str,
) -> None:
    app = start_app()
    keys.setenv(outside.ADMIN_TOKEN, token)
    assert cli.main(["--url", app.url]) == cli.EX_USAGE
    assert outside.ADMIN_TOKEN in capsys.readouterr().err
    assert fake.ledger.calls == []
    assert len([line for line in app.log_lines() if "duration_ms" in line]) <= 1


@pytest.mark.parametrize("url", ["http://example.com", "ftp://example.com", "example.com"])
def test_keys_travel_through_tls_alone(keys: pytest.MonkeyPatch, url: str) -> None:
    assert cli.main(["--url", url]) == cli.EX_USAGE


@pytest.mark.parametrize(
    ("rule", "left_out"),
    [
        ("**/.env*", {".env", "app/.env"}),
        ("{.*,.*/**,**/.env*/**}", {".env"}),
        ("{a,**/.{git,env}*}", {".env", "app/.env"}),
        (".env", {".env"}),
        ("{a,**/*.{key,pem}}", set()),
        ("!(app|uv.lock){,/**}", set()),
        ("", set()),
    ],
)
def test_the_rules_of_vercels_bundle_are_understood(
    tmp_path: Path, rule: str, left_out: set[str]
) -> None:
    content = {"functions": {"app/asgi.py": {"excludeFiles": rule}}}
    (tmp_path / "vercel.json").write_text(json.dumps(content))
    names = {".env", "app/.env", "app/main.py"}
    assert {name for name in names if scan.left_out_by_vercel(tmp_path, name)} == left_out


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"functions": {}}', '{"functions": {"a": {}}}'])
def test_a_bundle_without_rules_leaves_nothing_out(tmp_path: Path, text: str) -> None:
    assert not scan.left_out_by_vercel(tmp_path, ".env")
    (tmp_path / "vercel.json").write_text(text)
    assert not scan.left_out_by_vercel(tmp_path, ".env")


def test_dockers_rules_are_understood(tmp_path: Path) -> None:
    rules = tmp_path / ".dockerignore"
    for lines, ignored in {
        "": False,
        ".env": True,
        "*\n!app": True,
        "*\n!.env": False,
        "# .env": False,
        "**/.env*\n": True,
        "app": False,
    }.items():
        rules.write_text(lines)
        assert scan.ignored_by_docker(tmp_path, ".env") is ignored, lines
    rules.write_text("*\n!app\n**/.env*\n")
    assert scan.ignored_by_docker(tmp_path, "app/.env")
    assert not scan.ignored_by_docker(tmp_path, "app/main.py")
