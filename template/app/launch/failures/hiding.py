"""What is kept of a text: no personal data and no secret, whatever the user's rules are."""

from app.launch.policy import find
from app.launch.policy.data import kinds
from app.launch.policy.look import look, merged
from app.launch.policy.rules import OneSide, Rule
from app.launch.policy.vault import Vault
from app.standards.visibility.redaction import Redactor


class Hiding:
    """Puts `[EMAIL_1]` and the like in the place of what must not be kept."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        finders = tuple(find.of_kind(kind) for kind in kinds().values())
        rule = Rule("collected", "redact", frozenset({"input"}), finders, restore=False, reason={})
        self._side = OneSide((rule,), find.anything(finders), frozenset())

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
