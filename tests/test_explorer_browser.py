"""The explorer in a real browser: from home to a film, the map's points, lasso and search, keyboard, phone width."""

import re

import httpx
import numpy as np
import pytest
from matplotlib.path import Path
from playwright.sync_api import expect

from page_client import fits, page_of, served_app
from phenolens.web import plates_page
from phenolens.web.app import create_app
from travelling_study import RUN, SERIES

pytestmark = pytest.mark.slow

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ODDITIES = ("inline style", "Canvas2D", "GPU stall")  # of browsers and of plotly's measuring of text


@pytest.fixture(scope="module")
def study(explored):
    return explored


@pytest.fixture(scope="module")
def at(study):
    with served_app(create_app(study)) as address:
        yield address


def wrong(said):
    return [line for line in said if not any(oddity in line for oddity in ODDITIES)]


def drawn(page):
    page.wait_for_function("document.getElementById('map').dataset.drawn", timeout=60_000)
    return int(page.evaluate("document.getElementById('map').dataset.drawn"))


def at_share(box, share):
    """The point of a box at these shares of its width and height."""
    return box["x"] + share[0] * box["width"], box["y"] + share[1] * box["height"]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_from_home_to_a_playing_film_are_two_clicks_and_its_frame_stands_in_the_address(browser, at, viewport):
    with page_of(browser, viewport=viewport) as (page, said):
        page.goto(at)
        page.get_by_role("link", name="Travel", exact=True).click()
        first = page.locator("#now").get_attribute("src")
        page.get_by_role("button", name="Play").click()
        expect(page.locator("#caption")).to_contain_text(re.compile("frame [3-9] of 9"))
        page.get_by_role("button", name="Pause").click()
        assert page.locator("#now").get_attribute("src") != first
        shown = page.locator("#caption").text_content()
        page.goto(page.url)
        assert page.locator("#caption").text_content() == shown
        assert page.evaluate("document.getElementById('now').naturalWidth") == 36
        assert fits(page)
        assert wrong(said) == []


def test_keys_move_the_film_and_a_channel_that_is_off_is_off_in_every_picture(browser, at):
    with page_of(browser, viewport=WIDE) as (page, said):
        page.goto(f"{at}travel?to={SERIES}")
        page.wait_for_function("document.querySelectorAll('#chart .scatterlayer .trace').length === 5")
        assert page.locator("#chart").get_attribute("data-curves").count('"change"') == 5
        page.locator("#frame").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.getElementById('chart').layout.shapes[0].x0 === 2")
        assert "frame 2 of 9" in page.locator("#caption").text_content()
        page.get_by_role("checkbox", name="tubulin").uncheck()
        page.wait_for_url("**channels=DNA&channels=actin**")
        sources = page.eval_on_selector_all("img[data-picture]", "all => all.map(one => one.src)")
        assert len(sources) > 18
        assert [source for source in sources if "channels=DNA&channels=actin" not in source] == []
        for name in ("film (GIF)", "strip with numbers and differences (PNG)"):
            assert "channels=DNA&channels=actin" in page.get_by_role("link", name=name).get_attribute("href")
        assert "channels=DNA&channels=actin" in page.locator("#starts a").first.get_attribute("href")
        page.get_by_role("button", name="Travel", exact=True).click()
        page.wait_for_url(re.compile("channels=DNA&channels=actin&frame=1"))
        assert page.get_by_role("checkbox", name="tubulin").is_checked() is False
        assert wrong(said) == []


def test_the_map_draws_every_cell_and_a_lasso_counts_what_lies_in_it(browser, at, study):
    places = httpx.get(f"{at}map/places.bin?run={RUN}&of=cells&projection=pca").content
    places = np.frombuffer(places, "<f4").reshape(2, -1).T
    with page_of(browser, viewport=WIDE) as (page, said):
        page.goto(f"{at}map?of=cells")
        assert drawn(page) == len(places)
        page.get_by_role("button", name="Lasso").click()
        box = page.locator("#map").bounding_box()
        corners = [(0.25, 0.8), (0.75, 0.8), (0.5, 0.15), (0.26, 0.79)]  # a triangle: its box holds more
        page.mouse.move(*at_share(box, corners[0]))
        page.mouse.down()
        for corner in corners:
            page.mouse.move(
                *[box[a] + share * box[b] for a, b, share in zip("xy", ("width", "height"), corner)], steps=4
            )
        page.mouse.up()
        page.wait_for_function("document.querySelector('#selection h2').textContent.includes('cells')")
        around = np.array(
            [at.split(",") for at in page.evaluate("new URL(location).searchParams.get('lasso')").split(" ")], float
        )
        expected = int(Path(around).contains_points(places).sum())
        said_count = page.locator("#selection h2").text_content()
        assert 0 < expected < len(places)
        counted = int(said_count.removeprefix("In the lasso: ").removesuffix(" cells"))
        assert counted == pytest.approx(expected, abs=2)  # corners in the address are rounded
        page.goto(page.url)  # as a colleague would
        drawn(page)
        page.wait_for_function("document.querySelector('#selection h2').textContent.includes('cells')")
        assert page.locator("#selection h2").text_content() == said_count
        expect(page.locator("#selection ul.cells img")).to_have_count(min(counted, 24), timeout=30_000)
        assert wrong(said) == []


