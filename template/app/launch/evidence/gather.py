"""Evidence first: what the app's knowledge holds on a question, before anything is spent on it.

The newest question is looked up as it stands, and together with the questions just before it, so
that "and on Sundays?" finds what it is about; the best passages of both are taken in turn. Where
nothing is found (`zero_hit`), or nothing of EVIDENCE_MIN_SCORE (`weak_evidence`), the app abstains
and no provider is asked; so it does where the search fails or takes longer than
EVIDENCE_TIMEOUT_SECONDS (`search_failed`), for an answer without evidence is what knowledge is
there to prevent.

Passages count as input. Where little room is left beside the instructions and the question, fewer
are taken, and older turns make way. Where not even the best one fits, the question is too long,
and is refused as such: to say that nothing was found would not be true.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path

from loguru import logger

from app.foundation.errors import AppError
from app.foundation.messages import Messages
from app.foundation.record import EvidenceFacts, RequestRecord
from app.foundation.settings import Settings
from app.launch.evidence.citations import Cited
from app.launch.evidence.folder import INDEX
from app.launch.evidence.index import Knowledge, Passage
from app.launch.grounds import Grounds, Plan, Planned
from app.launch.policy.screen import AbstainedError
from app.launch.policy.vault import without_placeholders
from app.providers.base import Message
from app.standards.availability.deadline import Deadline

# So many questions before the newest are looked up with it, and so much of each (characters).
EARLIER_QUESTIONS = 2
EARLIER_CHARACTERS = 300
_THREADS = 2


class KnowledgeEvidence:
    """Looks questions up in the app's knowledge."""

    def __init__(self, knowledge: Knowledge, settings: Settings) -> None:
        self._knowledge = knowledge
        self._at_most = settings.evidence_passages
        self._min_score = settings.evidence_min_score
        self._required = settings.evidence_required
        self._seconds = settings.evidence_timeout_seconds
        self._beside = ThreadPoolExecutor(_THREADS, thread_name_prefix="knowledge")

    @property
    def version(self) -> str:
        """The knowledge, and how it is used."""
        used = (self._at_most, self._min_score, self._required)
        return " ".join(map(str, (self._knowledge.version, *used)))

    async def ground(
        self,
        messages: tuple[Message, ...],
        plan: Plan[Planned],
        *,
        texts: Messages,
        record: RequestRecord,
        deadline: Deadline,
        in_json: bool,
    ) -> tuple[Grounds, Planned]:
        """The grounds of the newest question, and the plan of the prompt that carries them.

        Raises `AbstainedError` where there are none, and what `plan` raises for a single passage.
        """
        facts = record.evidence = record.evidence or EvidenceFacts()
        try:
            passages = await self._search(questions(messages), deadline)
        except Exception:
            logger.exception("the knowledge cannot be searched")
            raise _abstain("search_failed", texts, record) from None
        if not passages:
            raise _abstain("zero_hit", texts, record)
        facts.score = max(passage.score for passage in passages)
        passages = [passage for passage in passages if passage.score >= self._min_score]
        passages = passages[: self._at_most]
        if not passages:
            raise _abstain("weak_evidence", texts, record)
        while True:
            cited = Cited(
                passages,
                texts=texts,
                record=record,
                facts=facts,
                required=self._required,
                in_json=in_json,
            )
            try:
                planned = await plan(cited.prompt)
            except AppError as error:
                if error.code != "context_length_exceeded" or len(passages) == 1:
                    raise
                passages.pop()
                continue
            facts.passages += len(passages)
            return cited, planned

    async def close(self) -> None:
        """No question comes any more."""
        self._beside.shutdown(wait=False, cancel_futures=True)
        self._knowledge.close()

    async def _search(self, asked: list[str], deadline: Deadline) -> list[Passage]:
        """The passages of all the questions, the best ones first. Raises `TimeoutError` too."""
        loop = asyncio.get_running_loop()
        async with deadline.limit(self._seconds):
            found = await loop.run_in_executor(self._beside, self._look_up, asked)
        in_turn = chain.from_iterable(zip_longest(*found))
        return list({passage.id: passage for passage in in_turn if passage is not None}.values())

    def _look_up(self, asked: list[str]) -> list[list[Passage]]:
        return [self._knowledge.search(question, self._at_most) for question in asked]


def open_evidence(settings: Settings) -> KnowledgeEvidence:
    """Open the app's index, or the one that KNOWLEDGE_FILE names."""
    file = settings.knowledge_file
    return KnowledgeEvidence(Knowledge(Path(file) if file else INDEX), settings)


def questions(messages: tuple[Message, ...]) -> list[str]:
    """What is looked up: the newest question, and where others came before it, all of them."""
    said = [without_placeholders(m.text) for m in messages if m.role == "user"]
    if not said:
        return []
    newest = said[-1]
    earlier = [text[:EARLIER_CHARACTERS] for text in said[-1 - EARLIER_QUESTIONS : -1]]
    return [newest, "\n".join([*earlier, newest])] if earlier else [newest]


def _abstain(reason: str, texts: Messages, record: RequestRecord) -> AbstainedError:
    record.abstained = reason
    return AbstainedError(reason, texts.text(f"evidence.{reason}"))
