"""The report: complete, self-contained, escaped, names the command for what is missing, the same bytes each time."""

import base64
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from phenolens.core.errors import InputError
from phenolens.core.number_text import signed
from phenolens.image_realism.saved import SavedRealism
from phenolens.plotting.cell_images import contact_sheet, reconstructions
from phenolens.plotting.charts import learning_curves
from phenolens.plotting.confusion_matrix import confusion_matrix
from phenolens.plotting.page import SavedPicture
from phenolens.plotting.quality_figures import flagged_crops
from phenolens.plotting.style import caption_of, png
from phenolens.profiles.score_table import (
    SCORE_COLUMNS,
    TABLE_1,
    outside_table,
    score_columns,
    score_rows,
    verdict_sentence,
)
from phenolens.reports import compute
from phenolens.reports.compounds import CompoundRow
from phenolens.reports.crop_quality import CropQuality
from phenolens.reports.page import ReportContents, report_html
from phenolens.screens.screen import treatment_name
from phenolens.study import Study

VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, and its text; fails on tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += [] if self.open[-1:] == ["style"] else [data]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def score(model="vaeplus", seed=1, statistics="mean", whitening="none", protocol="NSC", n_correct=61, n_treatments=72):
    accuracy = n_correct / n_treatments
    return (model, seed, statistics, whitening, protocol, accuracy, n_treatments, n_correct, 0.75, 0.92)


REALISM_ROW = {"images": "VAE <small>", "sharpness actin": 0.514, "in place actin": 0.4, "ssim actin": 0.6}
REALISM_ROW |= {"frechet": 3.14, "frechet_sd": 0.2, "kernel": -0.001, "kernel_sd": 0.01, "precision": 0.5}
REALISM_ROW |= {"precision_sd": 0.05, "recall": 1.0, "recall_sd": 0.0, "accuracy": 0.5, "accuracy_low": 0.4}
REALISM_ROW |= {"accuracy_high": 0.6, "auc": np.nan}


def scores(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(SCORE_COLUMNS))


def dot() -> SavedPicture:
    """The smallest picture."""
    return SavedPicture(
        png(confusion_matrix(pd.DataFrame([[1]], index=["a"], columns=["a"]), "t")),
        "a dot",
        "a matrix of one mechanism",
    )


def contents(**given) -> ReportContents:
    """What every report has, with these sections instead or as well."""
    quality = CropQuality(
        n_crops=12,
        n_flagged=0,
        n_left_out=0,
        kept_out=["noise"],
        n_plates=1,
        n_unusual=0,
        by_plate=pd.DataFrame({"plate": ["all 1"], "crops": [12]}),
    )
    always = {"title": "t", "facts": {"Screen": {"plates": 1}}, "scores": scores(score()), "confusion": [dot()]}
    always |= {"treatment_map": dot(), "cells": dot(), "quality": quality, "whitening": ["all: fitted on 9 rows"]}
    always |= {"excluded": pd.DataFrame({"what": ["noise"]}), "commands": ["phenolens report s"], "study": "s"}
    return ReportContents(**always | given)


