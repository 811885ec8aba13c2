"""Every page passes axe-core (WCAG 2 A and AA) and can be used by keyboard alone."""

import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe

from blinded_tests import TOKEN, kinds_by_picture_id, made_up
from page_client import page_of, served_app
from phenolens.cli import main
from phenolens.study import Study
from phenolens.web import blinded_test
from phenolens.web.app import create_app
from phenolens.web.base import address
from travelling_study import SERIES

pytestmark = pytest.mark.slow

WIDTHS = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


@pytest.fixture(scope="module")
def at(explored):
    with served_app(create_app(explored)) as root:
        yield root.removesuffix("/")


def pages(study):
    cell = study.crops.cells.iloc[0]
    return {
        "home": "/",
        "plates": "/plates",
        "plate": address("plates", cell["plate"], measure="nucleus_area_px"),
        "well": address("wells", cell["plate"], cell["well"]),
        "cell": address("cells", cell["cell_id"], outline="true"),
        "treatment": address("treatments", f"{SERIES}@10", populations="true"),
        "map": "/map?of=cells",
        "travel": address("travel", to=SERIES),
        "not found": "/nowhere",
    }


def violations(page):
    """Each violation as `rule: first element`."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{rule['id']}: {rule['nodes'][0]['html'][:160]}" for rule in found]


@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_on_any_page(browser, at, explored, width):
    found = {}
    with page_of(browser, viewport=WIDTHS[width], bypass_csp=True) as (page, _):
        for name, path in pages(explored).items():
            page.goto(at + path)
            if name == "map":
                page.wait_for_function("document.getElementById('map').dataset.drawn", timeout=60_000)
            found[name] = violations(page)
    assert {name: rules for name, rules in found.items() if rules} == {}


@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_in_the_report_with_every_section_open(browser, explored, tmp_path, width):
    shutil.copytree(explored.folder, tmp_path / "study")
    assert main(["report", str(tmp_path / "study")]) == 0
    with page_of(browser, viewport=WIDTHS[width]) as (page, _):
        page.goto((tmp_path / "study" / "report.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert violations(page) == []


def test_tab_reaches_every_link_of_a_cells_page_in_order(browser, at, explored):
    with page_of(browser, viewport=WIDTHS["wide"]) as (page, _):
        page.goto(at + pages(explored)["cell"])
        links = page.eval_on_selector_all("a[href]", "all => all.map((one) => one.href)")
        reached = []
        for _ in range(len(links) + 5):
            page.keyboard.press("Tab")
            href = page.evaluate("document.activeElement.href || ''")
            reached += [href] if href else []
        assert reached[: len(links)] == links


@pytest.fixture
def judged(tmp_path):
    """Two blinded tests: one judged by two assessors, one of whom finished, and one that nobody has begun."""
    study = Study.create(tmp_path / "study")
    file, other = made_up(study, "anna", "ben", "cara", n=3), made_up(study, "dan", n=1, name="round-2")
    kinds = kinds_by_picture_id(file)
    for number, n in ((1, 6), (2, 2)):
        for _ in range(n):
            turn = file.turn(number)
            file.answer(number, turn.picture_id, synthetic=kinds[turn.picture_id] ^ (turn.place % 3 == 1))
    with served_app(blinded_test.create_app(study, token=TOKEN)) as root:
        yield root.removesuffix("/"), file, other


@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_on_any_page_of_the_blinded_test(browser, judged, width):
    at, file, other = judged
    done, begun, fresh = (assessor.code for assessor in file.assessors())
    owners = [address("owner", "assessments", one.name, *what) for one in (file, other) for what in ([], ["results"])]
    visited = {
        "enter": ["/"],
        "instructions": [f"/begin/{fresh}", "/cell", "/nowhere"],
        "continued": [f"/begin/{begun}", "/cell"],
        "done": [f"/begin/{done}"],
        "owner": [f"/owner?token={TOKEN}", *owners],
        "wrong code": ["/begin/AAAAA"],
        "no owner": ["/owner"],
    }
    found = {}
    for name, paths in visited.items():
        with page_of(browser, viewport=WIDTHS[width], bypass_csp=True) as (page, _):
            for path in paths:
                page.goto(at + path)
                found[f"{name}: {path}"] = violations(page)
            if name == "continued":
                page.get_by_role("button", name="Pause").click()
                found["paused"] = violations(page)
    assert {name: rules for name, rules in found.items() if rules} == {}


def test_a_blinded_test_is_begun_judged_paused_and_read_by_keyboard_alone(browser, judged):
    """Every step by Tab and Enter, without the keys that answer."""
    at, file, _ = judged

    def choose(page, name):
        """Tab to what has this text, and press Enter."""
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent.trim().split(/\\s+/)[0]") == name:
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                with page.expect_navigation():
                    page.keyboard.press("Enter")
                return
        raise AssertionError(f"Tab never reaches {name}")

    with page_of(browser, viewport=WIDTHS["wide"]) as (page, said):
        page.goto(at)
        page.locator("#code:focus").wait_for()  # the field takes the focus by itself, maybe after the page has loaded
        page.keyboard.type(file.assessors()[2].code)
        with page.expect_navigation():
            page.keyboard.press("Enter")
        choose(page, "Begin")
        page.locator("#cell").evaluate("image => image.decode()")
        choose(page, "Synthetic")
        page.locator("#cell").evaluate("image => image.decode()")
        choose(page, "Real")
        assert page.get_by_role("heading").inner_text() == "Cell 3 of 6"
        choose(page, "Pause")
        assert page.get_by_role("heading").inner_text() == "Paused"
        page.goto(f"{at}/owner?token={TOKEN}")
        choose(page, "round-1")
        choose(page, "Results")
        assert "Results of round-1" in page.get_by_role("heading").first.inner_text()
        assert said == []
    answers = file.answers().query("assessor == 'cara'")
    assert answers["said_synthetic"].tolist() == [True, False]
