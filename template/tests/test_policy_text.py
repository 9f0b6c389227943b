"""The policy on texts: streams cut anywhere, what is data and what only looks like it, time."""

import asyncio
import hashlib
import json
import re
import time
from collections import Counter
from pathlib import Path

import pytest
import re2  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from app.foundation.errors import AppError
from app.foundation.record import RequestRecord
from app.launch.policy.folding import fold
from app.launch.policy.look import look, merged
from app.launch.policy.rules import DEFAULT, YOURS, InvalidRulesError, Rules, read_rules
from app.launch.policy.screen import MOST_HELD, AbstainedError, Policy, Screen
from app.launch.policy.width import UnboundedError, widest
from app.providers.base import Message
from tests.test_policy import CARD, IBAN, KEY, RRN, RULES

# In pieces, so that no search for keys takes these for one.
JWT = ".".join(["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N"])
_MARK = "-----{} PRIVATE KEY-----"
PEM = "\n".join([_MARK.format("BEGIN"), "MIIEvQIBADAN", "BgkqhkiG9w0B", _MARK.format("END")])
ANSWERS = {
    "clean": "Nothing to see here, 아무것도 없습니다. 1 + 1 = 2, [sic] (2026-11-27).",
    "hidden": f"Mail eve@example.com, card {CARD} 12/28, key {KEY}, EMP-1234; EMP-123456789 no.",
    "numbers": f"주민등록번호는 {RRN}이고 계좌는 {IBAN} 입니다. 전화 02-312-3456, 9000 1.",
    "blocked": "So far so good: 쏙독새 프로젝트는 비밀입니다. More.",
    "almost": "Project Night is a play, 쏙독새 is a bird, the maximum is a number.",
    "abstained": "You may take\nthe maximum\n dose of ten.",
    "restored": "Dear [EMAIL_1], [[EMAIL_1]], [EMAIL_2], [EMAIL_1",
    "odd": "ＥＭＰ-１２３４ and E\u200bMP-5678, \u1112\u1161\u11ab\u1100\u1173\u11af, e\u0301",
    "key": f"Here:\n{PEM}\nand {JWT} and postgresql://app:hunter22@db.internal/app ok",
}


def rules_of(tmp: Path, text: str) -> Rules:
    """The rules in a text."""
    file = tmp / "rules.toml"
    file.write_text(text, encoding="utf-8")
    return read_rules(str(file))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """The rules of test_policy.py."""
    return Policy(rules_of(tmp_path_factory.mktemp("rules"), RULES))


async def screen_of(policy: Policy) -> Screen:
    """A request in which one address was hidden."""
    screen = policy.screen(RequestRecord("r"), "en", in_json=False)
    await screen.messages((Message("user", "I am bob@example.com"),))
    return screen


def heard(screen: Screen, pieces: list[str]) -> tuple[str, str]:
    """What a client hears of an answer that comes in these pieces, and how it ends."""
    said = ""
    try:
        for piece in pieces:
            said += screen.push(piece)
            screen.verdict()
        said += screen.rest()
        screen.verdict()
    except AppError as error:
        return said, error.code
    except AbstainedError as error:
        return said, error.rule
    return said, "stop"


CAFE = """[[rule]]
name = "cafe"
action = "block"
words = ["Operation Café", "Élan", "쏙독새"]
"""


@pytest.mark.parametrize(
    "pieces",
    [
        ["On: Operation Cafe", "\u0301 is"],
        ["On: ", "E", "\u0301lan is"],
        ["On: 쏘", "\u11a8독새 is"],
        ["On: \u110a\u1169", "\u11a8독새 is"],
    ],
)
async def test_an_accent_that_comes_late_is_waited_for(tmp_path: Path, pieces: list[str]) -> None:
    policy = Policy(rules_of(tmp_path, CAFE))
    assert heard(await screen_of(policy), pieces) == ("On: ", "content_policy_violation")
    answer = "".join(pieces)
    assert heard(await screen_of(policy), list(answer)) == ("On: ", "content_policy_violation")


