"""How pages are looked at: the windows, and a page that was opened in one of them."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}  # a telephone
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE, "color_scheme": "light"},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "narrow": {"viewport": NARROW, "color_scheme": "light"},
    "narrow-dark": {"viewport": NARROW, "color_scheme": "dark"},
}


def only(*looks):
    """Marks a test that needs the pages in these looks alone."""

    def mark(test):
        test.looks = looks
        return test

    return mark


class Opened:
    """A page, and the problems that the browser met with while it was loaded."""

    def __init__(self, page: Page, root: str, name: str, look: str) -> None:
        self.page, self.root, self.name, self.look = page, root, name, look
        self.problems: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        page.on("request", self._watch)
        page.on("response", self._judge)
        page.goto(root + name, wait_until="networkidle")
        # Opacities are those at the end.
        page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")

    def _hear(self, message) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")

    def _watch(self, request) -> None:
        if not request.url.startswith((self.root, "data:", "blob:")):
            self.problems.append(f"from elsewhere: {request.url}")

    def _judge(self, response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def photograph(self, folder: Path) -> None:
        """Writes the whole page to a file that is named by the page and the look."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.name.strip("/").replace("/", "-") or "index"
        self.page.screenshot(path=folder / f"{name}.{self.look}.png", full_page=True)

    def ask(self, script: str) -> Any:
        """What the function in a script beside this file returns on the page."""
        return self.page.evaluate((Path(__file__).parent / script).read_text(encoding="utf-8"))