@pytest.fixture
def full(rng, tmp_path) -> ReportContents:
    (tmp_path / "realism.png").write_bytes(png(confusion_matrix(pd.DataFrame([[1]], index=["a"], columns=["a"]), "t")))
    crops = rng.uniform(size=(4, 3, 10, 10))
    channels = ("DAPI", "actin", "tubulin")
    names = ["Actin disruptors", "DNA damage"]
    return contents(
        title="A <small> screen & more",
        verdict="VAE+ matches 61 of 72 treatments.",
        facts={"Screen": {"plates": 55, "wells": 12345, "n/a": None}, "Machine": {"threads": 2, "seconds": 0.51234}},
        scores=scores(score(), score(whitening="controls, ridge 1"), score("pca", protocol="NSCB", n_correct=20)),
        n_cells_of_bbbc021=1940,
        confusion=[confusion_matrix(pd.DataFrame([[3, 1], [0, 2]], index=names, columns=names), "VAE+")],
        wrong=pd.DataFrame(
            {"treatment": ["mevinolin/lovastatin@15", "<b>AZ</b>@3"], "nearest_treatment": ["a&b@1", '"c"@2']}
        ),
        learning_curves=[learning_curves(pd.DataFrame({"step": [1, 2, 3], "autoencoder.pixel": [9.0, 5.0, 1.0]}))],
        warnings=["the discriminator has won"],
        reconstructions=reconstructions(crops, {"VAE+": crops}, list("abcd"), channels=channels),
        interpolations=[contact_sheet([crops], ["DMSO to taxol <0.3>"], channels=channels)],
        realism=SavedRealism(
            tmp_path,
            pd.DataFrame([REALISM_ROW]),
            ["n = 12 cells from wells <seen>."],
            alt="a row of <cells> for each set of images",
            flags=[],
        ),
        cells=contact_sheet([crops], ["DMSO"], channels=channels),
        quality=CropQuality(
            n_crops=12,
            n_flagged=3,
            n_left_out=2,
            kept_out=["noise"],
            n_plates=1,
            n_unusual=0,
            by_plate=pd.DataFrame({"plate": ["all 1"], "crops": [12345], "noise": [3]}),
            example_crops=flagged_crops(
                {"noise": np.ones((1, 3, 8, 8))}, {"noise": 3}, n_crops=12, n_flagged=3, channels=channels
            ),
        ),
        whitening=["Learnt on 330 DMSO wells with ridge 1."],
        excluded=pd.DataFrame({"what": ["camera noise"], "cells": [56], "why": ["blank fields"]}),
        commands=["phenolens crop 'my study' --source <folder>", "phenolens report 'my study'"],
    )


def test_the_page_is_well_formed_and_loads_nothing(full):
    page = Page(report_html(full))
    assert page.tags[0] == ("html", {"lang": "en"})
    named = [value for _, tag in page.tags for name, value in tag.items() if name in ("src", "href", "srcset", "data")]
    sources = [value for value in named if not value.startswith("#")]  # places in the page itself are no sources
    assert len(sources) == 9  # eight pictures and the icon that keeps browsers from asking for one
    assert all(source.startswith("data:") for source in sources)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {name for name, _ in page.tags}
    assert "url(" not in report_html(full)
    assert "@import" not in report_html(full)


def test_every_picture_has_an_alternative_text_and_is_the_figure_itself(full):
    images = Page(report_html(full)).every("img")
    assert all(len(image["alt"]) > 20 for image in images)
    drawn = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in images]
    assert png(full.confusion[0], with_caption=False) in drawn
    assert caption_of(full.confusion[0]) in Page(report_html(full)).text


def test_the_page_shows_everything_it_was_given(full):
    text = Page(report_html(full)).text
    for words in (
        "A <small> screen & more",
        "VAE+ matches 61 of 72 treatments.",
        "plates 55",
        "wells 12,345",
        "n/a –",
        "seconds 0.512",
        "mevinolin/lovastatin@15 a&b@1",
        '<b>AZ</b>@3 "c"@2',
        "2 treatments with",
        "the discriminator has won",
        "Learnt on 330 DMSO wells with ridge 1.",
        "3 (25.0 %) of 12 crops",
        "all 1 12,345 3",
        "camera noise 56 blank fields",
        "phenolens crop 'my study' --source <folder>",
        "1,940 of 488,396 cells",
    ):
        assert words in text


def test_the_sections_are_in_order_and_linked_by_their_titles(full):
    order = (
        "activity travel scores confusion neighbours wrong cells reconstructions realism quality left-out whitening "
        "run learning repeat glossary"
    )
    full = replace(full, neighbours=dot())
    page = Page(report_html(full))
    assert " ".join(section["id"] for section in page.every("section")) == order
    links = [link["href"] for link in page.every("a") if str(link["href"]).startswith("#")]
    assert links == [*(f"#{name}" for name in order.split()[:4]), "#appendix"]
    titles = re.findall(r'<a href="#[^"]*">([^<]*)</a>', report_html(full))
    assert titles == [*re.findall(r"<h2>([^<]*)</h2>", report_html(full))[:4], "Appendix"]
    before, _, after = report_html(full).partition('id="appendix"')
    assert ('class="appendix"' in before, after.count('class="appendix"')) == (False, len(order.split()) - 4)


