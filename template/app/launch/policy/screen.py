"""One request before the rules: its messages on the way in, its answer on the way out.

An answer is judged in the pieces in which it comes. What may be the beginning of a match is held
back: at most `find.LONGEST` characters, or one word (an address, a key), or one match as long as
it goes on; never more than `MOST_HELD` characters. What has left was judged.
"""

import asyncio
import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from app.foundation.errors import AppError
from app.foundation.record import PolicyHit, RequestRecord
from app.launch.policy.data import KEYS_LABEL
from app.launch.policy.find import LONGEST
from app.launch.policy.folding import unfinished
from app.launch.policy.json_text import Quotes, complete, unescaped
from app.launch.policy.look import Hit, look, merged
from app.launch.policy.moderation import NAME, Moderation
from app.launch.policy.rules import Rule, Rules, Side
from app.launch.policy.vault import Vault
from app.providers.base import Message
from app.standards.availability.deadline import Deadline

# Characters: what one match may hold back; of a longer one the rest is judged as new text.
MOST_HELD = 4096
# Longer texts (characters) are judged beside the event loop.
_LONG = 4_000
_THREADS = 2
_MOST_CLEAN = 20_000


class AbstainedError(Exception):
    """A rule says that the app gives no answer of its own here. `reason` is for the caller."""

    def __init__(self, rule: str, reason: str | None) -> None:
        super().__init__(rule)
        self.rule = rule
        self.reason = reason


class Policy:
    """The rules, for every request. `version` changes with them and with MODERATION."""

    def __init__(self, rules: Rules, moderation: Moderation | None = None) -> None:
        self.version = f"{rules.version} {moderation.mode if moderation else 'off'}"
        self.moderation = moderation
        self.on_input = rules.on("input")
        self.on_output = rules.on("output")
        # Threads of its own: those of the loop look up hosts.
        self.beside = ThreadPoolExecutor(_THREADS, thread_name_prefix="policy")
        self._clean: set[bytes] = set()

    def screen(self, record: RequestRecord, language: str, *, in_json: bool) -> "Screen":
        """The rules for one request; `in_json`: its answer is JSON."""
        return Screen(self, record, language, in_json=in_json)

    def in_message(self, text: str, checked: Counter[str]) -> list[Hit]:
        """What the rules find in a message. An old turn in which they found nothing costs nothing:
        a hash of its text is remembered. `checked` counts the checks of the whole request.
        """
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        if digest in self._clean:
            return []
        hits, _ = look(self.on_input, text, checked=checked)
        if not hits:
            if len(self._clean) >= _MOST_CLEAN:
                self._clean.clear()
            self._clean.add(digest)
        return hits


