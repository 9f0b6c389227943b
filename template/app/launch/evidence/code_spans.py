"""Where a text in Markdown is code: between backticks, or in a fenced block."""

import re

_PARTS = re.compile(r"\n|`+|~+|[^\n`~]+")
_SHORTEST_FENCE = 3


class CodeSpans:
    """Follows a text that comes in pieces.

    Between single backticks code ends with its line at the latest: a stray one hides no more.
    """

    def __init__(self) -> None:
        self._run = ""  # backticks or tildes that may go on in the next piece
        self._line_begins = True
        self._span = 0
        self._fence = ""
        self._fence_begins = False

    def pass_by(self, text: str) -> None:
        """Take the next piece."""
        for part in _PARTS.findall(text):
            if self._run and part[0] == self._run[0]:
                self._run += part
                continue
            self._end_run()
            if part == "\n":
                self._line_begins, self._fence_begins, self._span = True, False, 0
            elif part[0] in "`~":
                self._run = part
            elif not part.isspace():
                self._line_begins = False

    def inside(self) -> bool:
        """Whether what comes now, which is neither a backtick nor a tilde, is code."""
        self._end_run()
        return bool(self._fence or self._span)

    def _end_run(self) -> None:
        run, self._run = self._run, ""
        if not run:
            return
        if self._fence:
            closes = self._line_begins and run.startswith(self._fence)
            # "```so```" in one line is no block.
            if closes or (self._fence_begins and run[0] == "`" == self._fence[0]):
                self._fence = ""
        elif self._span:
            self._span = 0 if run == "`" * self._span else self._span
        elif self._line_begins and len(run) >= _SHORTEST_FENCE:
            self._fence, self._fence_begins = run, True
        elif run[0] == "`":
            self._span = len(run)
        self._line_begins = False