def compound_row(**given) -> CompoundRow:
    row = {"treatment": "taxol@3", "label": "taxol <3> µM", "moa": "Stabilizers", "n_wells": 4, "distance": 3.25}
    row |= {"p_value": 0.002, "active": True, "testable": True, "cells": 0.42, "cells_p_value": 0.01}
    row |= {
        "no_changes": "",
        "picture": dot(),
        "changes": [("nucleus area, px²", -1.25)],
        "doses": [("taxol 1 µM", 1.5), ("taxol 3 µM", 3.25)],
    }
    row |= {"curve": [(6.0, 30.0), (114.0, 6.0)], "chance_y": 40.0}
    return CompoundRow(**row | given)


def test_a_compound_has_its_cells_counts_changes_and_doses_and_leads_to_its_interpolation():
    table = pd.DataFrame({"treatment": ["taxol@3"], "distance": [3.25]})
    rows = [compound_row(), compound_row(treatment="b@1", changes=[], no_changes="none is clear")]
    page = Page(report_html(contents(activity=table, compounds=rows, interpolated=["taxol@3"], interpolations=[dot()])))
    for words in ("taxol <3> µM", "3.25", "0.002", "cells per well 42 %", "−1.2 nucleus area, px²", "none is clear"):
        assert words in page.text
    assert {"href": "#travel-1"} in page.every("a")
    assert {"id": "travel-1"} in page.every("div")


def test_the_compounds_that_are_not_shown_are_counted():
    table = pd.DataFrame({"treatment": ["taxol@3"], "distance": [3.25]})
    shown = {"activity": table, "compounds": [compound_row()]}
    assert "The 1 of 36 compounds that differ most" in report_html(contents(**shown, n_compounds=36))
    assert "Each compound at" in report_html(contents(**shown, n_compounds=1))


def test_too_few_wells_for_a_small_p_are_said_once():
    table = pd.DataFrame({"treatment": ["taxol@3"], "distance": [3.25]})
    weak = {"activity": table, "compounds": [compound_row()], "weakness": "2 wells do not allow a small p"}
    for verdict in ("0 of 1 treatments differ.", "0 of 1 treatments differ. 2 wells do not allow a small p."):
        assert Page(report_html(contents(**weak, verdict=verdict))).text.count(weak["weakness"]) == 1


def test_a_treatment_with_too_few_wells_does_not_count_as_one_that_does_not_differ():
    table = pd.DataFrame({"treatment": ["taxol@3"], "distance": [3.25]})
    row = compound_row(active=False, testable=False, changes=[("fibres", 50.0)], doses=[("taxol 3 µM", 3.25)])
    text = Page(report_html(contents(activity=table, compounds=[row]))).text
    for words in ("too few wells to be tested", ">+10 fibres", "Beyond 10: control cells hardly vary"):
        assert words in text
    for words in ("does not differ", "differs at p", "0.002", "dotted", "50.0", "distance 3.25"):
        assert words not in text
    tested = Page(report_html(contents(activity=table, compounds=[compound_row(active=False)]))).text
    for words in ("does not differ: distance 3.25, p 0.002", "differs at p", "1 (dotted) is chance"):
        assert words in tested
    assert "Beyond 10" not in tested


def test_without_mechanisms_the_report_says_so_once_and_has_no_empty_sections():
    absent = ["NSC needs mechanisms (--mechanism of a table)", "NSCB needs mechanisms (--mechanism of a table)"]
    shown = {"absent": absent, "scores": scores(), "confusion": [], "has_mechanisms": False}
    html = report_html(contents(**shown))
    assert Page(html).text.count("no mechanism is known") == 1
    for words in ("--mechanism", 'id="wrong"', 'id="neighbours"', "Matches"):
        assert words not in html


def test_a_report_before_any_training_says_that_another_may_follow():
    assert "writes this report again" in Page(report_html(contents(is_first=True))).text
    assert "writes this report again" not in Page(report_html(contents())).text


