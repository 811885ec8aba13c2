"""Every page passes axe-core (WCAG 2 A and AA) and can be used by keyboard alone."""

import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe

from page_client import page_of, served_app
from phenolens.cli import main
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
