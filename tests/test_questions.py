"""The questions: what is refused, and that the refusal says what to do."""

import re
import sys
import tty
from pathlib import Path
from typing import Any

import pexpect
import pytest
import yaml
from copier import run_copy
from genai_prices import Usage, calc_price
from jinja2.sandbox import SandboxedEnvironment

from tests.kit import (
    CONFIG,
    ON_CALL,
    PROVIDERS,
    QUESTIONS,
    STORES,
    TEMPLATE,
    answers,
    generate,
    run,
)
from tests.releases.snapshot import ROOT

ASKED = {
    name: question
    for name, question in QUESTIONS.items()
    if question.get("when") is not False and question.get("ask") is not False
}
TEXTS = ("project_name", "about", "on_call_name", "on_call_contact")
MODELS = ("openai_model", "anthropic_model", "gemini_model", "compatible_model")


WHERE_IS_THE_CURSOR = r"\x1b\[6n"


def enter_stays_enter() -> None:
    """However early it is typed: a terminal in its usual mode makes a line feed of it."""
    tty.setraw(0)


def refusal(folder: Path, given: dict[str, Any]) -> str:
    """The message with which Copier refuses these answers. Nothing is written."""
    with pytest.raises((ValueError, TypeError)) as caught:
        run_copy(str(folder), folder / "none", data=given, defaults=True, quiet=True, unsafe=False)
    assert not (folder / "none").exists()
    return str(caught.value)


def test_the_order_of_the_questions() -> None:
    assert list(ASKED) == [
        "project_name",
        "about",
        "language",
        "providers",
        "fallback_order",
        *MODELS,
        "deploy",
        "store",
        "web_page",
        "knowledge",
        "daily_cost_cap_usd",
        "on_call_name",
        "on_call_contact",
    ]


@pytest.mark.parametrize("name", ASKED)
def test_every_question_has_help_and_a_default(name: str) -> None:
    question = ASKED[name]
    assert question["help"].splitlines()[0].rstrip(" .)").strip()
    assert all(len(line) <= 84 for line in question["help"].splitlines())
    assert "default" in question
    assert "choices" in question or "validator" in question


def test_the_tests_know_every_provider_and_every_store() -> None:
    offered = [QUESTIONS[name]["choices"].values() for name in ("providers", "store")]
    values = [
        tuple(choice["value"] if isinstance(choice, dict) else choice for choice in choices)
        for choices in offered
    ]
    assert values == [PROVIDERS, STORES]


def test_nothing_needs_trust() -> None:
    assert not {"_tasks", "_jinja_extensions"} & CONFIG.keys()
    assert CONFIG["_envops"]["undefined"] == "jinja2.StrictUndefined"


def test_defaults_alone_stop_and_say_what_to_give(folder: Path) -> None:
    assert "Say who is on call: -d 'on_call_name=Kim Minji'" in refusal(folder, {})
    name_only = {"on_call_name": "Kim Minji"}
    assert "Say how to reach them: -d 'on_call_contact=" in refusal(folder, name_only)


@pytest.mark.parametrize("question", ["on_call_name", "on_call_contact"])
@pytest.mark.parametrize(
    "placeholder",
    [
        *(
            "changeme",
            "CHANGE ME",
            "TBD",
            "tba",
            "n/a",
            "-",
            "???",
            "your name",
            "Your e-mail here",
        ),
        *("example@example.com", "me@example.org", "<on call>", "xxx", "nobody", "미정", "홍길동"),
        *("John Doe", "fill this in", "TODO", "admin@localhost", "000-0000-0000"),
        *("123-456-7890", "555 123-4567", "010-1234-5678", "+82 10 1234 5678"),
    ],
)
def test_nobody_is_on_call_by_a_placeholder(folder: Path, question: str, placeholder: str) -> None:
    message = refusal(folder, ON_CALL | {question: placeholder})
    assert "reaches nobody. Say " in message
    assert question in message


def test_the_checklist_refuses_who_the_question_refuses() -> None:
    """Both have the one list; and neither takes a person for a placeholder."""
    asked = (ROOT / "checks.jinja").read_text(encoding="utf-8").split("{% macro reachable")[1]
    looked = (TEMPLATE / "checklist/test_l10_someone_is_on_call.py").read_text(encoding="utf-8")
    words = [
        re.findall(r'^ +r?"(.+)",$', text, re.MULTILINE)
        for text in (
            asked.split("~ [")[1].split("] |")[0],
            looked.split("NOBODY = re.compile(")[1].split("re.IGNORECASE")[0],
        )
    ]
    assert [word.replace(r"\\", "\\") for word in words[0]] == words[1]
    nobody = re.compile("|".join(words[1]), re.IGNORECASE)
    for someone in ("Todor Petrov", "010-5123-4567", "Mei", "#on-call", "ops@acme.io"):
        assert not nobody.fullmatch(someone), someone


