"""Every internal link of the built site leads to one place, and every page can be reached."""

import pytest
from built import Built


@pytest.fixture(scope="session")
def built(site, pages):
    return Built.read(site, pages)


def test_links_and_anchors_lead_somewhere(built, page_name):
    page = built.pages[page_name]
    assert len(page.links) > 20
    faults = [built.fault(page_name, link) for link in {*page.links, *page.resources}]
    assert sorted(filter(None, faults)) == []


def test_nothing_is_loaded_from_elsewhere(built, page_name):
    resources = built.pages[page_name].resources
    assert len(resources) > 3
    assert [link for link in resources if built.resolve(page_name, link) is None] == []


def test_a_page_has_one_heading_and_a_title_of_its_own(built, page_name):
    page = built.pages[page_name]
    assert len(page.headings) == 1
    assert page.headings[0].strip("¶ \n")
    titles = [each.title for each in built.pages.values()]
    assert page.title
    assert titles.count(page.title) == 1


def test_the_navigation_has_every_page_and_nothing_else(built, pages):
    navigation = {built.resolve("", link) for link in built.pages[""].navigation}
    listed = {"" if name == "." else name for name, _ in navigation - {None}}
    assert listed == set(pages)


def test_what_the_tests_look_at_is_there(built):
    """None of the tests of pages is true because there is nothing to look at."""
    texts = {name: page.text for name, page in built.pages.items()}
    for name in ["tutorial/", "benchmarks/", "explanation/minimum-cut/"]:
        assert "<svg" in texts[name].split('class="md-content"')[1], name
    assert sum(text.count("<pre") for text in texts.values()) > 300
    assert sum(text.count("<table") for text in texts.values()) > 50
