"""Which route a path belongs to, by the route's template: a closed set, fit for a label."""

import re
from collections.abc import Iterator, Sequence

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Mount

UNMATCHED = "unmatched"
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")


class RouteNames:
    """The templates of an app's routes, those of included routers and mounted apps as well.

    Paths are matched here, not read off the request: one that was refused before the router saw
    it has a name too.
    """

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        templates = list(_templates(routes))
        self._exact = frozenset(template for template in templates if "{" not in template)
        self._patterns = [
            (_pattern(template), _PARAMETER.sub(r"{\1}", template))
            for template in templates
            if "{" in template
        ]

    def name(self, path: str) -> str:
        """The first template that `path` fits, or `unmatched`."""
        if path in self._exact:
            return path
        fitting = (name for pattern, name in self._patterns if pattern.fullmatch(path))
        return next(fitting, UNMATCHED)


def _templates(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[str]:
    for route in iter_route_contexts(routes):
        if isinstance(route.original_route, Mount):
            yield from _templates(route.original_route.routes, f"{prefix}{route.path}")
            yield f"{prefix}{route.path}/{{path:path}}"
        elif route.path is not None:
            yield f"{prefix}{route.path}"


def _pattern(template: str) -> re.Pattern[str]:
    pieces = _PARAMETER.split(template)
    texts, kinds = pieces[::3], [*pieces[2::3], None]
    fits = (".*" if kind == "path" else "[^/]+" for kind in kinds[:-1])
    ends = [*fits, ""]
    return re.compile("".join(re.escape(text) + end for text, end in zip(texts, ends, strict=True)))
