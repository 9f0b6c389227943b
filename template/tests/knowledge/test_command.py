"""`uv run knowledge index|search`, and what `serve` says of a missing index."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from app.foundation.messages import TEXTS as APP_TEXTS
from app.foundation.messages import load_messages
from app.foundation.project import load_project
from app.launch.evidence import ready
from app.launch.evidence.index import Knowledge
from indexing import cli
from indexing.messages import TEXTS, UnreadableError
from indexing.reading import read
from tests.fake_provider import FakeProvider
from tests.knowledge.pdf import encrypted, pdf, picture
from tests.running import APP, clean_environment, production

LANGUAGE = load_project().language


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of documents in place of the app's own, and an index in place of its own."""
    place = tmp_path / "knowledge"
    for module in (cli, ready):
        monkeypatch.setattr(module, "FOLDER", place)
        monkeypatch.setattr(module, "INDEX", tmp_path / "index.db")
    return place


def said(key: str, **facts: object) -> str:
    return load_messages(LANGUAGE, TEXTS).text(key, **facts)


def test_both_languages_say_the_same() -> None:
    english, korean = (load_messages(language, TEXTS).texts for language in ("en", "ko"))
    assert english.keys() == korean.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", korean[key])), key


def test_a_folder_is_indexed_and_searched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mkdir()
    (folder / "refunds.md").write_text("# Refunds\n\nMoney is back in five days.")
    (folder / "empty.md").write_text("\n")
    (folder / "table.xlsx").write_bytes(b"PK")
    assert cli.main(["index"]) == 0
    output = capsys.readouterr()
    assert said("index.file", name="refunds.md", passages=1) in output.out
    assert said("index.left_out", name="table.xlsx") in output.err
    assert said("index.no_text", name="empty.md") in output.err

    assert cli.main(["search", "when is my money back?"]) == 0
    shown = capsys.readouterr().out
    assert "refunds.md, line 3 (Refunds)" in shown
    assert "five days" in shown
    assert cli.main(["search", "kangaroo"]) == 0
    assert capsys.readouterr().out.strip() == said("search.nothing")


def test_documents_that_changed_are_noticed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "a.md").write_text("One fact.")
    assert [problem.complaint for problem in ready.missing_index()] == ["no_index"]
    assert cli.refresh()
    assert ready.missing_index() == ready.stale_index() == []
    written = (folder.parent / "index.db").stat().st_mtime_ns
    assert cli.refresh()
    assert (folder.parent / "index.db").stat().st_mtime_ns == written

    (folder / "b.md").write_text("Another fact.")
    assert [problem.complaint for problem in ready.stale_index()] == ["stale_index"]
    assert cli.main(["search", "fact"]) == 0
    assert said("search.stale") in capsys.readouterr().err
    assert cli.refresh()
    assert ready.stale_index() == []

    (folder.parent / "index.db").write_bytes(b"broken")
    assert [problem.complaint for problem in ready.missing_index()] == ["unusable_index"]
    assert cli.refresh()
    assert ready.missing_index() == []


def test_a_missing_folder_is_told_kindly(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["index"]) == 64
    assert capsys.readouterr().err.strip() == said("refused.no_folder")
    assert cli.main(["search", "anything"]) == 64
    assert capsys.readouterr().err.strip() == said("refused.no_index")
    assert not cli.refresh()


def test_pages_of_a_pdf_are_found(folder: Path) -> None:
    folder.mkdir()
    pages = ["Opening hours\nWe open at nine.", "Parking is free\nbehind the house."]
    (folder / "visit.pdf").write_bytes(pdf(*pages))
    assert cli.main(["index"]) == 0
    knowledge = Knowledge(folder.parent / "index.db")
    (found,) = knowledge.search("Where is parking?", 1)
    assert (found.file, found.place) == ("visit.pdf", "p. 2")
    assert found.text == "Parking is free\nbehind the house."
    knowledge.close()


Document = Callable[[], bytes]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("locked.pdf", lambda: encrypted(pdf("Nobody reads this")), "encrypted_pdf"),
        ("scan.pdf", picture, "scanned_pdf"),
        ("cut.pdf", lambda: pdf("Some text")[:200], "broken_pdf"),
        ("word.pdf", lambda: b"PK\x03\x04 no PDF at all", "broken_pdf"),
        ("empty.pdf", lambda: b"", "broken_pdf"),
        ("old.txt", lambda: "환불 규정".encode("cp949"), "not_utf8"),
    ],
)
def test_a_document_that_cannot_be_read_is_named(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: Document,
    reason: str,
) -> None:
    folder.mkdir()
    (folder / "good.md").write_text("A fact.")
    assert cli.main(["index"]) == 0
    before = (folder.parent / "index.db").read_bytes()
    (folder / name).write_bytes(content())
    capsys.readouterr()
    assert cli.main(["index"]) == 1
    error = capsys.readouterr().err
    facts = {"line": 1} if reason == "not_utf8" else {}
    assert (
        said("index.unreadable", name=name, reason=said(f"unreadable.{reason}", **facts)) in error
    )
    assert (folder.parent / "index.db").read_bytes() == before


def test_however_a_pdf_is_damaged_it_is_said(tmp_path: Path) -> None:
    chance = Random(3)  # noqa: S311 (the same damage each time)
    whole = encrypted(pdf("A page of text", "and another one"), user="")
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 30)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / "damaged.pdf").write_bytes(content)
        try:
            read(tmp_path / "damaged.pdf")
        except UnreadableError:
            refused += 1
    assert refused > 30


def test_a_pdf_that_only_forbids_changes_is_read(folder: Path) -> None:
    folder.mkdir()
    (folder / "open.pdf").write_bytes(encrypted(pdf("Anybody reads this"), user=""))
    assert cli.main(["index"]) == 0


def test_serve_refuses_without_an_index_that_fits_and_dev_makes_one(
    fake: FakeProvider, tmp_path: Path
) -> None:
    """In a copy of the app: it has the same code, and documents of its own."""
    copy = tmp_path / "copy"
    for name in ("app", "indexing"):
        shutil.copytree(APP / name, copy / name, ignore=shutil.ignore_patterns("*.db"))
    (copy / "knowledge").mkdir()
    (copy / "knowledge/old.md").write_text("It came before the index.")
    messages = load_messages(LANGUAGE, APP_TEXTS)

    def start(command: str, **changes: object) -> "subprocess.CompletedProcess[str]":
        environment = production(fake, tmp_path, **changes)
        done = subprocess.run(
            [sys.executable, "-c", f"from app.cli import {command}; {command}()"],
            cwd=copy,
            env={**clean_environment(), **environment, "PYTHONPATH": str(copy), "PORT": "1"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 78, done.stderr
        return done

    assert f"knowledge/: {messages.text('setting.no_index')}" in start("serve").stderr
    done = start("dev", admin_token="changeme")  # something else is wrong, so that it ends
    assert said("index.file", name="old.md", passages=1) in done.stdout
    assert "knowledge/" not in done.stderr
    (copy / "knowledge/new.md").write_text("It came after the index.")
    assert f"knowledge/: {messages.text('setting.stale_index')}" in start("serve").stderr
