"""What is kept of a text: no personal data and no secret, whatever the user's rules are.

A cut may leave a part of a secret, which nothing finds. What is found has to be whole, so the
secret that a cut went through is no longer than the margin that is taken away afterwards, or it is
a word without a gap, such as a key, that is taken away to its end; or the lines of a private key,
whose last line tells.
"""

import re
import string

from app.launch.failures.envelope import Text
from app.launch.policy import find
from app.launch.policy.data import kinds
from app.launch.policy.look import look, merged
from app.launch.policy.rules import OneSide, Rule
from app.launch.policy.vault import Vault
from app.standards.visibility.redaction import Redactor

# Characters beside a cut, at least; longer than any card, number or address.
MARGIN = 256
_WORD = string.ascii_letters + string.digits + string.punctuation
_END_OF_KEY = re.compile(r"-----END [A-Z ]{0,30}PRIVATE KEY-----")


class Hiding:
    """Puts `[EMAIL_1]` and the like in the place of what must not be kept."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        finders = tuple(find.of_kind(kind) for kind in kinds().values())
        rule = Rule("collected", "redact", frozenset({"input"}), finders, restore=False, reason={})
        self._side = OneSide((rule,), find.anything(finders), frozenset())

    def of(self, text: Text) -> Text:
        """A text with placeholders, and without what a cut may have gone through."""
        said = [said for _, said in text.question]
        *said, answer, comment = self.hidden([*said, text.answer, text.comment])
        if text.cut_before and said:
            ends = (found.end() for found in _END_OF_KEY.finditer(said[0]))
            said[0] = said[0][max([MARGIN, *ends]) :].lstrip(_WORD)
        if text.cut_after:
            answer = answer[:-MARGIN].rstrip(_WORD)
        roles = (role for role, _ in text.question)
        return Text(tuple(zip(roles, said, strict=True)), answer, comment)

    def hidden(self, texts: list[str]) -> list[str]:
        """The texts of one exchange: the same value has the same placeholder in all of them."""
        vault = Vault()
        for text in texts:
            vault.keep_clear_of(text)
        return [self._redactor.text(self._of_one(text, vault)) for text in texts]

    def _of_one(self, text: str, vault: Vault) -> str:
        parts, last = [], 0
        for hit in merged(look(self._side, text)[0]):
            value = text[hit.start : hit.end]
            parts += [text[last : hit.start], vault.hide(hit.label, value, restore=False)]
            last = hit.end
        return "".join([*parts, text[last:]])