@pytest.mark.parametrize("question", TEXTS)
@pytest.mark.parametrize(
    ("text", "what_to_do"),
    [
        ("", "Say|Write something"),
        (" \t ", "Say|Write something"),
        (" Kim", "Take away the spaces"),
        ("a\nb", "to one line"),
        ("a\r\nb", "to one line"),
        ("a\tb", "to one line"),
        ("a\x00b", "to one line"),
        ("a\x7fb", "to one line"),
        ("a\x85b", "to one line"),
        ("a\u2028b", "to one line"),
        ("a\u202eb", "to one line"),
        ("a\ufeffb", "to one line"),
        ("a\udcffb", "to one line"),
        ("가" * 5000, r"Shorten it: at most \d+ characters, and it has 5000"),
    ],
)
def test_texts_are_one_visible_line(
    folder: Path, question: str, text: str, what_to_do: str
) -> None:
    assert re.search(what_to_do, refusal(folder, ON_CALL | {question: text}))


@pytest.mark.parametrize(
    "name", ["", " ", "gpt 5", 'a"b', "a'b", "a\nb", "a\\b", "{{ a }}", "-a", "모델", "a" * 129]
)
def test_names_of_models(folder: Path, name: str) -> None:
    for question in MODELS if name == "" else MODELS[:1]:
        given = answers(providers=[question.removesuffix("_model")], **{question: name})
        assert "as its provider does: at most 128" in refusal(folder, given)


@pytest.mark.parametrize(
    ("given", "what_to_do"),
    [
        ({"providers": []}, "Choose at least one"),
        ({"providers": "[opneai]"}, r"'opneai' is not in \['openai', "),
        ({"providers": "openai"}, "Not a YAML list"),
        ({"providers": ["openai", "gemini"], "fallback_order": "openai"}, "Name each chosen"),
        ({"providers": ["openai", "gemini"], "fallback_order": "gemini, x"}, "openai, gemini"),
        ({"providers": ["openai", "gemini"], "fallback_order": "gemini,gemini"}, "each .* once"),
        ({"language": "jp"}, r"'jp' is not in \['en', 'ko'\]"),
        ({"store": "mysql"}, r"'mysql' is not in \['sqlite', 'redis', 'postgres'\]"),
        ({"deploy": "heroku"}, r"'heroku' is not in \['docker', 'vercel', 'aws'\]"),
        ({"deploy": "vercel", "store": "sqlite"}, "Vercel keeps no disk: choose Redis or Post"),
        ({"deploy": "aws", "store": "sqlite"}, "Lambda keeps no disk: .* -d store=redis"),
        ({"web_page": "maybe"}, "Answer true or false"),
        ({"knowledge": "some"}, "Answer true or false"),
        *(
            ({"daily_cost_cap_usd": wrong}, "US dollars from 0.01 to 100000")
            for wrong in (
                "0",
                "-1",
                "0.001",
                "100001",
                "nan",
                "inf",
                "1e3",
                "five",
                "",
                "05",
                "5\n",
            )
        ),
    ],
)
def test_wrong_values_are_refused(folder: Path, given: dict[str, Any], what_to_do: str) -> None:
    assert re.search(what_to_do, refusal(folder, ON_CALL | given))


def test_the_tests_refuse_unknown_answers() -> None:
    with pytest.raises(KeyError, match="projectname"):
        answers(projectname="a typo")


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ({}, ["openai"]),
        ({"providers": "[gemini, openai]"}, ["gemini", "openai"]),
        ({"providers": ["gemini", "compatible", "openai"]}, ["gemini", "compatible", "openai"]),
        (
            {"providers": ["openai", "gemini"], "fallback_order": "gemini,openai"},
            ["gemini", "openai"],
        ),
    ],
)
def test_the_fallback_order_is_the_order_of_the_answers(
    folder: Path, tmp_path: Path, given: dict[str, Any], order: list[str]
) -> None:
    generate(folder, tmp_path / "app", answers(**given))
    project = yaml.safe_load((tmp_path / "app/app/project.json").read_text())
    assert project["providers"] == order
    assert list(project["models"]) == order


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My LLM App", "my-llm-app"),
        ("Kim's Helper", "kims-helper-app"),
        ("우리 회사 도우미", "llm-app"),
        ("fastapi", "fastapi-app"),
        ("--- 7 ---", "7-app"),
        ("App", "llm-app"),
        ("<|endoftext|>", "endoftext-app"),
    ],
)
def test_the_slug_is_a_package_name_that_no_dependency_has(
    folder: Path, tmp_path: Path, name: str, slug: str
) -> None:
    generate(folder, tmp_path / "app", answers(project_name=name))
    assert yaml.safe_load((tmp_path / "app/compose.yaml").read_text())["name"] == slug
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-app", slug)


