"""The page in a real browser: at every width, by keyboard, and on paper."""

import re

import pytest
from helpers.lab import CHROMIUM, NO_CHROMIUM, skip_or_fail
from helpers.pages import page_path, written_run

BESIDE = """() => {
  const box = name => document.querySelector(name).getBoundingClientRect();
  const [nav, text] = [box("nav"), box("main")];
  return [document.documentElement.scrollWidth, nav.bottom <= text.top, text.left - nav.right];
}"""
# What a window of 390 pixels shows of a box: its width, that of what it holds, and whether a sign says so.
SCROLLED = """name => {
  const box = [...document.querySelectorAll(".scrolls")].find(found => found.querySelector(name));
  const first = box.querySelector("th, img").getBoundingClientRect();
  box.scrollLeft = 90;
  return {
    holds: box.scrollWidth,
    shows: box.clientWidth,
    sign: box.parentElement.className,
    tab: box.tabIndex,
    moved: first.left - box.querySelector("th, img").getBoundingClientRect().left,
  };
}"""
MEANING = "document.querySelector('.meaning:not([hidden])')?.textContent"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page beside its files, and the one that is mailed."""
    skip_or_fail(NO_CHROMIUM)
    run_dir = written_run(tmp_path_factory.mktemp("run"))
    return page_path(run_dir), page_path(run_dir, single=True)


@pytest.fixture(scope="module")
def browser():
    skip_or_fail(NO_CHROMIUM)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, pages):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(pages[0].as_uri())
    yield page
    page.close()
    assert not errors


def unfolded(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
    page.wait_for_timeout(200)


def test_contents_and_text_never_meet_and_nothing_leaves_the_window(page):
    for width in (390, 500, 640, 768, 928, 929, 1100, 1215, 1216, 1345, 1400, 1920):
        unfolded(page, width)
        wide, above, gap = page.evaluate(BESIDE)
        assert wide <= width and (above or gap >= 24), (width, wide, above, gap)


def test_on_a_telephone_figures_keep_their_letters_and_tables_their_first_column(page):
    unfolded(page, 390)
    figure, table = (page.evaluate(SCROLLED, name) for name in ("img", "table.data"))
    for box in (figure, table):
        assert box["holds"] > box["shows"] and "wide" in box["sign"] and box["tab"] == 0
    assert figure["holds"] >= 650 and figure["moved"] == 90
    assert table["moved"] == 0  # it stays


def test_on_a_telephone_every_number_of_a_board_is_called_by_its_column(page):
    unfolded(page, 390)
    label = "getComputedStyle(document.querySelector('.board td.number'), '::before').content"
    assert page.evaluate(label) == '"difference (corrected interval)"'
    tree = page.locator(".board").first.aria_snapshot()
    assert "rowheader" in tree and "columnheader" in tree and "cell" in tree


def test_a_term_tells_its_meaning_where_it_stands(page):
    word = page.locator(".short a.word").first
    for _ in range(40):
        page.keyboard.press("Tab")
        if word.evaluate("word => word === document.activeElement"):
            break
    assert page.evaluate(MEANING).startswith("The first of the three masks")
    page.keyboard.press("Escape")
    assert page.evaluate(MEANING) is None
    address = page.url
    word.click()
    page.mouse.move(5, 5)
    page.wait_for_timeout(300)
    assert page.evaluate(MEANING).startswith("The first of the three masks") and page.url == address
    page.locator("h1").click()
    assert page.evaluate(MEANING) is None


def test_tables_are_sorted_by_keyboard_and_say_so(page):
    unfolded(page, 1400)
    button = page.get_by_role("button", name="a rather long heading 1", exact=True)
    rows = page.locator("table.data", has_text="a rather long heading").locator("tbody tr")
    orders = {}
    for key in ("Space", "Enter"):
        button.focus()
        page.keyboard.press(key)
        cells = rows.evaluate_all("rows => rows.map(row => row.cells[1].textContent)")
        orders[button.locator("..").get_attribute("aria-sort")] = cells
    assert orders == {"ascending": ["1", "2"], "descending": ["2", "1"]}


def test_the_first_stop_leads_past_the_contents(page):
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "text"


def test_paper_has_the_words_and_no_sign_of_a_link(page, tmp_path):
    page.emulate_media(media="print")
    word = page.locator(".short a.word").first
    assert "underline" not in word.evaluate("word => getComputedStyle(word).textDecorationLine")
    meaning = page.locator("#words dd").first
    assert meaning.bounding_box()["height"] > 5
    for hidden in ("nav", "footer", "figcaption .open", "#notebooks", ".back"):
        assert not page.locator(hidden).first.is_visible()
    paper = page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", paper)) <= 4


def test_the_mailed_page_asks_for_nothing(browser, pages, tmp_path):
    alone = tmp_path / "mailed.html"
    alone.write_bytes(pages[1].read_bytes())
    page = browser.new_page(viewport={"width": 390, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(alone.as_uri())
    unfolded(page, 390)
    page.wait_for_load_state("networkidle")
    assert {address.split(":")[0] for address in asked[1:]} <= {"data"}
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate(SCROLLED, "img")["sign"].startswith("frame wide")
    page.close()