# The ends of each range of what Unicode calls default ignorable, with the Hangul fillers.
UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180f\u200b\u200f\u202a\u202e\u2060\u206f"
    "\u3164\ufe00\ufe0f\ufeff\uffa0\ufff0\ufffb\U0001bca0\U0001bca3\U0001d173\U0001d17a"
    "\U000e0000\U000e0fff"
)


@pytest.mark.parametrize("letter", UNSEEN)
async def test_what_nobody_sees_hides_nothing(tmp_path: Path, letter: str) -> None:
    policy = Policy(rules_of(tmp_path, CAFE))
    for answer in (f"On: 쏙독{letter}새 is", f"On: É{letter}lan is"):
        for pieces in ([answer], list(answer)):
            assert heard(await screen_of(policy), pieces) == ("On: ", "content_policy_violation")


EXPECTED = {
    "clean": (ANSWERS["clean"], "stop"),
    "hidden": (
        "Mail [EMAIL_2], card [CARD_1] 12/28, key [SECRET_1], [EMPLOYEE_1]; EMP-123456789 no.",
        "stop",
    ),
    "numbers": (
        "주민등록번호는 [RRN_1]이고 계좌는 [IBAN_1] 입니다. 전화 [PHONE_1], 9000 1.",
        "stop",
    ),
    "blocked": ("So far so good: ", "content_policy_violation"),
    "almost": (ANSWERS["almost"], "stop"),
    "abstained": ("You may take\nthe ", "dosage"),
    "restored": ("Dear bob@example.com, [bob@example.com], [EMAIL_2], [EMAIL_1", "stop"),
    "odd": ("[EMPLOYEE_1] and [EMPLOYEE_2], \u1112\u1161\u11ab\u1100\u1173\u11af, e\u0301", "stop"),
    "key": ("Here:\n[SECRET_1]\nand [SECRET_2] and postgresql[SECRET_3]/app ok", "stop"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_ends_alike_wherever_it_is_cut(policy: Policy, name: str) -> None:
    answer = ANSWERS[name]
    assert heard(await screen_of(policy), [answer]) == EXPECTED[name]
    assert heard(await screen_of(policy), list(answer)) == EXPECTED[name]
    for place in range(1, len(answer)):
        pieces = [answer[:place], answer[place:]]
        assert heard(await screen_of(policy), pieces) == EXPECTED[name], pieces


@settings(deadline=None, max_examples=150)
@given(st.data())
async def test_any_mixture_cut_anywhere_ends_alike(policy: Policy, data: st.DataObject) -> None:
    parts = [
        *(re.findall(r"\S+\s*|\s+", " ".join(ANSWERS.values()))),
        " ",
        "1",
        "-",
        "@",
        "가",
        "\n",
    ]
    answer = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=25)))
    places = data.draw(st.lists(st.integers(0, len(answer)), max_size=8).map(sorted))
    pieces = [answer[a:b] for a, b in zip([0, *places], [*places, len(answer)], strict=True)]
    assert heard(await screen_of(policy), pieces) == heard(await screen_of(policy), [answer])