def test_the_crop_of_the_cell_under_the_pointer_is_shown(browser, at, study):
    with page_of(browser, viewport=WIDE) as (page, said):
        page.goto(f"{at}map?of=cells")
        drawn(page)
        where = page.evaluate(
            """async () => {
              const map = document.getElementById("map"), axes = map._fullLayout, box = map.getBoundingClientRect();
              const bytes = await (await fetch(`/map/places.bin?${map.dataset.query}`)).arrayBuffer();
              const places = new Float32Array(bytes), n = places.length / 2;
              return [box.left + axes.xaxis._offset + axes.xaxis.d2p(places[5]),
                box.top + axes.yaxis._offset + axes.yaxis.d2p(places[n + 5])];
            }"""
        )
        page.mouse.move(*where)
        page.wait_for_selector("#card:not([hidden]) img")
        (point,) = httpx.get(f"{at}map/points.json?run={RUN}&of=cells&projection=pca&numbers=5").json()
        assert page.locator("#card img").get_attribute("src") == point["picture"]
        assert point["where"] in page.locator("#card").text_content()
        assert wrong(said) == []


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_map_of_treatments_is_searched_and_coloured_by_keyboard(browser, at, viewport):
    with page_of(browser, viewport=viewport) as (page, said):
        page.goto(f"{at}map")
        n = drawn(page)
        assert n == page.evaluate(
            "[...document.querySelectorAll('#legend .fine')].reduce((sum, one) => sum + +one.textContent, 0)"
        )
        page.get_by_role("searchbox").fill(SERIES)
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#selection h2').textContent.includes('2 treatments')")
        assert "find=two%2Fdoses" in page.url
        page.get_by_label("Colour").select_option("dose")
        page.wait_for_function("document.getElementById('legend').textContent.includes('10 µM')")
        assert fits(page)
        assert wrong(said) == []


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_one_of_many_features_is_found_by_a_part_of_its_name(browser, at, study, viewport, monkeypatch):
    profiles = [str(name) for name in study.profiles(RUN, level="well").var_names]
    monkeypatch.setattr(plates_page, "MOST_LISTED", len(profiles) - 1)
    plate = study.crops.plates[0]
    with page_of(browser, viewport=viewport) as (page, said):
        page.goto(f"{at}plates/{plate}")
        groups = page.eval_on_selector_all("select[name=measure] optgroup", "all => all.map((one) => one.label)")
        assert groups == ["Nucleus", "Cell", *study.crops.channels]
        search = page.get_by_label("Feature of the profile", exact=True)
        assert search.evaluate("one => [...one.list.options].map((option) => option.value)") == profiles
        search.fill(profiles[3])
        search.press("Enter")
        page.wait_for_url(f"**/plates/{plate}?measure={profiles[3]}**")
        assert page.locator("select[name=measure]").input_value() == profiles[3]
        assert f"feature {profiles[3]}:" in page.locator(".key").text_content()
        assert page.url.endswith(f"run={RUN}")
        page.locator("select[name=measure]").select_option(label="nucleus area")
        page.get_by_role("button", name="Show").first.click()
        page.wait_for_url(f"**/plates/{plate}?measure=nucleus_area_px**")
        assert fits(page)
        assert wrong(said) == []


def test_plates_and_treatments_fit_a_phone(browser, at, study):
    with page_of(browser, viewport=PHONE) as (page, said):
        for path in (
            "",
            "plates",
            f"plates/{study.crops.plates[0]}?measure=distance",
            f"treatments/two%2Fdoses%4010?run={RUN}",
        ):
            page.goto(at + path)
            assert fits(page), path
        assert wrong(said) == []


def test_a_phone_is_told_to_swipe_a_plate_and_a_wide_screen_is_not(browser, at, study):
    hint = "getComputedStyle(document.querySelector('.scroll:has(> table.plate)'), '::before').content"
    for viewport, expected in ((PHONE, '"↔ Swipe the plate sideways."'), (WIDE, "none")):
        with page_of(browser, viewport=viewport) as (page, _):
            page.goto(f"{at}plates/{study.crops.plates[0]}")
            assert page.evaluate(hint) == expected
            assert fits(page)


