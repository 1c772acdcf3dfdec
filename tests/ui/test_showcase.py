"""The page of two runs of 44 species, as a colleague opens it from a mail: a file, no server, no network."""

from __future__ import annotations

import pytest

from tests.support.manyspecies import CLASSES, RARE, UNTESTED, make_pair
from tests.support.pictures import drawing
from watkins_ml.evaluation.page import write_page
from watkins_ml.evaluation.runs import ComparedRun

pytestmark = pytest.mark.slow  # two reports of 44 species are drawn

LIMIT = 15_000_000
VISIBLE = "element => element.checkVisibility()"


@pytest.fixture(scope="module")
def showcase(chromium, tmp_path_factory):
    folder = tmp_path_factory.mktemp("showcase")
    labels = ("Baseline", "EfficientNet-B0")
    with drawing():
        runs = [ComparedRun.from_dir(path, label) for path, label in zip(make_pair(folder), labels, strict=True)]
        write_page(runs, folder / "page.html")
    return folder / "page.html", runs


@pytest.fixture(scope="module")
def chrome(chromium):
    from playwright.sync_api import sync_playwright
    from screenshots import FLAGS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chrome, showcase):
    """A function that opens the page; nothing may be said on the console or asked of a network."""
    faults, contexts = [], []

    def open_page(**settings):
        context = chrome.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: faults.append(said.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or faults.append(asked.url))
        page.goto(showcase[0].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def column(page, index: int) -> list[str]:
    return page.locator(f"table.sortable tbody tr > :nth-child({index})").all_inner_texts()


def test_the_page_is_small_enough_to_mail_and_shows_every_picture(visit, showcase):
    assert showcase[0].stat().st_size < LIMIT
    page = visit()
    sizes = page.locator("img").evaluate_all("async images => { for (const i of images) { i.loading = 'eager'; "
                                             "await i.decode() } return images.map(i => i.naturalWidth) }")  # fmt: skip
    assert len(sizes) > 100 and min(sizes) > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1360, 2200])
def test_the_page_is_never_wider_than_the_window(visit, width, scheme):
    page = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_table_of_species_sorts_by_f1_and_by_support_with_the_keyboard_too(visit, showcase):
    page = visit()
    assert len(column(page, 1)) == len(CLASSES) - 1
    score = page.get_by_role("button", name="Baseline", exact=True)
    header = score.locator("xpath=ancestor::th")
    score.click()
    shown = [float(text.rstrip("%")) for text in column(page, 3)]
    assert shown == sorted(shown, reverse=True) and shown[0] > shown[-1]
    assert header.get_attribute("aria-sort") == "descending"
    score.press("Enter")
    assert [float(text.rstrip("%")) for text in column(page, 3)] == shown[::-1]
    page.get_by_role("button", name="Test cuts").press("Space")
    cuts = [int(text) for text in column(page, 2)]
    assert cuts == sorted(cuts, reverse=True)
    assert header.get_attribute("aria-sort") is None
    page.get_by_role("button", name="Species", exact=True).click()
    names = [text.removesuffix(" (rare)") for text in column(page, 1)]
    assert names == sorted(names, key=str.casefold)


def test_a_cut_plays_and_another_takes_its_place(visit):
    page = visit()
    first, second = page.locator("#galleries ~ .cards button.play").all()[:2]
    first.press("Enter")  # by keyboard
    sound = first.locator("xpath=following-sibling::audio")
    page.wait_for_function("audio => audio.currentTime > 0.1", arg=sound.element_handle())
    assert sound.evaluate("audio => [audio.error, Math.round(audio.duration)]") == [None, 4]
    assert first.get_attribute("aria-pressed") == "true"
    second.click()
    other = second.locator("xpath=following-sibling::audio")
    page.wait_for_function("audio => audio.currentTime > 0.1", arg=other.element_handle())
    assert sound.evaluate("audio => audio.paused")
    assert (first.get_attribute("aria-pressed"), second.get_attribute("aria-pressed")) == ("false", "true")


def test_the_speed_makes_low_calls_higher(visit):
    page = visit()
    page.get_by_label("8×").check()
    button = page.locator("button.play").first
    button.click()
    sound = button.locator("xpath=following-sibling::audio")
    assert sound.evaluate("audio => [audio.playbackRate, audio.preservesPitch]") == [8, False]
    page.get_by_label("2×").check()
    assert sound.evaluate("audio => audio.playbackRate") == 2


def test_every_button_and_picture_has_a_name_of_its_own(visit):
    page = visit()
    names = (
        page.locator("#galleries ~ .cards")
        .first.get_by_role("button")
        .evaluate_all("buttons => buttons.map(button => button.ariaLabel)")
    )
    assert len(names) == len(set(names)) == 25
    assert all(any(name.endswith(species) for species in CLASSES) for name in names)
    assert page.locator("img:not([alt])").count() == 0


def test_without_scripts_every_cut_still_has_its_player(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("button.play").count() == page.locator(".card audio").count() > 100
    assert page.locator(".card audio").first.is_visible()


def test_the_matrix_shows_each_count_and_rare_species_stand_apart(visit, showcase):
    page = visit()
    predictions = showcase[1][0].predictions
    matrix = page.locator("table.matrix").first
    counts = matrix.locator("td[title]").all_inner_texts()
    assert sum(map(int, counts)) == len(predictions)
    assert matrix.locator("tbody tr").count() == len(CLASSES)
    rare = page.get_by_role("region", name="Rare and untested species").get_by_role("table")
    rows = {row.split("\t")[0]: row for row in rare.locator("tbody tr").all_inner_texts()}
    assert set(rows) == {RARE, UNTESTED}
    assert "not tested: one tape only" in rows[UNTESTED]


def test_on_paper_the_closed_settings_are_open_and_controls_are_gone(visit):
    page = visit()
    page.emulate_media(media="print")
    assert not page.locator(".speed").is_visible()
    assert page.locator("details table").evaluate("table => table.checkVisibility({contentVisibilityAuto: true})")