async def test_what_is_held_back_is_bounded(policy: Policy) -> None:
    for part in ("a" * 16, "1" * 16, "1 " * 8, "가" * 16, "a@" * 8, "[" * 16, "-----BEGIN RSA "):
        screen = await screen_of(policy)
        held = most = 0
        for _ in range(2 * MOST_HELD // len(part)):
            held += len(part) - len(screen.push(part))
            most = max(most, held)
        assert most <= MOST_HELD + len(part), part


async def test_plain_words_are_not_held_back() -> None:
    screen = Policy(read_rules(str(DEFAULT))).screen(RequestRecord("r"), "en", in_json=False)
    for sentence in ("A sentence of plain words. ", "평범한 문장입니다. "):
        assert screen.push(sentence) == sentence


DATA = {
    "card": (
        [
            CARD,
            "4111111111111111",
            "3782-822463-10005",
            "9410 8512 3456 7890",
            "４１１１１１１１１１１１１１１１",
        ],
        ["4111 1111 1111 1112", "1234567890123", "2026 1127 1200 0000", "41111111111111111111"],
    ),
    "rrn": (
        [
            RRN,
            "9001011234568",
            "900101-1234567",
            "210301-3123456",
            "210301 3123456",
            "2103013123456",
        ],
        ["9001011234567", "901301-1234567", "900101-0234567", "900101-12345678"],
    ),
    "iban": (
        [IBAN, "de89370400440532013000", "GB82-WEST-1234-5698-7654-32"],
        ["DE89 3704 0044 0532 0130 01"],
    ),
    "phone": (
        ["010-1234-5678", "02-312-3456", "1588-1234", "+82 10 1234 5678", "(415) 555-2671"],
        [
            *("2026-11-27", "1234567", "12 34 56 78 90", "010-1234", "1732694400"),
            *("2026-11-27 10:30", "2026-03-11 14:00:12", "2026.11.27 09:00", "2026-1-7 23:59"),
            "2026-11-27 14:05 - 2026-11-28 09:00",
        ],
    ),
    "email": (["bob@example.com", "a.b+c@mail.example.co.kr"], ["bob@", "@example.com", "a@b"]),
    "secret": (
        [
            *(KEY, JWT, PEM, "AKIA" + "IOSFODNN7EXAMPLE", "xoxb-123456789012-abcdef"),
            *(start + "a1" * 20 for start in ("ghp_", "AIza", "gsk_", "hf_", "sk-ant-api03-")),
        ],
        ["sk-learn", "AKIA", "risk-assessment-of-the-whole-project", "token"],
    ),
}


@pytest.mark.parametrize("kind", DATA)
def test_data_is_told_from_what_looks_like_it(tmp_path: Path, kind: str) -> None:
    rules = rules_of(tmp_path, f'[[rule]]\nname = "r"\naction = "redact"\ndata = ["{kind}"]\n').on(
        "input"
    )
    for value in DATA[kind][0]:
        for text in (f"a {value} b", f"번호는{value}입니다", f"({value}),", value):
            found = [text[hit.start : hit.end] for hit in merged(look(rules, text)[0])]
            assert found == [value], text
    for value in DATA[kind][1]:
        assert look(rules, f"a {value} b")[0] == [], value


async def test_a_placeholder_is_never_one_that_the_text_had(policy: Policy) -> None:
    screen = policy.screen(RequestRecord("r"), "en", in_json=False)
    hidden = await screen.messages((Message("user", "[EMAIL_1] is not bob@example.com"),))
    assert hidden[0].text == "[EMAIL_1] is not [EMAIL_2]"
    assert heard(screen, ["[EMAIL_1] [EMAIL_2]"]) == ("[EMAIL_1] bob@example.com", "stop")


MEGABYTE = 1_000_000
ATTACKS = {
    "letters": "a",
    "spaces": " ",
    "한국어": "가나 ",
    "addresses": "a@b.co ",
    "cards": "4111 1111 1111 1111 ",
    "almost cards": "4111 1111 1111 1112 ",
    "digits": "1 ",
    "phones": "010-1234-567 ",
    "ibans": "DE89 3704 0044 0532 0130 01 ",
    "phrases": "ignore all previous ",
    "full width": "１２３ ",
    "marks": "\u0301\u0327",
    "schemes": "http://a:b",
    "brackets": "[EMAIL_1",
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_the_time_grows_with_the_length_alone(policy: Policy, name: str) -> None:
    # Seconds of this process for 1 MB, and not much more than ten times those of a tenth.
    part = ATTACKS[name]

    async def seconds(size: int) -> float:
        text = part * (size // len(part.encode()))
        started = time.process_time()
        await policy.screen(RequestRecord("r"), "en", in_json=False).messages(
            (Message("user", text),)
        )
        return time.process_time() - started

    await seconds(1000)
    tenth, whole = await seconds(MEGABYTE // 10), await seconds(MEGABYTE)
    assert whole < 6
    assert whole < 25 * max(tenth, 0.02)


async def test_what_is_hidden_in_json_leaves_json(policy: Policy) -> None:
    answer = json.dumps({"a\\": 4111111111111111, 'b"': f"\\{CARD}\\", "c": [4111111111111111, 1]})
    expected = {"a\\": "[CARD_1]", 'b"': "\\[CARD_2]\\", "c": ["[CARD_1]", 1]}
    for pieces in ([answer], list(answer)):
        screen = policy.screen(RequestRecord("r"), "en", in_json=True)
        text, ended = heard(screen, pieces)
        assert (json.loads(text), ended) == (expected, "stop")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"a": "x\nProject Nightjar"}, '{"a": "x\\n'),
        ({"a": "쏙독새 프로젝트"}, '{"a": "'),
        ({"a": "\U0001d40froject Nightjar"}, '{"a": "'),
        ({"a": "e\u0301 \\Project Nightjar"}, '{"a": "e\\u0301 \\\\'),
        ({"a": f"1\n{PEM}\n!"}, '{"a": "1\\n[SECRET_1]\\n!"}'),
        ({"a": "1\nEMP-1234\t2"}, '{"a": "1\\n[EMPLOYEE_1]\\t2"}'),
    ],
)
async def test_an_escape_in_json_is_what_it_stands_for(
    policy: Policy, said: dict[str, str], expected: str
) -> None:
    answer = json.dumps(said)
    cuts = [[answer[:place], answer[place:]] for place in range(1, len(answer))]
    for pieces in ([answer], list(answer), *cuts):
        screen = policy.screen(RequestRecord("r"), "en", in_json=True)
        text, ended = heard(screen, pieces)
        assert text == expected, pieces
        assert ended == ("stop" if text.endswith("}") else "content_policy_violation")


