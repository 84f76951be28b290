"""How pages are looked at: the windows, and a page that was opened in one of them."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}  # a telephone
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE, "color_scheme": "light"},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "narrow": {"viewport": NARROW, "color_scheme": "light", "has_touch": True},
    "narrow-dark": {"viewport": NARROW, "color_scheme": "dark", "has_touch": True},
}

# At the top, with the tabs that are shown there, without a note, and without movement.
_AT_REST = """() => {
    const tabs = document.querySelector(".md-tabs");
    return !document.querySelector(".md-header__title--active, .md-dialog--active")
        && (getComputedStyle(tabs).display === "none" || !tabs.hidden)
        && document.getAnimations().every((each) => each.playState !== "running");
}"""


def only(*looks):
    """Marks a test that needs the pages in these looks alone."""

    def mark(test):
        test.looks = looks
        return test

    return mark


class Opened:
    """A page, and the problems that the browser met with while it was loaded."""

    def __init__(self, page: Page, root: str, name: str, width: int) -> None:
        self.page, self.root, self.name, self.width = page, root, name, width
        self.look = ""
        self.problems: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        page.on("request", self._watch)
        page.on("response", self._judge)
        page.goto(root + name, wait_until="networkidle")
        # Opacities and places are those at the end of a movement, at once.
        still = "animation: none !important; transition: none !important"
        page.add_style_tag(content=f"*, ::before, ::after {{ {still} }}")

    def turn(self, look: str) -> None:
        """Gives the system the colours of a look, and waits until the page has them."""
        self.look = look
        scheme = LOOKS[look]["color_scheme"]
        self.page.emulate_media(color_scheme=scheme)
        expected = {"light": "default", "dark": "slate"}[scheme]
        self.page.wait_for_selector(f"body[data-md-color-scheme={expected}]")
        # What an earlier look was scrolled to or pointed at is left, and what moves has moved.
        self.page.mouse.move(0, 0)
        self.page.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
        self.page.wait_for_function(_AT_REST)

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