def test_what_the_captions_of_all_interpolations_share_is_said_above_them():
    page = report_html(contents(interpolations=[dot(), dot()], shared_captions=["None is <imaged>."]))
    assert page.count("None is &lt;imaged&gt;.") == 1
    assert page.index("None is") < page.index('id="travel-1"')


def test_all_scores_but_the_headlines_are_folded_unless_there_are_no_others():
    table = scores(score(), score(whitening="aligned", n_correct=36), score(protocol="NSCB", n_correct=5))
    for headline, folded in (("aligned", True), ("", False)):
        _, _, after = report_html(contents(scores=table, headline=headline)).partition('<section id="scores">')
        section = after.partition("</section>")[0]
        seen = section.partition("<details>")[0]
        assert ("84.7" in seen, "84.7" in section) == (not folded, True)
        assert ("50.0" in seen) == (headline == "aligned" or not folded)


def test_a_simulated_screen_is_called_so():
    assert "simulate" not in Page(report_html(contents())).text
    assert "phenolens simulate" in Page(report_html(contents(origin="simulated"))).text


def test_realism_has_a_row_for_each_set_of_images_and_its_notes(full):
    text = Page(report_html(full)).text
    assert "VAE <small> 0.51 0.40 0.60 3.1 ± 0.2 0.00 ± 0.01 0.50 ± 0.05 1.00 ± 0.00 0.50 (0.40 to 0.60) –" in text
    assert "n = 12 cells from wells <seen>." in text


def test_a_missing_section_names_the_command_that_makes_it():
    html = report_html(contents())
    commands = {
        part.split('"')[1]: re.findall(r"<code>(phenolens \w+) s", part) for part in html.split("<section ")[1:]
    }
    assert commands == {
        "run": [],
        "activity": ["phenolens evaluate"],
        "scores": [],
        "confusion": [],
        "wrong": ["phenolens evaluate"],
        "travel": ["phenolens train"],
        "reconstructions": ["phenolens train"],
        "realism": ["phenolens realism"],
        "cells": [],
        "learning": [],
        "quality": [],
        "whitening": [],
        "left-out": [],
        "repeat": [],
        "glossary": [],
    }


def test_nothing_wrong_and_nothing_excluded_are_not_missing():
    page = report_html(contents(wrong=pd.DataFrame({"treatment": []}), excluded=pd.DataFrame({"what": []})))
    sections = {part.split('"')[1]: part for part in page.split("<section ")[1:]}
    assert [name for name in ("wrong", "left-out") if 'class="missing"' in sections[name]] == []
    assert 'class="warnings"' not in sections["learning"]
    assert "7 records" in Page(report_html(contents(warnings=[], too_few_records=7))).text


def test_a_model_without_steps_has_no_section_of_training():
    page = report_html(contents(has_steps=False))
    assert 'id="learning"' not in page
    assert "#learning" not in page
    assert 'id="learning"' in report_html(contents(has_steps=False, warnings=["the embeddings are all alike"]))


def test_the_glossary_has_this_studys_size_and_profiles():
    text = Page(report_html(contents(facts={"Model": {"latent_size": 8}}, profile="means of cells, whitened"))).text
    assert "the 8 numbers into which a model encodes" in text
    assert "The headline's profiles are means of cells, whitened." in text
    assert "256" not in text
    glossary = report_html(contents()).partition('id="glossary"')[2]
    for word in ("Aligned", "Chance", "Shuffled labels", "Cosine", "Distance", "Medoid"):
        assert f"<dt>{word}</dt>" in glossary


def test_numbers_have_a_minus_sign_no_negative_zero_and_their_percent_sign_beside_them():
    numbers = pd.DataFrame({"change": [-1.62, -0.0, 0.5], "n": [1, 2, 3]})
    page = report_html(contents(excluded=numbers, verdict="VAE+ is right (NSC 50.0 %)."))
    assert "(NSC 50.0\N{NO-BREAK SPACE}%)" in page
    assert '<td class="number">−1.62</td>' in page
    assert '<td class="number">0</td>' in page
    assert [signed(value, 1) for value in (-0.04, 0.04, -1.62, np.nan)] == ["+0.0", "+0.0", "−1.6", "–"]


