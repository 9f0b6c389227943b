"""Search on a small company's documents: who finds what, in English and in Korean."""

import shutil
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.launch.evidence.index import Knowledge
from indexing.build import build

HERE = Path(__file__).parent
LANGUAGES = ("en", "ko")
WEAK = 0.33  # between what is answered somewhere and what is not


def questions(language: str) -> dict[str, Any]:
    return tomllib.loads((HERE / language / "questions.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=LANGUAGES)
def asked(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Knowledge, dict[str, Any]]]:
    """The documents of one language, indexed, and what people ask of them."""
    folder = tmp_path_factory.mktemp("documents")
    for path in (HERE / request.param).iterdir():
        if path.suffix != ".toml":
            shutil.copy(path, folder)
    build(folder, folder / "index.db")
    knowledge = Knowledge(folder / "index.db")
    yield knowledge, questions(request.param)
    knowledge.close()


def test_what_is_asked_is_found(asked: tuple[Knowledge, dict[str, Any]]) -> None:
    knowledge, known = asked
    first = among_four = 0
    weak = []
    for question, file, words in known["answered"]:
        found = knowledge.search(question, 4)
        right = [passage for passage in found if passage.file == file and words in passage.text]
        among_four += bool(right)
        first += bool(right) and found[0] == right[0]
        if found[0].score < WEAK:
            weak.append(question)
    count = len(known["answered"])
    print(f"\nof {count}: first {first / count:.2f}, among four {among_four / count:.2f}")
    assert among_four == count
    assert first >= 0.95 * count
    assert weak == []


def test_what_no_document_answers_is_weak(asked: tuple[Knowledge, dict[str, Any]]) -> None:
    knowledge, known = asked
    best = {
        question: max((passage.score for passage in knowledge.search(question, 4)), default=0.0)
        for question in known["nowhere"]
    }
    assert max(best.values()) < WEAK, best
    assert sum(score == 0 for score in best.values()) >= len(best) / 3


def index(folder: Path, **documents: str) -> Knowledge:
    """The knowledge of a few documents, by name: `a_md` is a.md."""
    folder.mkdir(exist_ok=True)
    for name, text in documents.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    report = build(folder, folder / "index.db")
    assert not report.unreadable
    return Knowledge(folder / "index.db")


def best(knowledge: Knowledge, question: str) -> str:
    found = knowledge.search(question, 1)
    return found[0].text if found else ""


@pytest.mark.parametrize("particle", ["", "은", "이", "을", "의", "에서", "으로는", "까지도"])
def test_particles_hide_no_word(tmp_path: Path, particle: str) -> None:
    knowledge = index(tmp_path, a_md="환불 규정입니다.\n\n# 다른 것\n\n점심 메뉴입니다.")
    assert best(knowledge, f"환불{particle}") == "환불 규정입니다."
    knowledge.close()


@pytest.mark.parametrize(
    ("written", "question"),
    [
        ("환불 규정", "환불규정은?"),  # compounds, written together or apart
        ("개인정보처리방침", "개인정보 처리 방침"),
        ("돈을 돌려줍니다", "돈은?"),  # nouns of one syllable
        ("API키를 발급합니다", "api 키 발급"),  # scripts in one word
        ("주소를 바꿀 때", "바꾸려면?"),  # verbs, whatever follows their stem
        ("사흘이 걸립니다", "얼마나 걸려요?"),
        ("주의 사항", "주의는?"),  # nouns that look like words of a question
        ("구독 해지", "해지하려면 어떻게 하나요?"),
        ("Refunds are refunded", "refunding a refund"),
        ("The café in Zürich", "cafe Zurich"),
        ("返品は三十日以内", "返品"),
        ("수수료는 ３％ 입니다", "수수료 3%"),  # full-width
        ("set MAX_INPUT_TOKENS=4000", "max input tokens"),
    ],
)
def test_what_is_written_in_another_way_is_found(
    tmp_path: Path, written: str, question: str
) -> None:
    other = "\n\n# Something else 다른 것\n\nLunch is served at noon. 점심 메뉴입니다."
    knowledge = index(tmp_path, a_md=written + other)
    found = knowledge.search(question, 2)
    assert found
    assert found[0].text == unicodedata.normalize("NFC", written)
    assert found[0].score > 0.6
    knowledge.close()


# Nouns that look like words of a question: parts of them are verbs, endings or particles.
LOOK_ALIKE = """
해지 한도 주의 수요 수도 수가 수면 수은 수지 주가 주요 주지 주어 안과 안내 안전 건의 건강 합의 하나
하인 해수 된장 인가 인지 한지 때밀이 등기 대하 관하 잘못 할인 회의 알림 동의 고지 보고 거래 제도
"""
PARTICLES = ("", "는", "가", "를", "의", "에", "로", "부터", "하려면", "하나요", "되나요", "인가요")


@pytest.mark.parametrize("noun", LOOK_ALIKE.split())
def test_no_noun_is_taken_for_a_word_that_only_asks(tmp_path: Path, noun: str) -> None:
    text = f"{noun}에 관한 규정입니다."
    knowledge = index(tmp_path, a_md=f"{text}\n\n# 다른 것\n\n점심 메뉴입니다.")
    questions = [f"{noun}{particle} 어떻게 하나요?" for particle in PARTICLES]
    questions += [f"{noun} 방법", f"{noun}가 얼마인가요?", f"안녕하세요? {noun}"]
    assert [question for question in questions if best(knowledge, question) != text] == []
    knowledge.close()


@pytest.mark.parametrize(
    "question",
    [
        "어떻게 하나요?",
        "할 수가 있나요?",
        "언제까지 가능한지 알려 주세요.",
        "그건 왜 필요한가요?",
        "무엇 인지 궁금합니다",
        "하지만 어디서 해야 하는지는 알고 싶어요",
        "이 경우에는 어떻게 되나요? 방법이 있을까요?",
        "좀 더 설명해 주실 수 있나요?",
    ],
)
def test_a_question_that_only_asks_finds_nothing(tmp_path: Path, question: str) -> None:
    knowledge = index(tmp_path, a_md=f"{question}\n\n# 다른 것\n\n점심 메뉴입니다.")
    assert knowledge.search(question, 1) == []
    knowledge.close()


def test_hangul_in_pieces_is_the_same(tmp_path: Path) -> None:
    text = "환불은 사흘 안에 됩니다."
    whole = index(tmp_path / "whole", a_md=text)
    pieces = index(tmp_path / "pieces", a_md=unicodedata.normalize("NFD", text))
    assert whole.version == pieces.version
    for knowledge in (whole, pieces):
        for form in ("NFC", "NFD"):
            assert best(knowledge, unicodedata.normalize(form, "환불은 언제?")) == text
        knowledge.close()


def test_scores_compare_over_questions(tmp_path: Path) -> None:
    knowledge = index(
        tmp_path, a_md="# Refunds\n\nMoney is back in five days.\n\n# Shipping\n\nIt is free."
    )
    whole, part, none = (
        knowledge.search(question, 1)
        for question in ("refunds money", "refunds kangaroo trampoline", "kangaroo trampoline")
    )
    assert whole[0].score == 1.0
    assert 0.2 < part[0].score < 0.5
    assert none == []
    knowledge.close()
