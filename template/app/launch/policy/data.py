"""Personal data and secrets: their forms, and what tells them from what only looks like them.

A checksum decides where there is one: python-stdnum knows cards (Luhn), IBANs (mod 97) and Korean
resident registration numbers; phonenumbers knows which telephone numbers exist.

`form` finds candidates and `may_begin` (up to a text's end) what could become one. A `check` gets
a candidate and gives the part of it that counts, as offsets, or None; an empty part says that
nothing counts up to there.
"""

import datetime
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import phonenumbers
from stdnum import iban, luhn
from stdnum.exceptions import ValidationError
from stdnum.kr import rrn

Check = Callable[[str], tuple[int, int] | None]

# Numbers given out since then end in random digits, which no checksum tells.
RRN_RANDOM_SINCE = datetime.date(2020, 10, 1)
REGIONS = ("KR", "US")
# What stands in the place of a key.
KEYS_LABEL = "SECRET"

_GROUP = re.compile(r"[A-Za-z0-9]+")
_CARD_GROUPS = re.compile(r"1[3-9]|4 4 4 4( 3)?|4 4 5|4 6 [45]")
# A day and its hour: the form ends before the minutes.
_MOMENT = re.compile(
    r"\b(?:[12]\d{3}[-. ][01]?\d[-. ][0-3]?\d|[0-3]?\d[-. ][0-3]?\d[-. ][12]\d{3})(?: [0-2]\d)?\Z"
)
# Keys by how they begin: their issuers chose it so that they can be found.
_KEYS = {
    "sk-": r"[A-Za-z0-9_-]{16,200}",  # OpenAI, Anthropic, OpenRouter, DeepSeek
    "AIza": r"[A-Za-z0-9_-]{30,60}",  # Google
    "AQ.": r"[A-Za-z0-9_-]{30,100}",
    "gsk_": r"[A-Za-z0-9]{20,200}",  # Groq
    "xai-": r"[A-Za-z0-9]{20,200}",
    "pplx-": r"[A-Za-z0-9]{20,200}",  # Perplexity
    "nvapi-": r"[A-Za-z0-9_-]{20,200}",
    "csk-": r"[A-Za-z0-9]{20,200}",  # Cerebras
    "hf_": r"[A-Za-z0-9]{20,200}",  # Hugging Face
    "r8_": r"[A-Za-z0-9]{20,200}",  # Replicate
    "AKIA": r"[A-Z0-9]{16}",  # AWS
    "ASIA": r"[A-Z0-9]{16}",
    "ghp_": r"[A-Za-z0-9]{30,255}",  # GitHub
    "gho_": r"[A-Za-z0-9]{30,255}",
    "ghs_": r"[A-Za-z0-9]{30,255}",
    "ghu_": r"[A-Za-z0-9]{30,255}",
    "ghr_": r"[A-Za-z0-9]{30,255}",
    "github_pat_": r"[A-Za-z0-9_]{20,255}",
    "glpat-": r"[A-Za-z0-9_-]{20,100}",  # GitLab
    "xox": r"[abeprs]-[A-Za-z0-9-]{10,200}",  # Slack
    "xapp-": r"[A-Za-z0-9-]{10,200}",
    "sk_live_": r"[A-Za-z0-9]{10,200}",  # Stripe
    "rk_live_": r"[A-Za-z0-9]{10,200}",
    "whsec_": r"[A-Za-z0-9+/=]{20,100}",
    "npm_": r"[A-Za-z0-9]{20,255}",
    "pypi-": r"[A-Za-z0-9_-]{20,255}",
    "dop_v1_": r"[a-f0-9]{40,80}",  # DigitalOcean
    "eyJ": r"[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+",  # a JSON web token
}
_ACCOUNT_IN_URL = r"://[^\s/\"'\\<>@:]*:[^\s/\"'\\<>@]+@"
# Its end may be on its way: each letter of it is optional from the one before on.
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\sA-Za-z0-9+/=]*"
    r"(?:-(?:-(?:-(?:-(?:-(?:E(?:N(?:D[A-Z ]{0,40}-{0,5})?)?)?)?)?)?)?)?"
)
_ONE_WORD = r"[A-Za-z0-9_.%+'-]+(?:@[A-Za-z0-9.-]*)?\z"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of data. `label` is what stands in its place: [EMAIL_1].

    So many candidates are checked at most, of a question's texts together; those beyond count as
    found.
    """

    label: str
    form: str
    may_begin: str
    check: Check | None = None
    most_checks: int = 0


def kinds(regions: tuple[str, ...] = REGIONS) -> dict[str, Kind]:
    """All kinds by name. A telephone number without a country code counts in these regions."""
    return {
        "card": Kind(
            "CARD",
            r"\b(?:\d{13,19}|\d{4}[ -]\d{6}[ -]\d{4,5}"
            r"|\d{4}[ -]\d{4}[ -](?:\d{5}|\d{4}[ -]\d{4}(?:[ -]\d{3})?))\b",
            r"\b(?:\d{1,19}|\d{4}[ -](?:\d{0,6}|\d{6}[ -]\d{0,5}"
            r"|\d{4}[ -](?:\d{0,5}|\d{4}[ -](?:\d{0,4}|\d{4}[ -]\d{0,3}))))\z",
            _card,
            10_000,
        ),
        "email": Kind(
            "EMAIL",
            r"(?i)\b[a-z0-9][a-z0-9._%+'-]{0,63}@(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}\b",
            _ONE_WORD,
        ),
        "iban": Kind(
            "IBAN",
            r"(?i)\b[a-z]{2}\d{2}(?:[ -]?[a-z0-9]){11,34}\b",
            r"(?i)\b[a-z](?:[a-z](?:\d(?:\d[a-z0-9 -]{0,45})?)?)?\z",
            _iban,
            2_000,
        ),
        "phone": Kind(
            "PHONE",
            r"(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,4}\)[ .-]?\d{1,5}|\b\d{1,5})(?:[ .-]\d{2,5}){1,4}\b"
            r"|\+?\b\d{8,15}\b",
            r"(?:[+(]|\b)(?:\d[\d ().-]{0,60})?\z",
            _phone(regions),
            1_000,
        ),
        "rrn": Kind(
            "RRN",
            r"\b\d{6}[ -]?[1-8]\d{6}\b",
            r"\b(?:\d{1,13}|\d{6}[ -]\d{0,7})\z",
            _rrn,
            10_000,
        ),
        "secret": _secret(),
    }


def _secret() -> Kind:
    forms = [re.escape(start) + rest for start, rest in _KEYS.items()]
    begun = [_begun([re.escape(letter) for letter in start]) for start in _KEYS]
    begun_url = r":(?:/(?:/[^\s/\"'\\<>@]*)?)?"
    return Kind(
        KEYS_LABEL,
        rf"\b(?:{'|'.join(forms)})|{_ACCOUNT_IN_URL}|{_PRIVATE_KEY}",
        rf"(?:\b(?:{'|'.join(begun)})|{begun_url}|-----[A-Z -]{{0,60}}|-{{1,4}})\z",
    )


def _begun(letters: list[str]) -> str:
    """What the beginning of a key matches, and all of one that goes on."""
    nested = r"[A-Za-z0-9_.+/=-]*"
    for letter in reversed(letters[1:]):
        nested = f"(?:{letter}{nested})?"
    return letters[0] + nested


def _card(candidate: str) -> tuple[int, int] | None:
    if candidate[0] not in "234569":
        return None
    for groups, end in _beginnings(candidate):
        sizes = " ".join(str(len(group)) for group in groups)
        if _CARD_GROUPS.fullmatch(sizes) and luhn.is_valid("".join(groups)):
            return 0, end
    return None


def _iban(candidate: str) -> tuple[int, int] | None:
    for groups, end in _beginnings(candidate):
        if iban.is_valid("".join(groups), check_country=False):
            return 0, end
    return None


def _rrn(candidate: str) -> tuple[int, int] | None:
    digits = candidate.replace("-", "").replace(" ", "")
    try:
        born = rrn.get_birth_date(digits)
    except ValidationError:
        return None
    # With its hyphen the form alone says enough: a slip of the pen is still somebody's number.
    if "-" in candidate or born >= RRN_RANDOM_SINCE or rrn.is_valid(digits):
        return 0, len(candidate)
    return None


def _phone(regions: tuple[str, ...]) -> Check:
    @lru_cache(maxsize=256)  # a stream comes back to what it holds
    def check(candidate: str) -> tuple[int, int] | None:
        numbers = _MOMENT.sub("", candidate)
        for region in regions:
            for found in phonenumbers.PhoneNumberMatcher(numbers, region):
                # A bracket that is not closed is the sentence's.
                opened = found.raw_string[0] == "(" and ")" not in found.raw_string
                return found.start + opened, found.end
        end = len(candidate)
        return None if numbers == candidate else (end, end)

    return check


def _beginnings(candidate: str) -> Iterator[tuple[list[str], int]]:
    """A candidate's groups and its end, then without the last group, and so on."""
    found = list(_GROUP.finditer(candidate))
    groups = [group[0] for group in found]
    for count in range(len(found), 0, -1):
        yield groups[:count], found[count - 1].end()
