"""Every page, in light and dark, on a wide and a narrow screen."""

from looks import only


def test_it_loads_from_the_site_alone_and_without_errors(opened):
    assert opened.problems == []


def test_text_stands_out_from_what_is_behind_it(opened):
    found = opened.ask("contrast.js")
    assert found["texts"] > 50
    assert found["findings"] == {}


def test_nothing_lies_beside_the_window(opened):
    found = opened.ask("overflow.js")
    assert found["page"] <= found["width"]
    assert found["outside"] == []


def test_figures_are_drawn(opened):
    assert opened.ask("figures.js")["empty"] == []


@only("light")
def test_code_can_be_copied(opened):
    blocks = opened.page.locator(".md-content pre > code")
    for number in range(blocks.count()):
        block = blocks.nth(number)
        button = block.locator("xpath=..").get_by_role("button", name="Copy to clipboard")
        button.click()
        copied = opened.page.evaluate("navigator.clipboard.readText()")
        # Space at the end is left out of what is copied.
        assert copied.strip("\n ") == block.inner_text().strip("\n ")
        opened.page.evaluate("navigator.clipboard.writeText('')")