@pytest.mark.parametrize(
    ("provider", "question"),
    [
        ("openai", "openai_model"),
        ("anthropic", "anthropic_model"),
        ("google", "gemini_model"),
        ("groq", "compatible_model"),
    ],
)
def test_the_price_of_a_default_model_is_known(provider: str, question: str) -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=0)
    price = calc_price(usage, QUESTIONS[question]["default"], provider_id=provider)
    assert 0 < price.total_price < 2


def test_the_checks_of_answers_are_found_by_every_validator() -> None:
    environment = SandboxedEnvironment()
    for question in ASKED.values():
        environment.parse(str(question.get("validator", "")))


def test_a_data_file_a_git_url_and_the_command_line(repository: Path, tmp_path: Path) -> None:
    data = tmp_path / "answers.yml"
    data.write_text(yaml.safe_dump(answers(providers=["gemini", "openai"], language="ko")))
    copy = (sys.executable, "-m", "copier", "copy", "--defaults", "--data-file", str(data))
    said = run(tmp_path, *copy, f"git+{repository.as_uri()}", "app")
    assert 'cd "app"' in said
    assert "uv run dev" in said
    recorded = yaml.safe_load((tmp_path / "app/.copier-answers.yml").read_text())
    assert recorded["_commit"] == "v9999.0.0"
    assert recorded["fallback_order"] == "gemini, openai"
    assert recorded["slug"] == "my-llm-app", "not asked, but kept"
    assert not recorded.keys() & {"targets", "anthropic_model"}


def test_asked_in_a_terminal(repository: Path, tmp_path: Path) -> None:
    down, clear = "\x1b[B", "\x15"
    child = pexpect.spawn(
        sys.executable,
        ["-m", "copier", "copy", "--quiet", str(repository), "app"],
        cwd=str(tmp_path),
        dimensions=(50, 120),
        encoding="utf-8",
        timeout=30,
        preexec_fn=enter_stays_enter,
    )
    for expected, keys in (
        ("What is the app called", clear + "도우미\r"),
        ("What does it do", "\r"),
        ("Which language", down + "\r"),
        ("Which providers", " \r"),
        ("Choose at least one", down + " " + down + " \r"),
        ("In which order", clear + "gemini, openai\r"),
        ("Name each chosen provider once", clear + "gemini, anthropic\r"),
        ("Which Anthropic model", "\r"),
        ("Which Gemini model", "\r"),
        ("Where will it run", "\r"),
        ("Where are spending", "\r"),
        ("Does it have a chat page", "n"),
        ("Does it answer from documents", "n"),
        ("How many US dollars", clear + "0\r"),
        ("Give US dollars from", clear + "2.50\r"),
        ("Who is on call", "TBD\r"),
        ("reaches nobody", clear + "김민지\r"),
        ("How are they reached", "#oncall\r"),
        (pexpect.EOF, ""),
    ):
        while child.expect([WHERE_IS_THE_CURSOR, expected]) == 0:
            child.send("\x1b[1;1R")  # what a terminal answers; without it no message is shown
        child.send(keys)
    child.close()
    assert child.exitstatus == 0
    recorded = yaml.safe_load((tmp_path / "app/.copier-answers.yml").read_text())
    assert {name: recorded[name] for name in recorded if not name.startswith("_")} == {
        "project_name": "도우미",
        "slug": "llm-app",  # not asked
        "about": "An assistant that answers questions.",
        "language": "ko",
        "providers": ["anthropic", "gemini"],
        "fallback_order": "gemini, anthropic",
        "anthropic_model": "claude-haiku-5-5",
        "gemini_model": "gemini-3.1-flash-lite",
        "store": "sqlite",
        "deploy": "docker",
        "web_page": False,
        "knowledge": False,
        "daily_cost_cap_usd": "2.50",
        "on_call_name": "김민지",
        "on_call_contact": "#oncall",
    }
