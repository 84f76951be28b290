"""The built site behind a local server, and headless Chromium before it.

`nox -s docs-browser` builds the site and runs this folder, which the other sessions leave out:
they have no browser.
"""

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from looks import LOOKS, Opened
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--site", default="site", help="the folder of the built documentation")
    parser.addoption("--screenshots", help="a folder for pictures of every page, for a person")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "page_name" in metafunc.fixturenames:
        metafunc.parametrize("page_name", pages_of(metafunc.config), scope="session")
    if "opened" in metafunc.fixturenames:
        looks = getattr(metafunc.function, "looks", LOOKS)
        both = [(name, look) for name in pages_of(metafunc.config) for look in looks]
        ids = [f"{name or 'index'}-{look}" for name, look in both]
        # All tests of a page in one look are run on one visit, because of this scope.
        metafunc.parametrize("opened", both, indirect=True, ids=ids, scope="session")


def pages_of(config: pytest.Config) -> list[str]:
    """The pages' addresses below the root of the site, with the overview, "", first."""
    site = Path(config.getoption("--site"))
    found = sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))
    if not found:
        message = f"there is no built site in {site}; `mkdocs build` makes one, or say --site"
        raise pytest.UsageError(message)
    return ["" if name == "." else f"{name}/" for name in found]


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Path:
    """The folder of the built documentation."""
    return Path(pytestconfig.getoption("--site")).resolve()


@pytest.fixture(scope="session")
def pages(pytestconfig: pytest.Config) -> list[str]:
    """The pages' addresses below the root of the site."""
    return pages_of(pytestconfig)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without telling of each."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def root(site: Path) -> Iterator[str]:
    """The address at which the site is served while the tests run."""
    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """The Chromium of the machine; none is downloaded."""
    names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        message = f"no browser: none of {', '.join(names)} is on the PATH; `apt install chromium`"
        pytest.exit(message, returncode=2)
    launched = playwright.chromium.launch(executable_path=path)
    yield launched
    launched.close()


@pytest.fixture(scope="session")
def visit(browser: Browser, root: str) -> Iterator[Callable[[str, str], Opened]]:
    """Opens a page in one of the looks, in the window that is as wide, as a reader does.

    When the same page is wanted in other colours, those of the system are changed.
    """
    windows: dict[int, BrowserContext] = {}
    opened: list[Opened] = []

    def open_page(name: str, look: str) -> Opened:
        width = LOOKS[look]["viewport"]["width"]
        if width not in windows:
            windows[width] = browser.new_context(**LOOKS[look])
            windows[width].grant_permissions(["clipboard-read", "clipboard-write"], origin=root)
        if opened and (opened[0].name, opened[0].width) != (name, width):
            opened.pop().page.close()
        if not opened:
            opened.append(Opened(windows[width].new_page(), root, name, width))
        opened[0].turn(look)
        return opened[0]

    yield open_page
    for each in windows.values():
        each.close()


@pytest.fixture(scope="session")
def opened(request: pytest.FixtureRequest, visit: Callable[[str, str], Opened]) -> Opened:
    """A page of the site in one of the looks, with what went wrong on the way."""
    found = visit(*request.param)
    if folder := request.config.getoption("--screenshots"):
        found.photograph(Path(folder))
    return found


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Any]]:
    """Makes a page in a window of its own, which remembers nothing."""
    contexts: list[BrowserContext] = []

    def make(look: str = "light", **options: Any) -> Any:
        contexts.append(browser.new_context(**LOOKS[look] | options))
        return contexts[-1].new_page()

    yield make
    for each in contexts:
        each.close()