def numbers(first: int, count: int) -> str:
    """Candidates of which none is a telephone number."""
    digits = (f"{n % 1_000_000:06}" for n in range(first * 7919, (first + count) * 7919, 7919))
    return " ; ".join(f"{d[:2]} {d[2:4]} {d[4:]}" for d in digits)


async def test_a_long_conversation_takes_no_longer_than_a_long_text(policy: Policy) -> None:
    turns = [Message("user", numbers(turn * 100, 100)) for turn in range(100)]
    started = time.process_time()
    screen = policy.screen(RequestRecord("r"), "en", in_json=False)
    hidden = await screen.messages(tuple(turns))
    assert time.process_time() - started < 2
    assert hidden[0] == turns[0]
    # Nobody has looked at these more closely: what could be a number is hidden.
    assert "[PHONE_" in hidden[-1].text
    alone = policy.screen(RequestRecord("r"), "en", in_json=False)
    assert await alone.messages((turns[-1],)) == (turns[-1],)


async def test_long_texts_do_not_hold_the_loop(policy: Policy) -> None:
    turns = tuple(Message("user", "plain words " * 50) for _ in range(10))
    screen = policy.screen(RequestRecord("r"), "en", in_json=False)
    judging = asyncio.ensure_future(screen.messages(turns))
    await asyncio.sleep(0)
    assert not judging.done()
    assert await judging == turns


@pytest.mark.parametrize(
    ("pattern", "width"),
    [
        ("abc", 3),
        (r"a{2,5}b?", 6),
        (r"(?:ab|c){3}\d", 7),
        (r"[]a-z\]]{4}[^x]", 5),
        (r"[[:alpha:]]\p{Hangul}\pL\x{AC00}\x41", 5),
        (r"\bfoo\b$|^x", 3),
        (r"\Qa*b\E?", 3),
        (r"(?P<name>a)(?i:b){2}?", 3),
        ("a{3}", 3),
        ("a{,5}", 5),
        ("", 0),
    ],
)
def test_the_width_of_a_pattern(pattern: str, width: int) -> None:
    assert widest(pattern) == width


