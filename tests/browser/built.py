"""The pages of the built site as files, read without a browser."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

# Elements without an end.
_VOID = {
    "area",
    "base",
    "br",
    "col",
    "embed",
    "hr",
    "img",
    "input",
    "link",
    "meta",
    "source",
    "wbr",
}


@dataclass
class Page(HTMLParser):
    """What a page links to, what it can be linked to by, and its headings."""

    text: str
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)
    navigation: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    title: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._path: list[tuple[str, str]] = []
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        inside = any(name == "svg" for name, _ in self._path)
        if "id" in values and not inside:
            self.ids.append(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
            classes = [each for _, each in self._path]
            if any("md-nav--primary" in each for each in classes) and not any(
                "md-nav--secondary" in each for each in classes
            ):
                self.navigation.append(values["href"])
        if tag in {"img", "script", "source"} and "src" in values:
            self.resources.append(values["src"])
        if tag == "link" and values.get("rel") in {"stylesheet", "icon"}:
            self.resources.append(values["href"])
        if tag == "h1":
            self.headings.append("")
        if tag not in _VOID:
            self._path.append((tag, values.get("class", "")))

    def handle_endtag(self, tag):
        while self._path and self._path.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tags = [name for name, _ in self._path]
        if tags[-1:] == ["title"] and "svg" not in tags:
            self.title += data
        if "h1" in tags:
            self.headings[-1] += data


@dataclass
class Built:
    """All pages of a site, by the address below its root."""

    site: Path
    pages: dict[str, Page]

    @classmethod
    def read(cls, site: Path, names: list[str]) -> "Built":
        texts = {name: (site / name / "index.html").read_text(encoding="utf-8") for name in names}
        return cls(site, {name: Page(text) for name, text in texts.items()})

    def resolve(self, name: str, link: str) -> tuple[str, str] | None:
        """The address below the root and the anchor of a link, if it stays in the site."""
        if urlsplit(link).scheme:
            return None
        address, anchor = urldefrag(urljoin(f"/{name}", link))
        return unquote(address.removeprefix("/")), unquote(anchor)

    def fault(self, name: str, link: str) -> str | None:
        """What is wrong with a link of a page."""
        target = self.resolve(name, link)
        if target is None:
            return None
        address, anchor = target
        address = "" if address == "." else address.removesuffix("index.html")
        if address in self.pages:
            count = self.pages[address].ids.count(anchor) if anchor else 1
            return None if count == 1 else f"{link}: {count} of this anchor"
        found = self.site / address
        return None if found.is_file() and not anchor else f"{link}: no such page or file"
