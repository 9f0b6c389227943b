"""The documentation's screenshots: taken of the real pages, and compared with what is committed."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page

from tests.deploy.browser import Seen

RENEW = "--renew-screenshots"
MOST_BYTES = 120_000
SCALE, QUALITY = 2, 0.5
# When it is in a screenshot. The pages' numbers are of ages, and do not depend on it.
MOMENT = "2026-11-27T18:02:00Z"
# Screenshots are compared in squares of so many pixels, by the mean of a colour in each (0 to 255):
# an edge that another version of the browser smooths otherwise is no difference, a word is one.
SQUARE, MOST_APART, MOST_SQUARES = 16, 24, 3
_AS_WEBP = """
async ([png, quality]) => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").drawImage(image, 0, 0);
  const webp = await canvas.convertToBlob({ type: "image/webp", quality });
  const bytes = new Uint8Array(await webp.arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}
"""
_COMPARE = """
async ([older, newer, square, apart]) => {
  const [one, two] = await Promise.all([older, newer].map(async (webp) => {
    const file = await (await fetch(`data:image/webp;base64,${webp}`)).blob();
    const { width, height } = await createImageBitmap(file);
    const [across, down] = [width, height].map((side) => Math.ceil(side / square));
    const small = { resizeWidth: across, resizeHeight: down, resizeQuality: "high" };
    const paper = new OffscreenCanvas(across, down).getContext("2d");
    paper.drawImage(await createImageBitmap(file, small), 0, 0);
    return { size: [width, height], seen: paper.getImageData(0, 0, across, down).data };
  }));
  const squares = Array.from({ length: one.seen.length / 4 }, (_, number) => 4 * number);
  const unlike = (at) => Math.abs(one.seen[at] - two.seen[at]) > apart;
  const differ = squares.filter((at) => unlike(at) || unlike(at + 1) || unlike(at + 2));
  return [one.size, two.size, differ.length];
}
"""


@dataclass
class Gallery:
    """Takes screenshots into `taken`; in `kept` are those of the documentation. `desk` is an empty
    page, where screenshots are worked on.
    """

    desk: Page
    taken: Path
    kept: Path
    renew: bool
    complaints: list[str] = field(default_factory=list)

    def take(self, name: str, seen: Seen, height: float) -> None:
        """A screenshot of a page from its top down to `height`."""
        page = seen.page
        assert page.viewport_size
        # A clip would do, but touch screens lose their touch in it, and the layout for it.
        page.set_viewport_size({"width": page.viewport_size["width"], "height": round(height)})
        page.evaluate("document.activeElement.blur()")  # a caret blinks
        screenshot = self._as_webp(page.screenshot(caret="initial"))
        assert len(screenshot) < MOST_BYTES, (
            f"{name} has {len(screenshot)} bytes: show less of the page"
        )
        self.taken.mkdir(parents=True, exist_ok=True)
        (self.taken / f"{name}.webp").write_bytes(screenshot)
        if complaint := self._complaint(self.kept / f"{name}.webp", screenshot):
            self.complaints.append(complaint)
            if self.renew:
                (self.kept / f"{name}.webp").write_bytes(screenshot)

    def _as_webp(self, png: bytes) -> bytes:
        return base64.b64decode(self.desk.evaluate(_AS_WEBP, [_text(png), QUALITY]))

    def _complaint(self, kept: Path, screenshot: bytes) -> str | None:
        if not kept.exists():
            return f"{kept.name} is missing"
        both = [_text(kept.read_bytes()), _text(screenshot)]
        before, now, differ = self.desk.evaluate(_COMPARE, [*both, SQUARE, MOST_APART])
        if before != now:
            return f"{kept.name} is {before[0]}x{before[1]}, the page gives {now[0]}x{now[1]}"
        if differ > MOST_SQUARES:
            return f"{kept.name} shows another page: {differ} squares of it differ"
        return None


def _text(screenshot: bytes) -> str:
    return base64.b64encode(screenshot).decode()