@pytest.mark.parametrize("pattern", ["a*", "a+?", "(ab){2,}", "[*]x+", r"\*.*"])
def test_a_pattern_without_a_bound(pattern: str) -> None:
    with pytest.raises(UnboundedError):
        widest(pattern)


@settings(deadline=None, max_examples=200)
@given(
    st.text(alphabet="ab[]()|?{}2,\\d^$.-Q", max_size=12), st.text(alphabet="ab2[-d", max_size=9)
)
def test_no_match_is_wider_than_the_width(pattern: str, text: str) -> None:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
        width = widest(pattern)
    except (re2.error, UnboundedError):
        return
    assert all(match.end() - match.start() <= width for match in compiled.finditer(text))


@settings(deadline=None)
@given(st.text(max_size=40))
def test_places_lead_back_to_the_text(text: str) -> None:
    folded = fold(text)
    places = folded.places(list(range_of(folded.text)))
    assert places == sorted(places)
    assert places[-1] == len(text)


def range_of(text: str) -> list[int]:
    """The byte offsets of the characters of a text, its end included."""
    return [len(text[:place].encode()) for place in range(len(text) + 1)]


def test_the_rules_that_come_with_the_app_are_good() -> None:
    default = read_rules(str(DEFAULT))
    assert {rule.action for rule in default.rules} == {"block", "redact", "abstain"}
    examples = re.sub(r"(?m)^# (?=\[|\w+ = )", "", DEFAULT.read_text(encoding="utf-8"))
    assert examples.count("\n[[rule]]") == len(default.rules) + 3
    texts = json.dumps([sorted(rule.reason) for rule in default.rules])
    assert "ko" in texts


def test_the_rules_version_changes_with_the_file(tmp_path: Path) -> None:
    assert rules_of(tmp_path, RULES).version == rules_of(tmp_path, RULES).version
    assert rules_of(tmp_path, RULES).version != rules_of(tmp_path, RULES + "\n").version


def test_rules_of_ones_own_take_the_place_of_the_default() -> None:
    read = read_rules(None)
    assert read.version == read_rules(str(YOURS if YOURS.exists() else DEFAULT)).version


def phrases(rules: int, count: int, size: int) -> str:
    """Rules that block so many phrases each, of two words of this size."""

    def phrase(number: int) -> str:
        letters = hashlib.shake_128(b"%d" % number).hexdigest(size)
        return f"{letters[:size]} {letters[size:]}"

    numbers = range(rules * count)
    written = [[phrase(n) for n in numbers[first::rules]] for first in range(rules)]
    return "".join(
        f'[[rule]]\nname = "r{number}"\naction = "block"\nwords = {json.dumps(words)}\n'
        for number, words in enumerate(written)
    )


@pytest.mark.parametrize(("rules", "count", "size"), [(1, 250, 6), (5, 60, 6), (1, 500, 8)])
def test_a_large_file_of_rules_works(tmp_path: Path, rules: int, count: int, size: int) -> None:
    written = phrases(rules, count, size)
    policy = Policy(rules_of(tmp_path, written))
    last = json.loads(written.splitlines()[-1].removeprefix("words = "))[-1]
    assert [hit.rule.name for hit in policy.in_message(f"Say {last}!", Counter())] == [
        f"r{rules - 1}"
    ]
    assert policy.in_message("Nothing of it.", Counter()) == []


def test_a_rule_with_too_many_words_is_told_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidRulesError) as raised:
        rules_of(tmp_path, phrases(1, 1, 6) + phrases(1, 2000, 5).replace("r0", "many"))
    (problem,) = raised.value.problems
    assert problem.complaint == "policy_too_many"
    assert problem.name.endswith("rules.toml:5, rule many")


@pytest.mark.parametrize(
    "content", ["[[rule]\n", "rule = 1\n", "rules = []\n", '[[rule]]\nname = "x"\n']
)
def test_any_malformed_file_is_told_by_its_name(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidRulesError) as raised:
        rules_of(tmp_path, content)
    assert all("rules.toml" in problem.name for problem in raised.value.problems)
