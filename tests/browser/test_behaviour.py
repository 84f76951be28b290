"""What a reader does: searching, switching colours, opening the drawer, following links."""

import re

import pytest
from looks import NARROW
from playwright.sync_api import expect

DARK, LIGHT = "slate", "default"


@pytest.fixture
def start(new_page, root):
    """Opens the overview in a window that remembers nothing."""

    def opened(look="light", **options):
        page = new_page(look, **options)
        page.goto(root, wait_until="networkidle")
        return page

    return opened


def results(page):
    return page.locator(".md-search-result__item")


def search(page, words):
    """Types the words as a reader does, letter by letter."""
    page.locator("[data-md-component=search-query]").press_sequentially(words, delay=20)
    expect(results(page).first).to_be_visible()


@pytest.mark.parametrize(
    ("words", "below"),
    [("stderr", ""), ("minimum cut", "explanation/minimum-cut/"), ("wrt", "guide/selecting/")],
)
def test_search_finds_pages_that_have_the_words(start, root, words, below):
    page = start()
    search(page, words)
    links = results(page).locator("a").evaluate_all("links => links.map(link => link.href)")
    assert any(link.startswith(root + below) for link in links)
    expect(results(page).first.locator("mark").first).to_be_visible()
    # A result of a page is followed by those of its sections, which have the words.
    target = results(page).locator(f"a[href*='?h={words.split()[0]}']").first
    target.click()
    page.wait_for_load_state("networkidle")
    text = page.locator(".md-content").inner_text().lower()
    assert all(word in text for word in words.split())
    expect(page.locator(".md-content mark").first).to_contain_text(words.split()[0])


def test_search_is_opened_by_a_key_and_completes_words(start):
    page = start()
    page.keyboard.press("/")
    query = page.locator("[data-md-component=search-query]")
    expect(query).to_be_focused()
    query.press_sequentially("jacob", delay=20)
    suggestion = page.locator("[data-md-component=search-suggest]")
    expect(suggestion).to_have_text(re.compile("jacobian"))
    page.keyboard.press("ArrowRight")
    expect(query).to_have_value(re.compile("jacobian"))


def test_a_search_for_nothing_says_so(start):
    page = start()
    page.locator("[data-md-component=search-query]").press_sequentially("zzqqxx", delay=20)
    expect(page.locator(".md-search-result__meta")).to_have_text("No matching documents")


@pytest.mark.parametrize("preferred", ["light", "dark"])
def test_colours_are_those_of_the_system_until_they_are_switched(start, root, preferred):
    schemes = {"light": LIGHT, "dark": DARK}
    page = start(preferred)
    body = page.locator("body")
    backgrounds = set()
    for system in [preferred, "light", "dark"]:
        page.emulate_media(color_scheme=system)
        expect(body).to_have_attribute("data-md-color-scheme", schemes[system])
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2
    for chosen in ["light", "dark"]:
        page.get_by_title(f"Switch to {chosen} mode").locator("visible=true").click()
        for system in ["light", "dark"]:
            page.emulate_media(color_scheme=system)
            expect(body).to_have_attribute("data-md-color-scheme", schemes[chosen])
        # On other pages, and after a reload, too.
        page.goto(f"{root}tutorial/", wait_until="networkidle")
        expect(body).to_have_attribute("data-md-color-scheme", schemes[chosen])
        page.reload()
        expect(body).to_have_attribute("data-md-color-scheme", schemes[chosen])
    page.get_by_title("Switch to the colours of the system").locator("visible=true").click()
    page.emulate_media(color_scheme=preferred)
    expect(body).to_have_attribute("data-md-color-scheme", schemes[preferred])


def test_the_drawer_of_a_narrow_screen_leads_to_pages(start):
    page = start("narrow")
    drawer = page.locator(".md-sidebar--primary")
    expect(drawer).not_to_be_in_viewport()
    page.locator("label.md-header__button[for=__drawer]").click()
    expect(drawer).to_be_in_viewport()
    page.wait_for_function("document.getAnimations().every(each => each.playState !== 'running')")
    drawer.get_by_role("link", name="Tutorial", exact=True).click()
    expect(page).to_have_title(re.compile("^Tutorial"))
    expect(drawer).not_to_be_in_viewport()


def test_search_works_on_a_narrow_screen(start):
    page = start("narrow")
    page.locator("label.md-header__button[for=__search]").click()
    search(page, "hessian")
    page.wait_for_function("document.getAnimations().every(each => each.playState !== 'running')")
    box = results(page).first.bounding_box()
    assert box["x"] == pytest.approx(0, abs=1)
    assert box["width"] == pytest.approx(NARROW["width"], abs=1)


def test_code_is_copied_on_a_narrow_screen(new_page, root):
    page = new_page("narrow", permissions=["clipboard-read", "clipboard-write"])
    page.goto(f"{root}tutorial/", wait_until="networkidle")
    page.get_by_role("button", name="Copy to clipboard").first.tap()
    expect(page.locator("[data-md-component=dialog]")).to_contain_text("Copied to clipboard")
    assert page.evaluate("navigator.clipboard.readText()").startswith("import jax\n")


def test_wide_tables_and_code_scroll_within_themselves(new_page, root):
    page = new_page("narrow")
    page.goto(f"{root}benchmarks/", wait_until="networkidle")
    moved = page.evaluate(
        """() => [...document.querySelectorAll(".md-content table, .md-content pre > code")]
            .filter((each) => each.scrollWidth > each.clientWidth)
            .map((each) => { each.scrollLeft = 50; return each.scrollLeft; })"""
    )
    assert len(moved) > 2
    assert min(moved) > 0


def test_a_heading_is_linked_to_and_reached(start, root):
    page = start()
    page.goto(f"{root}tutorial/", wait_until="networkidle")
    heading = page.locator(".md-content h2").last
    heading.hover()
    heading.locator("a.headerlink").click()
    expect(page).to_have_url(f"{root}tutorial/#{heading.get_attribute('id')}")
    expect(heading).to_be_in_viewport()


def test_pages_lead_to_the_next_and_back(start, root):
    page = start()
    page.locator(".md-footer__link--next").click()
    expect(page).not_to_have_url(root)
    page.locator(".md-footer__link--prev").click()
    expect(page).to_have_url(root)
    expect(page).to_have_title("autodiffkit")


def test_a_page_that_is_not_there_has_the_way_back(new_page, root, site):
    page = new_page()
    page.goto(f"{root}404.html", wait_until="networkidle")
    expect(page.locator("h1")).to_contain_text("404")
    assert page.locator(".md-header a.md-logo").get_attribute("href")
