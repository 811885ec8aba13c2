"""The explorer: pages of whole and half-run studies, names that are none, and what protects them."""

import io
import json
import re
import socket
import subprocess
import sys
from urllib.parse import quote, unquote

import anndata
import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from page_client import Page, PageClient
from phenolens.commands.web_commands import explore
from phenolens.core.errors import InputError
from phenolens.core.files import sha256, write_h5ad, write_json, write_parquet
from phenolens.crops.store import CropStore, normalised, write_npy
from phenolens.screens.screen import treatment_name
from phenolens.study import Study
from phenolens.web.app import create_app
from phenolens.web.base import NotFoundError, address
from phenolens.web.server import listening, serve
from phenolens.web.study_view import StudyView, known

RUN = "vae-seed0"
ODD = 'mevinolin/lovastatin <b>&"µ?#%2F'  # a compound whose name holds what addresses and HTML are made of


@pytest.fixture
def study(tiny_study):
    """A study with crops in which one compound has an odd name."""
    about = json.loads((tiny_study.crops_folder / "about.json").read_text())
    first = min(tiny_study.crops.cells.query("role == 'treated'")["compound"])
    for plate in about["plates"]:
        path = tiny_study.crops_folder / f"{plate}.parquet"
        table = pd.read_parquet(path)
        write_parquet(path, table.assign(compound=table["compound"].replace(first, ODD)), about={})
    return tiny_study


@pytest.fixture
def scored(study, rng):
    """The study with a run whose embeddings, profiles and neighbours are made up."""
    run_of(study, rng)
    return study


def run_of(study, rng):
    store = study.crops
    cells = store.cells.assign(treatment=treatment_name(store.cells["compound"], store.cells["concentration_um"]))
    config = {"config": {"model": "vae", "seed": 0, "steps": 1}}
    write_json(study.run_folder(RUN) / "config.json", config)
    write_json(study.run_folder(RUN) / "health.json", {})
    for plate in store.plates:
        z = rng.normal(size=((cells["plate"] == plate).sum(), 4)).astype(np.float32)
        about = {"crops": store.identity, "made_from": plate, "config": {"steps": 1}}
        uns = {"phenolens": json.dumps(about)}
        write_h5ad(study.embeddings_folder(RUN) / f"{plate}.h5ad", anndata.AnnData(X=z, uns=uns))
    treated = cells[cells["role"] == "treated"].drop_duplicates("treatment").sort_values("treatment")
    names = {"Treatment": "treatment", "Compound": "compound", "MoA": "moa"}
    obs = pd.DataFrame({f"Metadata_{name}": treated[column].to_numpy() for name, column in names.items()})
    angles = np.linspace(0, 1.5, len(obs))  # profiles on a quarter circle: neighbours are the rows beside
    obs.index = obs.index.astype(str)
    profiles = anndata.AnnData(X=np.stack([np.cos(angles), np.sin(angles)], axis=1), obs=obs)
    write_h5ad(study.profiles_folder(RUN) / "treatments_mean_whitened.h5ad", profiles)
    about = {"embeddings": list(store.plates), "made_from": "profiles", "config": {}}
    write_json(study.profiles_folder(RUN) / "about.json", about)
    shifted = treated.assign(
        counted=True,
        reason="",
        neighbour=np.roll(treated["treatment"], 1),
        predicted=np.roll(treated["moa"], 1),
        distance=0.25,
        right=np.roll(treated["moa"], 1) == treated["moa"].to_numpy(),
    )
    (study.scores_folder / RUN).mkdir(parents=True)
    shifted.to_csv(study.scores_folder / RUN / "neighbours_NSC_mean_whitened.csv", index=False)
    write_json(study.scores_folder / "about.json", {"profiles": {RUN: "profiles"}, "config": {}})
    score = dict(accuracy=0.625, n_treatments=8, n_correct=5, ci_low=0.3, ci_high=0.9)
    kind = dict(model="vae", seed=0, statistics="mean", whitening="whitened", protocol="NSC")
    pd.DataFrame([kind | score]).to_csv(study.scores_path, index=False)