def test_the_scores_of_the_home_page_fit_a_phone(browser, at):
    with page_of(browser, viewport=PHONE) as (page, _):
        page.goto(at)
        table = page.locator(".scroll:has(> table.scores)")
        assert table.evaluate("one => one.scrollWidth <= one.clientWidth")
        assert fits(page)


def test_the_names_of_measures_have_a_third_of_a_phones_width(browser, at):
    with page_of(browser, viewport=PHONE) as (page, _):
        page.goto(f"{at}travel?to={SERIES}")
        table = page.locator("#change table.plain")
        widths = table.evaluate(
            "one => [one.rows[0].cells[0].offsetWidth, one.offsetWidth, one.parentElement.clientWidth]"
        )
        assert widths[0] > widths[1] / 3
        assert widths[1] <= widths[2]
        assert fits(page)


def test_the_list_of_groups_can_be_used_as_soon_as_it_is_there_and_while_the_rest_is_drawn(browser, at):
    def in_two_parts(route):
        script = httpx.get(f"{at}static/map.js").text.replace("AT_ONCE = 100000,", "AT_ONCE = 2,")
        held = script.replace("await painted();", "await new Promise((go) => { window.goOn = go; });")
        assert held != script
        route.fulfill(body=held, content_type="text/javascript")

    with page_of(browser, viewport=WIDE) as (page, said):
        page.route("**/static/map.js*", in_two_parts)
        held_back = []
        page.route("**/plotly/plotly.min.js", lambda route: held_back.append(route))
        page.goto(f"{at}map?of=cells", wait_until="commit")
        page.wait_for_timeout(500)
        assert page.locator("#legend button").count() == 0
        held_back[0].continue_()
        page.locator("#legend input").first.uncheck()
        page.locator("#legend button").nth(1).click()
        page.get_by_role("button", name="Lasso").click()
        expect(page.locator("#lasso")).to_have_attribute("aria-pressed", "true")
        page.wait_for_function("!!window.goOn")
        page.evaluate("goOn()")
        drawn(page)
        expect(page.locator("#selection")).to_be_visible()
        assert page.evaluate("document.getElementById('map').data.filter((one) => one.visible === false).length") > 0
        assert wrong(said) == []


def test_the_model_that_was_chosen_goes_along_to_every_section(browser, at):
    with page_of(browser, viewport=WIDE) as (page, said):
        page.goto(f"{at}?run={RUN}")
        page.get_by_role("link", name="Travel", exact=True).click()
        page.wait_for_url(re.compile(rf"/travel\?run={RUN}"))
        page.goto(f"{at}map?run={RUN}&of=cells")
        for section in ("plates", "travel", "map"):
            page.get_by_role("navigation").get_by_role("link", name=section, exact=True).click()
            page.wait_for_url(re.compile(rf"/{section}\?run={RUN}"))
        assert wrong(said) == []


def test_groups_that_are_hidden_are_hidden_at_the_address_too(browser, at):
    with page_of(browser, viewport=WIDE) as (page, said):
        page.goto(f"{at}map?of=cells")
        drawn(page)
        page.locator("#legend input").nth(1).uncheck()
        page.wait_for_url(re.compile("hide="))
        page.goto(page.url)
        drawn(page)
        boxes = page.eval_on_selector_all("#legend input", "all => all.map((one) => one.checked)")
        assert [place for place, checked in enumerate(boxes) if not checked] == [1]
        assert page.evaluate("document.getElementById('map').data.filter((one) => one.visible === false).length") == 1
        assert wrong(said) == []


def test_names_on_the_map_have_a_font_that_can_be_drawn_and_what_is_waited_for_stands_above_it(browser, at):
    with page_of(browser, viewport=PHONE) as (page, said):
        page.goto(f"{at}map?run={RUN}")
        drawn(page)
        page.get_by_role("checkbox", name="names", exact=True).check()
        page.wait_for_function("document.getElementById('map').data[0].text?.some(Boolean)")
        fonts = page.evaluate(
            """() => document.getElementById('map')._fullData.filter((one) => one.mode.includes('text')).map((one) => {
                const canvas = document.createElement('canvas').getContext('2d');
                canvas.font = `31px ${one.textfont.family}`;
                return canvas.font;
            })"""
        )
        assert fonts
        assert [font for font in fonts if not font.startswith("31px")] == []
        assert page.locator("#status").bounding_box()["y"] < page.locator("#map").bounding_box()["y"]
        assert wrong(said) == []
