"""The assessment in a real browser: two keys, without script, at phone width."""

import pytest
from playwright.sync_api import expect

from blinded_tests import TOKEN, kinds_by_picture_id, made_up
from page_client import fits, page_of, served_app
from phenolens.study import Study
from phenolens.web.blinded_test import create_app

pytestmark = pytest.mark.slow

WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@pytest.fixture
def study(tmp_path):
    return Study.create(tmp_path / "study")


def served(study):
    """The address under which a study's assessments are served meanwhile."""
    return served_app(create_app(study, token=TOKEN))


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_two_keys_judge_every_cell_and_the_whole_turn_is_seen_without_scrolling(study, browser, viewport):
    file = made_up(study, "anna", n=2, show_score=True)
    kinds = kinds_by_picture_id(file)
    with served(study) as at, page_of(browser, viewport=viewport) as (page, said):
        page.goto(f"{at}begin/{file.assessors()[0].code}")
        assert fits(page)
        page.get_by_role("link", name="Begin").click()
        for place, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowLeft", "ArrowRight"), start=1):
            assert page.get_by_role("heading").inner_text() == f"Cell {place} of 4"
            image, button = page.locator("#cell"), page.locator("#synthetic")
            expect(image).to_have_js_property("naturalWidth", 12)  # it may come after the page
            below = button.bounding_box()
            assert below["y"] + below["height"] <= viewport["height"]
            assert fits(page)
            with page.expect_navigation():
                page.keyboard.press(key)
        assert page.url == f"{at}end"
        assert "of your 4 answers are correct" in page.locator("main").inner_text()
        assert said == []
    answers = file.answers()
    assert answers["said_synthetic"].tolist() == [False, True, False, True]
    assert (answers["seconds"] > 0).all()
    assert len(kinds) == len(answers)


def test_it_works_without_javascript_and_by_the_keyboard_alone(study, browser):
    file = made_up(study, "anna", n=1)
    with served(study) as at, page_of(browser, java_script_enabled=False, viewport=PHONE) as (page, _):
        page.goto(at)
        page.get_by_label("Your code").fill(file.assessors()[0].code.lower())
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Begin").click()
        page.get_by_role("button", name="Synthetic").click()
        assert page.get_by_role("heading").inner_text() == "Cell 2 of 2"
        page.get_by_role("button", name="Real").focus()
        with page.expect_navigation():
            page.keyboard.press("Enter")
        assert page.url == f"{at}end"
    assert file.answers()["said_synthetic"].tolist() == [True, False]


def test_a_key_held_down_or_pressed_before_the_cell_is_seen_answers_nothing(study, browser):
    file = made_up(study, "anna", n=3)
    with served(study) as at, page_of(browser, viewport=WIDE) as (page, _):
        page.route("**/pictures/*", lambda route: route.abort())
        page.goto(f"{at}begin/{file.assessors()[0].code}")
        page.goto(f"{at}cell")
        page.keyboard.press("ArrowLeft")
        assert "did not load" in page.locator("#status").inner_text()
        assert len(file.answers()) == 0
        page.unroute("**/pictures/*")
        page.goto(f"{at}cell")
        page.keyboard.press("Control+ArrowRight")
        with page.expect_navigation():
            page.keyboard.down("ArrowLeft")
            page.keyboard.down("ArrowLeft")  # the same key, still down: a repeat
        page.wait_for_load_state("load")
        page.keyboard.down("ArrowLeft")
        page.wait_for_timeout(300)
        assert len(file.answers()) == 1


def test_no_letter_answers_because_who_dictates_text_presses_letters_by_accident(study, browser):
    file = made_up(study, "anna", n=3)
    with served(study) as at, page_of(browser, viewport=WIDE) as (page, _):
        page.goto(f"{at}begin/{file.assessors()[0].code}")
        page.goto(f"{at}cell")
        expect(page.locator("#cell")).to_have_js_property("naturalWidth", 12)
        page.keyboard.type("Yes or real synthetic")
        page.wait_for_timeout(300)
        assert len(file.answers()) == 0
        assert page.locator("kbd").all_inner_texts() == ["←", "→"]


def test_going_back_shows_no_cell_that_is_answered(study, browser):
    file = made_up(study, "anna", n=3)
    with served(study) as at, page_of(browser, viewport=WIDE) as (page, _):
        page.goto(f"{at}begin/{file.assessors()[0].code}")
        page.goto(f"{at}cell")
        with page.expect_navigation():
            page.keyboard.press("ArrowLeft")
        page.wait_for_load_state("load")
        page.go_back()
        page.wait_for_load_state("load")
        page.goto(f"{at}cell")
        assert page.get_by_role("heading").inner_text() == "Cell 2 of 6"
        with page.expect_navigation():
            page.keyboard.press("ArrowRight")
    assert file.answers()["said_synthetic"].tolist() == [False, True]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_owner_finds_codes_and_results(study, browser, viewport):
    file = made_up(study, "anna", "ben", n=3)
    kinds = kinds_by_picture_id(file)
    for number in (1, 2):
        while turn := file.turn(number):
            file.answer(number, turn.picture_id, synthetic=kinds[turn.picture_id] ^ (turn.place == 1))
    with served(study) as at, page_of(browser, viewport=viewport) as (page, _):
        page.goto(f"{at}owner?token={TOKEN}")
        assert page.url == f"{at}owner"  # the token does not stay in the address
        assert fits(page)
        page.get_by_role("link", name="round-1", exact=True).click()
        assert f"{at}begin/{file.assessors()[1].code}" in page.locator("main").inner_text()
        page.get_by_label("One more assessor").fill("cara")
        page.get_by_role("button", name="Add").click()
        assert "cara" in page.locator("main").inner_text()
        assert fits(page)
        page.get_by_role("link", name="Results").click()
        assert "passed as real" in page.locator("p.verdict").inner_text()
        assert fits(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="answers.csv").click()
        assert download.value.suggested_filename == "round-1_answers.csv"
