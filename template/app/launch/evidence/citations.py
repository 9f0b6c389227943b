"""An answer that rests on passages: what it cites is what was found, or it does not leave.

A citation is a number of one or two digits in brackets: [1], [1, 2], [1-3], also 【1】. One of a
passage that the model was not given is taken out of the text, and counted. Nothing is taken out of
code, nor directly behind a word (arr[7]), where a number counts only if there is such a passage.
The answer comes in pieces, and brackets come in splinters: what may become a citation is held back
until it is one, or is none. Where an answer must cite (EVIDENCE_REQUIRED), all of it is held back
until the first passage is cited; if none ever is, nothing of it is shown and the app abstains.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from app.foundation.messages import Messages
from app.foundation.record import EvidenceFacts, RequestRecord
from app.launch.evidence.code_spans import CodeSpans
from app.launch.evidence.fence import as_message
from app.launch.evidence.index import Passage
from app.launch.grounds import Grounds
from app.launch.policy.json_text import Quotes
from app.launch.policy.screen import AbstainedError

QUOTED_CHARACTERS = 240
UNGROUNDED = "ungrounded"
_OPEN, _INSIDE, _CLOSE = r"[\[【［]", r"[\s\d,;–-]", r"[\]】］]"
# So much is held back at most; and what is longer is no citation.
_INSIDE += "{0,200}"
_CITATION = re.compile(r"([ \t]{0,3})" + f"{_OPEN}({_INSIDE}){_CLOSE}")
# What may become a citation at the end of a text that goes on.
_BEGINNING = re.compile(r"[ \t]{0,3}" + rf"(?:{_OPEN}{_INSIDE})?\Z")
_NUMBERS = re.compile(r"(\d+)(?:\s*[–-]\s*(\d+))?")
_MOST = 99
# Hangul and what comes behind it put a citation directly behind a word: it is no name in code.
_HANGUL = "\u1100"


class Cited(Grounds):
    """The grounds of one question, and its answer on the way out.

    In an answer in JSON, which has the caller's form and need not cite, citations are looked for in
    its strings.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        *,
        texts: Messages,
        record: RequestRecord,
        facts: EvidenceFacts,
        required: bool,
        in_json: bool,
    ) -> None:
        self.prompt = (as_message(passages),)
        self._passages = passages
        self._texts = texts
        self._facts = facts
        self._record = record
        self._quotes = Quotes() if in_json else None
        self._code = CodeSpans()
        self._before = ""  # the letter that the text goes on from; nothing behind a citation
        self._waits = required and not in_json
        self._waiting = ""
        self._held = ""
        self._cited: set[int] = set()

    def push(self, text: str) -> str:
        """Take a piece of the answer; what of it, and of what was held back, may go on."""
        text = self._held + text
        found = _BEGINNING.search(text)
        end = len(text) if found is None else found.start()
        self._held = text[end:]
        return self._let_go(self._checked(text[:end]))

    def rest(self) -> str:
        """The answer is complete. Raises `AbstainedError` where it had to cite, and did not."""
        text, self._held = self._let_go(self._checked(self._held)), ""
        self._facts.citations += len(self._cited)
        self._facts.grounded = bool(self._cited)
        if self._waits:
            self.abstained = self._record.abstained = UNGROUNDED
            raise AbstainedError(UNGROUNDED, self._texts.text(f"evidence.{UNGROUNDED}"))
        return text

    def told(self, shown: Callable[[str], str]) -> dict[str, Any]:
        """`citations`, in the order of their numbers, and whether there are any: `grounded`.

        Of a passage, too, only what may be shown is quoted.
        """
        found = [
            _citation(number, self._passages[number - 1], shown) for number in sorted(self._cited)
        ]
        return {"citations": found, "grounded": bool(found)}

    def _let_go(self, text: str) -> str:
        if self._waits and not self._cited:
            self._waiting += text
            return ""
        text, self._waiting, self._waits = self._waiting + text, "", False
        return text

    def _checked(self, text: str) -> str:
        parts, last = [], 0
        for found in _CITATION.finditer(text):
            parts.append(self._passed(text[last : found.start()]))
            parts.append(self._judged(found))
            last = found.end()
        return "".join([*parts, self._passed(text[last:])])

    def _passed(self, text: str) -> str:
        if self._quotes is not None:
            self._quotes.pass_by(text)
        else:
            self._code.pass_by(text)
        self._before = text[-1:] or self._before
        return text

    def _judged(self, found: re.Match[str]) -> str:
        """A citation without the numbers of passages that there are none of."""
        numbers = _numbers(found[2])
        known = [number for number in numbers if number <= len(self._passages)]
        if not numbers or not self._may_cite(found[1], every=len(known) == len(numbers)):
            return self._passed(found[0])
        self._passed(found[0])
        self._before = ""
        self._cited.update(known)
        if len(known) == len(numbers):
            return found[0]
        self._facts.invalid_citations += len(numbers) - len(known)
        return f"{found[1]}[{', '.join(map(str, known))}]" if known else ""

    def _may_cite(self, space: str, *, every: bool) -> bool:
        """Whether a bracket is read as a citation here; `every`: there are all its passages."""
        if self._quotes is not None:
            return self._quotes.inside
        if self._code.inside():
            return False
        if space or not self._before:
            return True
        behind_a_word = self._before.isalnum() and self._before < _HANGUL
        return self._before not in "_]" and (every or not behind_a_word)


def _numbers(text: str) -> list[int]:
    """The passages that a bracket names; none where it is no citation."""
    numbers: list[int] = []
    for first, last in _NUMBERS.findall(text):
        begin, end = int(first[:4]), int((last or first)[:4])
        if not 1 <= begin <= end <= _MOST:
            return []
        numbers += range(begin, end + 1)
    return numbers


def _citation(number: int, passage: Passage, shown: Callable[[str], str]) -> dict[str, Any]:
    quote = shown(" ".join(passage.text.split()))
    if len(quote) > QUOTED_CHARACTERS:
        quote = quote[:QUOTED_CHARACTERS].rstrip() + "…"
    return {
        "number": number,
        "id": passage.id,
        "file": shown(passage.file),
        "heading": shown(passage.heading),
        "place": passage.place,
        "quote": quote,
    }
