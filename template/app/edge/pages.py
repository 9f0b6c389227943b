"""Pages that the app serves itself: no build step, nothing from elsewhere, a strict policy."""

from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Browsers ask each time whether a file is still the same: modules of two releases never mix.
_CHECKED = {"Cache-Control": "no-cache"}


class PageFiles(StaticFiles):
    """A page's files."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """A file, or 304 where the browser has it already."""
        response = super().file_response(*args, **options)
        response.headers.update(_CHECKED)
        return response


def page_of(folder: Path) -> FileResponse:
    """The page that lies in a folder."""
    headers = {"Content-Security-Policy": _POLICY, **_CHECKED}
    return FileResponse(folder / "index.html", headers=headers)