def test_the_same_contents_give_the_same_bytes(full):
    assert report_html(full) == report_html(full)


@pytest.mark.slow
def test_the_same_contents_give_the_same_bytes_in_another_process():
    program = """
import numpy as np, pandas as pd
from anndata import AnnData
from phenolens.plotting.cell_images import contact_sheet
from phenolens.plotting.charts import treatment_map
from phenolens.reports.page import report_html
from test_report import contents
crops = np.random.default_rng(1).uniform(size=(3, 3, 9, 9))
obs = pd.DataFrame({"Metadata_MoA": list("abcabcabc")}, index=list("012345678"))
map_ = treatment_map(AnnData(np.random.default_rng(2).normal(size=(9, 5)), obs=obs))
sheet = contact_sheet([crops], ["x"], channels=["DNA", "ER", "RNA"])
print(report_html(contents(treatment_map=map_, cells=sheet)))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pages = {
        subprocess.run(
            [sys.executable, "-c", program], env=environment | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(pages) == 1
    assert len(pages.pop()) > 10_000


def test_a_saved_picture_is_shown_as_it_is():
    picture = SavedPicture(
        png(confusion_matrix(pd.DataFrame([[1]], index=["a"], columns=["a"]), "t")), "its <caption>", 'an "alt"'
    )
    page = Page(report_html(contents(cells=picture)))
    (image,) = (one for one in page.every("img") if one["alt"] == 'an "alt"')
    assert image["alt"] == 'an "alt"'
    assert image["src"] == "data:image/png;base64," + base64.b64encode(picture.png).decode()
    assert "its <caption>" in page.text


def test_a_picture_that_is_no_png_is_refused():
    with pytest.raises(InputError, match="not a PNG"):
        report_html(contents(cells=SavedPicture(b"GIF89a", "c", "a")))


def test_the_table_has_the_papers_columns_and_each_score_in_its_place():
    table = scores(
        score(n_correct=60),
        score(whitening="controls", n_correct=61),
        score(statistics="mean+sd", n_correct=62),
        score(statistics="mean+sd", whitening="controls", n_correct=63),
        score("pca", n_correct=36),
        score("ae", protocol="NSCB", n_correct=18),
    )
    rows = [
        (row.protocol, row.method, [cell.value for cell in row.cells])
        for row in score_rows(table, with_published=False)
    ]
    assert rows == [
        ("NSC", "VAE+", ["83.3", "84.7", "86.1", "87.5"]),
        ("NSC", "PCA of pixels", ["50.0", "–", "–", "–"]),
        ("NSCB", "AE", ["25.0", "–", "–", "–"]),
    ]


def test_each_score_stands_with_its_interval_and_counts():
    (row,) = score_rows(scores(score()), with_published=False)
    assert row.cells[0].detail == "75–92 · 61 of 72"


def test_several_seeds_become_mean_and_standard_deviation():
    table = scores(*(score(seed=seed, n_correct=n, n_treatments=100) for seed, n in ((1, 90), (2, 92), (3, 94))))
    (row,) = score_rows(table, with_published=False)
    assert (row.cells[0].value, row.cells[0].detail) == ("92.0 ± 2.0", "3 seeds, n = 100")


def test_a_score_that_could_not_be_made_is_a_dash():
    table = scores(score()).assign(accuracy=np.nan)
    assert [cell.value for cell in score_rows(table, with_published=False)[0].cells] == ["–"] * 4


def test_published_rows_are_below_ours_and_are_marked():
    rows = score_rows(scores(score(), score(protocol="NSCB")), with_published=True)
    assert [row.published for row in rows] == [False, *[True] * 5, False, *[True] * 5]
    vaeplus = rows[1]
    assert [cell.value for cell in vaeplus.cells] == ["90.6 ± 1.5", "90.3 ± 1.0", "92.2 ± 1.7", "92.9 ± 2.4"]
    nscb = [cell.value for cell in rows[7].cells]
    assert nscb == ["71.0 ± 1.2", "76.1 ± 1.1", "72.5 ± 2.3", "82.2 ± 2.6"]
    assert {row.protocol for row in TABLE_1} == {"NSC", "NSCB"}


def test_published_numbers_are_not_shown_for_another_screen(full):
    assert "Lafarge" not in report_html(contents(scores=full.scores))
    assert "Lafarge" in report_html(full)


def test_the_score_of_the_headline_is_first_in_the_table_and_bold():
    table = scores(score(), score(whitening="whitened", n_correct=54), score(whitening="aligned", n_correct=36))
    assert list(score_columns(table, "aligned").values())[:3] == ["Mean +Aligned", "Mean", "Mean +Whitened"]
    row, published = score_rows(table, with_published=True, headline="aligned")[:2]
    assert [cell.value for cell in row.cells] == ["50.0", "84.7", "75.0", "–", "–"]
    assert [cell.is_headline for cell in row.cells] == [True, False, False, False, False]
    assert [cell.value for cell in published.cells][:2] == ["–", "90.6 ± 1.5"]
    assert outside_table(table, "aligned").empty
    page = report_html(contents(scores=table, headline="aligned", profile="means of cells, whitened within treatments"))
    assert "<strong>50.0</strong>" in page
    assert "Profiles: means of cells, whitened within treatments." in Page(page).text
    assert next(iter(score_columns(table, "whitened").values())) == "Mean +Whitened"
    assert len(score_columns(table, "whitened")) == 4


def test_a_second_whitening_is_listed_below_the_table():
    table = scores(score(), score(whitening="controls"), score(whitening="per plate", n_correct=36))
    further = outside_table(table)
    assert further["whitening"].tolist() == ["per plate"]
    assert further["% right"].tolist() == ["50.0"]
    assert "per plate" in report_html(contents(scores=table))


def test_the_verdict_says_the_main_score_in_plain_words():
    assert verdict_sentence(scores(score()), chance=1 / 12, shuffled=0.07) == (
        "VAE+ matches 61 of 72 treatments to another compound of the same mechanism "
        "(NSC 84.7 %, 95 % interval 75 to 92; chance 8.3 %, shuffled labels 7.0 %)."
    )


def test_the_verdict_over_seeds_gives_their_mean_and_spread():
    table = scores(
        *(score("ae", seed, protocol="NSCB", n_correct=n, n_treatments=100) for seed, n in ((1, 70), (2, 74)))
    )
    assert verdict_sentence(table) == (
        "AE matches 72.0 of 100 treatments to another compound in another batch of the same mechanism "
        "(NSCB 72.0 ± 2.8 %, mean ± standard deviation over 2 seeds)."
    )


def test_the_verdict_takes_one_kind_of_score():
    with pytest.raises(InputError, match="2 kinds of score"):
        verdict_sentence(scores(score(), score("ae")))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (scores(score()).drop(columns=["ci_low", "seed"]), "no column seed, ci_low"),
        (scores(score(n_correct=73)), "accuracy 1.01"),
    ],
)
def test_scores_of_another_layout_are_refused(table, message):
    with pytest.raises(InputError, match=message):
        score_rows(table, with_published=False)


def test_of_many_mechanisms_the_sheet_of_cells_shows_those_of_the_strongest_treatments(tiny_study, monkeypatch):
    shown: list[list[str]] = []
    monkeypatch.setattr(compute, "contact_sheet", lambda crops, titles, **_: shown.append(titles))
    cells = tiny_study.crops.cells
    treated = cells[cells["role"] == "treated"]
    strongest = treatment_name(treated["compound"], treated["concentration_um"]).iloc[[-1]].tolist()
    compute.mechanism_sheet(tiny_study.crops, n=1, seed=0)
    monkeypatch.setattr(compute, "MOST_NAMED", 1)
    compute.mechanism_sheet(tiny_study.crops, n=1, seed=0, strongest=strongest)
    assert shown == [["DMSO", *sorted(treated["moa"].unique())], ["DMSO", treated["moa"].iloc[-1]]]


def test_the_report_is_made_of_real_cells(real_data):
    images = np.load(real_data / "bbbc021" / "crops" / "crops.npz")["images"][:12].transpose(0, 3, 1, 2).astype(float)
    crops = images / images.max(axis=(2, 3), keepdims=True)
    figure = contact_sheet([crops[:6], crops[6:]], ["first", "second"], channels=("DAPI", "actin", "tubulin"))
    images = Page(report_html(contents(cells=figure))).every("img")
    (image,) = (one for one in images if "12 real cells" in one["alt"])
    assert "12 real cells" in image["alt"]
    assert "first; second" in image["alt"]


CHANGES = {  # of what a report shows, each by itself
    "a score": lambda study: edited(study.scores_path, "0.", "0.0"),
    "a neighbour": lambda study: edited(next(study.scores_folder.rglob("neighbours_*.csv")), "taxol", "Taxol"),
    "the warnings of a training": lambda study: (study.run_folder("pca-seed0") / "health.json").write_text("{}"),
    "the model": lambda study: (study.run_folder("pca-seed0") / "checkpoint.pt").write_bytes(b"0"),
    "a run that is not scored": lambda study: shutil.copytree(study.run_folder("pca-seed0"), study.run_folder("b")),
    "realism": lambda study: made(study.realism_folder / "realism.csv"),
    "the comparison of models": lambda study: made(study.comparison_folder / "about.json"),
    "the crops": lambda study: edited(study.crops_folder / "about.json", '"crop_px"', ' "crop_px"'),
}


def edited(path, old, new):
    path.write_text(path.read_text().replace(old, new) + "\n")


def made(path):
    path.parent.mkdir()
    path.write_text("")


@pytest.fixture
def scored(explored, tmp_path) -> Study:
    return Study.open(shutil.copytree(explored.folder, tmp_path / "study"))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_the_report_shows_is_part_of_its_source(scored, change):
    before = compute.report_source(scored, compute.ReportConfig())
    assert compute.report_source(scored, compute.ReportConfig()) == before
    change(scored)
    assert compute.report_source(scored, compute.ReportConfig()) != before


def test_the_code_that_draws_it_is_part_of_a_reports_source(scored, monkeypatch, tmp_path):
    drawn_by = tmp_path / "package"
    shutil.copytree(compute.PACKAGE, drawn_by, ignore=shutil.ignore_patterns("__pycache__"))
    before = compute.report_source(scored, compute.ReportConfig())
    monkeypatch.setattr(compute, "PACKAGE", drawn_by)
    assert compute.report_source(scored, compute.ReportConfig()) == before
    edited(drawn_by / "reports" / "templates" / "report.html", "<h2>", "<h2 >")
    assert compute.report_source(scored, compute.ReportConfig()) != before


def test_settings_and_the_studys_name_are_part_of_a_reports_source(scored):
    before = compute.report_source(scored, compute.ReportConfig())
    assert compute.report_source(scored, compute.ReportConfig(shown_cells=3)) != before
    moved = Study.open(scored.folder.rename(scored.folder.with_name("other")))
    assert compute.report_source(moved, compute.ReportConfig()) != before


def test_a_report_is_drawn_again_only_when_what_it_shows_or_the_page_has_changed(scored, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(compute, "report_html", lambda contents: drawn.append(contents) or "<p>the page</p>\n")
    for name in ("_map", "neighbour_pairs", "_decoded_pictures", "mechanism_sheet", "_confusion_matrices"):
        monkeypatch.setattr(compute, name, lambda *_, **__: {})
    compute.write_report(scored, compute.ReportConfig())
    whole = scored.report_path.read_bytes()
    compute.write_report(scored, compute.ReportConfig())
    assert len(drawn) == 1
    assert "report.html: up to date, nothing to draw" in capsys.readouterr().err
    scored.report_path.write_bytes(whole.replace(b"the page", b"another"))
    compute.write_report(scored, compute.ReportConfig())
    assert (len(drawn), scored.report_path.read_bytes()) == (2, whole)
    edited(scored.scores_path, "0.", "0.0")
    compute.write_report(scored, compute.ReportConfig())
    assert len(drawn) == 3