class Screen:
    """Judges one request: its messages first, then its answer, piece by piece.

    `abstained` names the rule that made the app abstain, if one did. `unjudged`: moderation failed,
    and the settings let the question pass.
    """

    def __init__(
        self, policy: Policy, record: RequestRecord, language: str, *, in_json: bool
    ) -> None:
        self._policy = policy
        self._record = record
        self._language = language
        self._in_json = in_json
        self._vault = Vault()
        self._quotes = Quotes()
        self._held = ""
        self._before = ""
        self._look_at = 1
        self._stopped: Hit | None = None
        self.abstained: str | None = None
        self.unjudged = False

    async def messages(
        self, messages: tuple[Message, ...], schema: str = "", stop: tuple[str, ...] = ()
    ) -> tuple[Message, ...]:
        """The messages as the provider may see them.

        `schema` and `stop` go to the provider beside them, and nothing in them can be hidden. A
        text to stop at is blocked for whatever a rule finds; a schema, whose bounds and examples
        look like personal data, for what is blocked and for secrets. A rule that abstains looks
        at the newest turn alone: the conversation may go on after it. Raises `AppError` for what
        is blocked, and `AbstainedError`.
        """
        if not self._policy.on_input.rules:
            return messages
        size = len(schema) + sum(len(message.text) for message in messages)
        if size <= _LONG:
            return self._judge_messages(messages, schema, stop)
        loop, beside = asyncio.get_running_loop(), self._policy.beside
        return await loop.run_in_executor(beside, self._judge_messages, messages, schema, stop)

    def _judge_messages(
        self, messages: tuple[Message, ...], schema: str, stop: tuple[str, ...]
    ) -> tuple[Message, ...]:
        for message in messages:
            self._vault.keep_clear_of(message.text)
        checked: Counter[str] = Counter()
        newest = _newest_turn(messages)
        for text in stop:
            for hit in look(self._policy.on_input, text, checked=checked)[0]:
                self._refuse(hit.rule, "input", "stop")
        for hit in look(self._policy.on_input, schema, checked=checked, in_json=True)[0]:
            if hit.rule.action == "block" or hit.label == KEYS_LABEL:
                self._refuse(hit.rule, "input", "response_format")
        judged = [self._policy.in_message(message.text, checked) for message in messages]
        for hits in judged:
            self._stop(hits, "input", may_abstain=False)
        for place, hits in enumerate(judged):
            if place >= newest or messages[place].role == "system":
                self._stop(hits, "input")
        return tuple(
            replace(message, text=self._hidden(message.text, hits, "input")) if hits else message
            for message, hits in zip(messages, judged, strict=True)
        )

    async def moderate(self, messages: tuple[Message, ...], deadline: Deadline) -> None:
        """Have the newest turn judged by the provider's endpoint, where that is turned on."""
        moderation = self._policy.moderation
        if moderation is None:
            return
        turn = messages[_newest_turn(messages) :]
        asked = "\n\n".join(message.text for message in turn if message.role == "user")
        if not asked.strip():
            return
        flagged = await moderation.flags(asked, deadline)
        self.unjudged = flagged is None
        if flagged:
            self._record.policy_hit(PolicyHit(NAME, "block", "input"))
            raise AppError("content_policy_violation", param="messages", detail="rule", rule=NAME)

    def push(self, text: str) -> str:
        """Take a piece of the answer; what of it, and of what was held back, may leave."""
        return self._judge(self._held + text, final=False)

    def rest(self) -> str:
        """The answer is complete: what was held back and may leave."""
        return self._judge(self._held, final=True)

    def verdict(self) -> None:
        """Raises `AppError` or `AbstainedError` where the answer must end here."""
        if self._stopped is not None:
            self._stop([self._stopped], "output")

    def shown(self, text: str) -> str:
        """What may be shown of a text beside the answer: nothing of one that a rule stops."""
        hits, _ = look(self._policy.on_output, text)
        if any(hit.rule.action != "redact" for hit in hits):
            return ""
        parts, last = [], 0
        for hit in merged(hits):
            value = text[hit.start : hit.end]
            parts += [text[last : hit.start], self._vault.hide(hit.label, value, restore=False)]
            last = hit.end
        return "".join([*parts, text[last:]])

    def _judge(self, held: str, *, final: bool) -> str:
        if self._stopped is not None:
            return ""
        if not final and len(held) < self._look_at:
            self._held = held
            return ""
        # What follows may join the last letter: nobody has seen it whole.
        last = len(held) if final else self._seen_whole(held)
        held, joining = held[:last], held[last:]
        too_long = len(held) > MOST_HELD
        hits, safe = look(
            self._policy.on_output,
            held,
            final=final,
            before=self._before,
            at_most=LONGEST if too_long else None,
            in_json=self._in_json,
        )
        if not final:
            safe = self._vault.begins(held[:safe])
        if too_long:
            safe = max(safe, len(held) - LONGEST)
        # In the order of the text, so that it does not depend on how the answer was cut.
        stop = next((hit for hit in hits if hit.rule.action != "redact"), None)
        if stop is not None and stop.start <= safe:
            self._stopped, safe = stop, stop.start
        for hit in reversed(merged(hits)):
            if hit.start < safe < hit.end:
                safe = hit.end if too_long and self._stopped is None else hit.start
        leaving, self._held = held[:safe], held[safe:] + joining
        seen = unescaped(leaving)[0] if self._in_json else leaving
        self._before = seen[-1:] or self._before
        # What is held for long is looked at as it grows by a part, not with each letter.
        self._look_at = min(len(self._held) * 9 // 8, MOST_HELD) + 1
        hidden = self._hidden(leaving, [hit for hit in hits if hit.end <= safe], "output")
        return self._vault.restored(hidden, in_json=self._in_json)

    def _seen_whole(self, text: str) -> int:
        """How much of a text that goes on no longer depends on the next character."""
        joined = self._policy.on_output.joined
        if not self._in_json:
            return len(text) - unfinished(text, joined)
        end = complete(text)
        seen, origins = unescaped(text[:end])
        last = len(seen) - unfinished(seen, joined)
        return last if origins is None else origins[last]

    def _hidden(self, text: str, hits: list[Hit], side: Side) -> str:
        parts, last = [], 0
        quotes = self._quotes if side == "output" and self._in_json else None
        for hit in merged(hits):
            value = text[hit.start : hit.end]
            restore = hit.rule.restore and side == "input"
            placeholder = self._vault.hide(hit.label, value, restore=restore)
            if quotes is not None:
                quotes.pass_by(text[last : hit.start])
                # In the place of a number it must be a string, or it is no JSON.
                placeholder = placeholder if quotes.inside else f'"{placeholder}"'
                quotes.pass_by(value)
            parts += [text[last : hit.start], placeholder]
            last = hit.end
            self._note(hit.rule, side)
        if quotes is not None:
            quotes.pass_by(text[last:])
        return "".join([*parts, text[last:]])

    def _stop(self, hits: list[Hit], side: Side, *, may_abstain: bool = True) -> None:
        for hit in hits:
            if hit.rule.action == "block":
                self._refuse(hit.rule, side, "messages" if side == "input" else None)
        for hit in hits:
            if hit.rule.action == "abstain" and may_abstain:
                self._note(hit.rule, side)
                self.abstained = self._record.abstained = hit.rule.name
                raise AbstainedError(hit.rule.name, hit.rule.reason.get(self._language))

    def _refuse(self, rule: Rule, side: Side, param: str | None) -> None:
        self._note(rule, side)
        reason = rule.reason.get(self._language)
        raise AppError(
            "content_policy_violation",
            param=param,
            detail="reason" if reason else "rule",
            reason=reason,
            rule=rule.name,
        )

    def _note(self, rule: Rule, side: Side) -> None:
        self._record.policy_hit(PolicyHit(rule.name, rule.action, side))


def _newest_turn(messages: tuple[Message, ...]) -> int:
    """The place where it begins: all that the user has said since the last reply.

    What is blank makes no turn: it would hide what stands before it.
    """
    said = [(place, item.role) for place, item in enumerate(messages) if item.text.strip()]
    newest = max((place for place, role in said if role == "user"), default=0)
    replies = (place for place, role in said if role == "assistant" and place < newest)
    return max(replies, default=-1) + 1