def browser(study):
    return PageClient(create_app(study))


def odd_treatment(study):
    return next(name for name in StudyView(study).cells().catalogue.treatments.index if name.startswith(ODD))


def everything(folder):
    return {str(path): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels(png):
    """The colours (S, S, 3), 0 to 1, of a PNG."""
    return matplotlib.image.imread(io.BytesIO(png), format="png")


def test_every_link_and_picture_of_every_page_leads_somewhere_and_none_leaves(scored):
    client, todo, seen = browser(scored), ["/"], {}
    while todo:
        path = todo.pop()
        seen[path] = client.got(path)
        page = Page(seen[path].text if "html" in seen[path].headers["content-type"] else "")
        assert {link for link in page.links if not link.startswith(("/", "#"))} == set()
        assert {link for link in page.links if link.startswith("//")} == set()
        inner = {link.partition("#")[0] for link in page.links if "draw=" not in link and "cells.png" not in link} - {
            ""
        }
        todo += sorted(inner - set(seen) - set(todo))
    kinds = {path.split("/")[1].split("?")[0] for path in seen}
    pages = {"", "plates", "wells", "treatments", "map", "travel", "downloads"}
    assert kinds == pages | {"cells", "plotly", "static"}
    wells = scored.crops.cells[["plate", "well"]].drop_duplicates()
    assert {f"/wells/{row.plate}/{row.well}" for row in wells.itertuples()} <= set(seen)


def test_pages_have_no_script_and_no_style_of_their_own_and_every_picture_has_words(scored):
    client, name = browser(scored), odd_treatment(scored)
    cell = scored.crops.cells.iloc[0]
    for path in ("/", f"/plates/{cell.plate}", f"/wells/{cell.plate}/{cell.well}", address("treatments", name), "/no"):
        page = Page(client.get(path).text)
        assert {tag for tag, _ in page.tags} & {"script", "style", "iframe", "object", "base"} == set()
        assert [named for _, named in page.tags if any(key.startswith(("on", "style")) for key in named)] == []
        assert [image for image in page.images if not image["alt"].startswith("Cell ")] == []


def test_every_answer_forbids_scripts_frames_and_guessing_of_types(study):
    for path in ("/", "/nowhere", "/static/explorer.css", "/plates/x", "/wells/a/b?page=0", "/cells/x.png"):
        headers = browser(study).get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; img-src 'self'; style-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")


def test_home_counts_the_screen(scored):
    cells = scored.crops.cells
    facts = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", browser(scored).get("/").text))
    treated = cells[cells["role"] == "treated"]
    assert facts["cells"] == f"{len(cells):,}"
    assert facts["plates"] == str(cells["plate"].nunique())
    assert facts["wells"] == str(len(cells.groupby(["plate", "well"])))
    assert facts["treatments"] == str(len(treated.groupby(["compound", "concentration_um"])))
    assert (facts["mechanisms"], facts["models"]) == (str(treated["moa"].nunique()), "1")


def test_home_says_the_score_in_a_sentence_and_marks_the_wrong_treatments(scored):
    html = browser(scored).get("/").text
    table = StudyView(scored).matches(RUN)["NSC"]
    assert "VAE matches 5 of 8 treatments" in html
    assert html.count("(wrong under NSC)") == (~table["right"]).sum() > 0


def test_a_treatment_with_a_slash_and_markup_in_its_name_has_a_page_that_shows_it_as_text(scored):
    name = odd_treatment(scored)
    page = Page(browser(scored).got(address("treatments", name)).text)
    assert ODD in page.text
    assert [tag for tag, _ in page.tags if tag == "b"] == []


def test_a_name_is_one_piece_of_an_address_so_that_browsers_do_not_resolve_its_dots():
    assert address("treatments", "../b c@1", run="r&s", draw="") == "/treatments/..%2Fb%20c%401?run=r%26s"


def test_a_plates_wells_stand_in_its_shape_with_their_numbers_of_cells(study):
    cells = study.crops.cells
    plate = cells["plate"].iloc[0]
    html = browser(study).got(address("plates", plate)).text
    counts = cells[cells["plate"] == plate].groupby("well").size().to_dict()
    shown = re.findall(r'href="/wells/[^/]+/(\w+)".*?<b>(\d+)</b>', html)
    assert [(well, int(count)) for well, count in shown] == sorted(counts.items())  # by row, then column


def test_a_well_shows_each_of_its_cells_once_over_its_pages(study, monkeypatch):
    monkeypatch.setattr("phenolens.web.plates_page.WELL_CELLS", 3)
    cells, client = study.crops.cells, browser(study)
    plate, well = cells.iloc[0][["plate", "well"]]
    expected = cells[(cells["plate"] == plate) & (cells["well"] == well)]["cell_id"].tolist()
    n_pages = -(-len(expected) // 3)
    htmls = [client.got(address("wells", plate, well, page=page)).text for page in range(1, n_pages + 1)]
    assert re.findall(r'src="/cells/([^"?]+)\.png', "".join(htmls)) == expected
    assert "Go to page 1" in client.got(address("wells", plate, well, page=n_pages + 1), 404).text


def test_the_nearest_cells_are_those_of_the_slow_definition(scored):
    name, store = odd_treatment(scored), scored.crops
    tables = [anndata.read_h5ad(scored.embeddings_folder(RUN) / f"{plate}.h5ad").X for plate in store.plates]
    z = np.concatenate(tables).astype(float)
    mine = [
        row
        for row, cell in enumerate(store.cells.itertuples())
        if cell.compound == ODD and not cell.is_noise and f"{ODD}@{cell.concentration_um:g}" == name
    ]
    mean = sum(z[row] for row in mine) / len(mine)
    away = {row: float(np.sqrt(((z[row] - mean) ** 2).sum())) for row in mine}
    nearest = StudyView(scored).nearest_to_mean(RUN, name, n=3)
    assert list(nearest) == sorted(away, key=away.__getitem__)[:3]
    np.testing.assert_allclose(list(nearest.values()), [away[row] for row in nearest], rtol=1e-12)


def test_the_nearest_treatments_are_the_ones_beside_it_on_the_circle(scored):
    explorer = StudyView(scored)
    names = sorted(explorer.cells().catalogue.treatments.query("role == 'treated'").index)
    near = explorer.neighbours(RUN, names[3]).head(2)
    assert set(near["treatment"]) == {names[2], names[4]}
    np.testing.assert_allclose(near["cosine_distance"], 1 - np.cos(1.5 / (len(names) - 1)), atol=1e-9)


def test_a_treatments_page_says_who_its_neighbour_was_and_whether_that_was_right(scored):
    name = odd_treatment(scored)
    row = StudyView(scored).matches(RUN)["NSC"].loc[name]
    text = " ".join(Page(browser(scored).got(address("treatments", name)).text).text.split())
    words = "NSC: ✓ correct." if row.right else "NSC: ✗ wrong."
    assert words in text
    neighbour = f"{row.neighbour.replace('@', ' ')} µM"
    assert f"the nearest is {neighbour} ({row.predicted}), at cosine distance 0.250." in text


def test_random_cells_are_of_the_treatment_and_the_same_for_the_same_address(study):
    cells, name = StudyView(study).cells(), odd_treatment(study)
    drawn = [cells.random(name, 4, draw=draw).tolist() for draw in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert set(cells.catalogue.cells.iloc[drawn[0]]["compound"]) == {ODD}


def test_noise_and_wells_of_positive_controls_are_not_a_treatments_cells(study):
    path = next(study.crops_folder.glob("*.parquet"))
    table, about = pd.read_parquet(path), json.loads((study.crops_folder / "about.json").read_text())
    name = f"{ODD}@{table.loc[table['compound'] == ODD, 'concentration_um'].iloc[0]:g}"
    ours = table.index[table["compound"] == ODD]
    control = table.index[table["role"] == "control"][0]
    table.loc[ours[0], "is_noise"] = True
    same = ["compound", "concentration_um", "moa"]
    well = table["well"] == table.loc[control, "well"]
    table.loc[well, same] = table.loc[ours[1], same].to_numpy()
    table.loc[well, "role"] = "other"
    write_parquet(path, table, about=about)
    rows = StudyView(study).cells().catalogue.rows_of(name)
    shown = set(study.crops.cells.iloc[rows]["cell_id"]) & set(table["cell_id"])
    assert shown == set(table.loc[ours[1:], "cell_id"])


def test_a_well_says_why_a_cell_is_flagged_and_whether_it_is_left_out(study):
    path = next(study.crops_folder.glob("*.parquet"))
    table, about = pd.read_parquet(path), json.loads((study.crops_folder / "about.json").read_text())
    well = table["well"].mode()[0]
    first, second = table.index[table["well"] == well][:2]
    table.loc[well == table["well"], "flags"] = ""
    table.loc[[first, second], "flags"] = ["noise in actin; out of focus", "saturated in DNA"]
    table.loc[first, "is_noise"] = True
    write_parquet(path, table, about=about)
    text = browser(study).got(address("wells", table["plate"][0], well)).text
    assert "1 flagged and left out of training and profiles" in text
    assert "<span>noise in actin; out of focus, left out</span>" in text
    assert "<span>saturated in DNA</span>" in text
    assert f', well {well}, flagged: saturated in DNA"' in text


def test_a_cells_picture_is_its_crop_in_the_colours_of_its_channels(study):
    store, cells = study.crops, StudyView(study).cells()
    crop, contrast = normalised(store.take([5]))[0], cells.contrast
    stretched = np.clip((crop - contrast.black[:, None, None]) / (contrast.white - contrast.black)[:, None, None], 0, 1)
    expected = np.clip(sum(plane[..., None] * colour for plane, colour in zip(stretched, contrast.colours)), 0, 1)
    answer = browser(study).get(address("cells", f"{store.cells['cell_id'][5]}.png"))
    assert answer.headers["content-type"] == "image/png"
    np.testing.assert_allclose(pixels(answer.content)[..., :3], expected, atol=0.5 / 255 + 1e-6)


def test_one_channel_is_shown_in_grey(study):
    store = study.crops
    answer = browser(study).got(address("cells", f"{store.cells['cell_id'][0]}.png", channel=store.channels[1]))
    red, green, blue = np.moveaxis(pixels(answer.content)[..., :3], -1, 0)
    np.testing.assert_array_equal(red, green)
    np.testing.assert_array_equal(red, blue)
    assert red.max() > 0.5


def test_a_picture_is_kept_by_the_browser_only_under_an_address_that_names_the_crops(study):
    store, client = study.crops, browser(study)
    cell = f"{store.cells['cell_id'][0]}.png"
    kept = {v: client.get(address("cells", cell, v=v)).headers["cache-control"] for v in ("", "old")}
    assert kept == {"": "no-cache", "old": "no-cache"}
    named = client.get(address("cells", cell, v=store.identity[:12])).headers["cache-control"]
    assert named == "private, max-age=31536000, immutable"


def test_dividing_by_the_maximum_leaves_a_channel_of_zeros_at_zero():
    crops = np.zeros((1, 2, 2, 2), np.uint16)
    crops[0, 0] = [[0, 50], [100, 200]]
    np.testing.assert_array_equal(normalised(crops)[0, 0], [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(normalised(crops)[0, 1], np.zeros((2, 2)))


TRICKS = ["../../study.json", "..\\study.json", "/etc/passwd", "a\0b", "￾", "é" * 5000, "9" * 300, "%2e%2e", "<script>"]


@pytest.mark.parametrize("page", ["/plates/{}", "/wells/{}/B02", "/treatments/{}", "/cells/{}.png", "/{}"])
def test_a_name_that_is_none_gets_a_page_that_says_what_to_do(study, page):
    client = browser(study)
    for trick in TRICKS:
        html = client.got(page.format(quote(trick, safe="")), 404).text
        assert '<a href="/">Home' in html
        assert "<script>" not in html
        assert "root:" not in html


@pytest.mark.parametrize("query", ["run=../..", "run=nothing", "channel=..%2F", "channel=x-ray"])
def test_a_run_or_channel_that_is_none_is_named_with_those_there_are(scored, query):
    answer = browser(scored).got(f"{address('treatments', odd_treatment(scored))}?{query}", 404)
    assert unquote(query.partition("=")[2]) in answer.text
    assert "did you mean" in answer.text or "there are:" in answer.text


def test_a_page_number_that_is_none_is_refused_in_words(study):
    client, cell = browser(study), study.crops.cells.iloc[0]
    for number in ("0", "-1", "x", "1e9", "9" * 5000, "%00", "NaN"):
        html = client.got(f"/wells/{cell.plate}/{cell.well}?page={number}", 422).text
        assert "Take page out of the address" in html


def test_the_nearest_name_is_offered():
    with pytest.raises(NotFoundError, match=r'did you mean "taxol@0\.3"'):
        known("taxol@0.4", ["taxol@0.3", "DMSO@0"], what="treatment")


def test_only_looking_is_allowed(study):
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = browser(study).request(method, "/")
        assert answer.status_code == 405
        assert "changes nothing" in answer.text


def test_a_request_under_another_hosts_name_is_refused(study):
    for host, status in (("evil.example", 400), ("127.0.0.1.evil.example", 400), ("localhost:8000", 200)):
        answer = browser(study).get("/", headers={"Host": host})
        assert answer.status_code == status
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_looking_at_everything_changes_no_file_of_the_study(scored):
    before, client = everything(scored.folder), browser(scored)
    cell = scored.crops.cells.iloc[0]
    for path in ("/", f"/plates/{cell.plate}", f"/wells/{cell.plate}/{cell.well}", f"/cells/{cell.cell_id}.png"):
        client.got(path)
    client.got(address("treatments", odd_treatment(scored), run=RUN))
    assert everything(scored.folder) == before


def test_a_study_without_crops_says_how_to_make_them_and_shows_them_once_they_are_there(tmp_path, tiny_study):
    study = Study.create(tmp_path / "new")
    client = browser(study)
    assert f"phenolens crop {study.folder} --source" in client.got("/").text
    for path in (
        "/plates",
        "/plates/x",
        "/wells/x/B02",
        "/map",
        "/map?of=cells",
        "/treatments/x",
        "/travel",
        "/report",
    ):
        assert f"phenolens crop {study.folder}" in client.got(path, 404).text
    tiny_study.crops_folder.rename(study.crops_folder)
    assert "The screen" in client.got("/").text


def test_each_half_run_state_shows_what_there_is_and_names_the_next_command(study, rng):
    client = browser(study)
    name = odd_treatment(study)

    def home_says(command):
        client.got(address("treatments", name))
        return f"phenolens {command} {study.folder}" in client.got("/").text

    assert home_says("train")
    run_of(study, rng)
    assert home_says("report")
    study.scores_path.unlink()
    assert home_says("evaluate")
    (study.profiles_folder(RUN) / "about.json").unlink()
    assert home_says("profile")
    next(study.embeddings_folder(RUN).glob("*.h5ad")).unlink()
    assert home_says("embed")
    assert "no embeddings of these cells" in client.get(address("treatments", name)).text
    (study.run_folder(RUN) / "health.json").unlink()
    assert home_says("train")


def test_embeddings_of_other_crops_are_not_shown(scored):
    about = scored.crops_folder / "about.json"
    about.write_text(about.read_text() + "\n")  # the crops' identity is the hash of this file
    assert StudyView(scored).nearest_to_mean(RUN, odd_treatment(scored), n=3) == {}


def test_damaged_crops_are_told_in_words(study):
    next(study.crops_folder.glob("*.npy")).write_bytes(b"short")
    answer = browser(study).got("/plates/x", 500)
    assert "damaged" in answer.text
    assert "damaged" in browser(study).got("/").text


def test_the_report_is_served_with_its_one_style_allowed_by_hash(scored):
    client = browser(scored)
    assert "phenolens report" in client.got("/report", 404).text
    scored.report_path.write_text("<title>r</title><style>p { color: red }</style><main><p>words")
    answer = client.got("/report")
    # printf 'p { color: red }' | openssl dgst -sha256 -binary | base64
    assert (
        "style-src 'sha256-ngewhhP73WDIbgwseeu52VAAJgKdGUsu1IUQQsAm8m4='" in answer.headers["content-security-policy"]
    )
    assert "words" in answer.text
    assert '<a href="/">Back' in answer.text
    assert '<a href="/report">' in client.got("/").text


def test_every_compounds_control_and_doses_stand_together_by_dose(study):
    cells = StudyView(study).cells()
    series = cells.doses_of(odd_treatment(study))
    assert series["role"].iloc[0] == "control"
    assert set(series["compound"][1:]) == {ODD}
    assert series["concentration_um"].is_monotonic_increasing


def test_the_list_of_treatments_shows_a_control_without_a_dose(study):
    names = StudyView(study).cells().catalogue.treatments
    (control,) = names.index[names["role"] == "control"]
    assert names.loc[control, "concentration_um"] == 0
    link = address("treatments", control)
    (said,) = re.findall(
        rf'<span class="compound">[^<]+</span> <span class="doses"><a href="{link}.*', browser(study).got("/").text
    )
    assert said.endswith("</span>no dose</a> </span></li>")


def test_a_screen_without_controls_or_mechanisms_is_shown_too(tmp_path, study):
    table = study.crops.cells.head(3).assign(role="other", moa=None, plate="P", is_noise=True)
    about = json.loads((study.crops_folder / "about.json").read_text())
    crops = study.crops.take([0, 1, 2])
    folder = tmp_path / "bare" / "crops"
    plate = next(iter(about["plates"].values()))
    write_npy(folder / "P.npy", [crops], crops.shape)
    write_parquet(folder / "P.parquet", table, about={})
    write_json(folder / "about.json", about | {"plates": {"P": plate | {"n_crops": 3}}})
    assert len(CropStore.open(folder)) == 3
    client = browser(Study.create(study.folder).__class__(tmp_path / "bare"))
    name = treatment_name(table["compound"], table["concentration_um"]).iloc[0]
    assert "mechanism not known" in client.got("/").text
    assert "are flagged and left out" in client.got(address("treatments", name)).text


def test_a_port_in_use_is_one_line_that_says_what_to_do():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port}: address already in use"):
            listening(port)
        with pytest.raises(InputError, match="already in use"):  # before a study is opened
            serve(lambda: pytest.fail("opened"), port=port, verb="explore", message=str)
    with pytest.raises(InputError, match="out of range"):
        listening(65536)


def test_it_listens_on_this_machine_alone():
    with listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_missing_extra_is_named_with_its_install_line(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r'uvicorn is not installed; explore needs: pip install "phenolens\[web\]"'):
        explore(study)


def test_the_web_room_answers_without_torch():
    code = "import sys, phenolens.web.app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
