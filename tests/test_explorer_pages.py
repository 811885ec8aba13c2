"""The map, the travel, plates and downloads as addresses: what they hold, and what they refuse."""

import asyncio
import io
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from urllib.parse import quote

import h5py
import httpx
import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from described import try_every_operation
from page_client import PageClient
from phenolens.core.colours import cell_image
from phenolens.core.files import alone, write_parquet
from phenolens.core.number_text import change_text
from phenolens.embedding_files import mapped_embeddings
from phenolens.morphology.features import short_name
from phenolens.printing import print_result
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.scores import headline_lines
from phenolens.study import Study
from phenolens.travels.compute import TravelConfig, Traveller
from phenolens.web import treatment_page, umap_map
from phenolens.web.app import create_app, prepare
from phenolens.web.base import address
from phenolens.web.study_view import StudyView
from phenolens.web.umap_map import MapQuery
from test_explorer import TRICKS, everything
from travelling_study import LONELY, RUN, SERIES

ASKED = f"run={RUN}&of=cells&projection=pca"


@pytest.fixture(scope="module")
def study(explored):
    return explored


@pytest.fixture(scope="module")
def visitor(study):
    return PageClient(create_app(study))


def counted(study):
    return study.crops.cells.query("not is_noise")


def test_a_maps_numbers_come_as_plain_bytes_a_place_and_a_group_a_point(study, visitor):
    n = len(counted(study))
    places = np.frombuffer(visitor.got(f"/map/places.bin?{ASKED}").content, "<f4").reshape(2, -1)
    codes = np.frombuffer(visitor.got(f"/map/groups.bin?{ASKED}&by=mechanism").content, "<u2")
    groups = visitor.got(f"/map/groups.json?{ASKED}&by=mechanism").json()
    assert (places.shape, len(codes)) == ((2, n), n)
    assert [group["count"] for group in groups] == np.bincount(codes).tolist()
    assert groups[0]["name"] == "control"


def test_a_point_of_the_map_is_the_cell_that_its_group_says(study, visitor):
    codes = np.frombuffer(visitor.got(f"/map/groups.bin?{ASKED}&by=plate").content, "<u2")
    groups = visitor.got(f"/map/groups.json?{ASKED}&by=plate").json()
    points = visitor.got(f"/map/points.json?{ASKED}&numbers=0,7,19").json()
    for number, point in zip((0, 7, 19), points):
        assert f"plate {groups[codes[number]]['name']}," in point["where"]
        assert visitor.got(point["picture"]).headers["content-type"] == "image/png"
        assert visitor.got(point["link"])


def test_a_point_of_the_map_of_treatments_shows_the_cell_nearest_to_its_mean(study, visitor):
    (point,) = visitor.got(f"/map/points.json?run={RUN}&of=treatments&projection=pca&numbers=0").json()
    name = re.search(r"/treatments/([^?]+)", point["link"])[1].replace("%40", "@").replace("%2F", "/")
    explorer = StudyView(study)
    nearest = next(iter(explorer.nearest_to_mean(RUN, name, n=1)))
    assert explorer.cells().catalogue.cells["cell_id"].iloc[nearest] in point["picture"]


def test_what_is_looked_for_is_found_by_compound_mechanism_well_or_cell(study, visitor):
    cells = counted(study)
    mechanism = cells["moa"].dropna().max()
    for text, expected in [
        ("TWO/Doses", (cells["compound"] == SERIES).sum()),
        (mechanism, (cells["moa"] == mechanism).sum()),
        (cells["cell_id"].iloc[3], 1),
        ("no such thing", 0),
    ]:
        found = visitor.got(f"/map/found.json?{ASKED}&text={quote(text)}").json()
        assert (found["n"], len(found["numbers"])) == (expected, expected)


@pytest.mark.parametrize("numbers", ["", "x", "-1", "1,,2", "9" * 30, ",".join(["1"] * 33), "1;DROP TABLE cells"])
def test_numbers_of_points_that_are_none_are_refused(visitor, numbers):
    visitor.got(f"/map/points.json?{ASKED}&numbers={quote(numbers)}", 422)


def test_a_number_beyond_the_map_says_how_many_points_there_are(study, visitor):
    answer = visitor.got(f"/map/points.json?{ASKED}&numbers=999999999", 404)
    assert f"This map has {len(counted(study))} points" in answer.text


def test_only_the_map_may_compile_scripts_and_no_page_may_take_any_from_elsewhere(visitor):
    policies = {
        path: visitor.got(path).headers["content-security-policy"] for path in ("/", "/map", "/travel", "/plates")
    }
    assert [path for path, policy in policies.items() if "unsafe" in policy] == ["/map"]
    assert [path for path, policy in policies.items() if "script-src" in policy] == ["/map", "/travel"]
    assert [path for path, policy in policies.items() if "http" in policy or "*" in policy] == []


def test_a_frame_is_the_travellers_picture_in_the_contrast_of_all_cells(study, visitor):
    traveller = Traveller.open(study, RUN)
    (journey,) = traveller.travel(TravelConfig(to=f"{SERIES}@10", way="line", frames=5))
    path = address("travel", "frame-3.png", to=f"{SERIES}@10", way="line", frames=5, run=RUN)
    shown = matplotlib.image.imread(io.BytesIO(visitor.got(path).content), format="png")[..., :3]
    expected = cell_image(journey.pictures[2], StudyView(study).cells().contrast)
    np.testing.assert_allclose(shown, expected, atol=0.5 / 255 + 1e-6)


def test_a_channel_alone_leaves_the_other_channels_black(study, visitor):
    path = address("travel", "frame-1.png", to=SERIES, channels=["DNA"])
    shown = matplotlib.image.imread(io.BytesIO(visitor.got(path).content), format="png")[..., :3]
    assert shown[..., 0].max() > 0.3
    assert shown[..., 1:].max() == 0


@pytest.mark.parametrize(
    ("channels", "named"),
    [
        (["DNA"], "DNA red. Simulated"),
        (["actin", "tubulin"], "tubulin green, actin blue. Simulated"),
        ([""], "no channel is shown. Simulated"),
    ],
)
def test_a_travel_with_channels_switched_off_has_an_address_that_opens(visitor, channels, named):
    asked = {"to": SERIES, "frames": 2, "channels": channels}
    html = visitor.got(address("travel", **asked)).text
    assert f'<p class="note">{named}' in html
    assert len(re.findall(r'name="channels" value="[^"]*" checked', html)) == len([*filter(None, channels)])
    assert visitor.got(address("travel", "strip.png", **asked)).content.startswith(b"\x89PNG")
    frame = visitor.got(address("travel", "frame-1.png", **asked)).content
    assert (matplotlib.image.imread(io.BytesIO(frame), format="png")[..., :3].max() > 0) == (channels != [""])


def test_without_a_treatment_in_the_address_the_travel_leads_to_the_one_that_differs_most(study, visitor):
    activity = pd.read_csv(study.activity_path(RUN))
    cells = Catalogue.of(study.crops.cells)
    far = activity[activity["name"].isin(cells.treatments.query("role == 'treated' and n_cells > 0").index)]
    first = far.loc[far["distance"].idxmax(), "name"]
    assert f"to {cells.label(first)}</h1>" in visitor.got("/travel").text


def test_the_travels_page_shows_every_frame_its_nearest_real_cell_and_what_was_measured(study, visitor):
    html = visitor.got(address("travel", to=f"{SERIES}@10", frames=4)).text
    (journey,) = Traveller.open(study, RUN).travel(TravelConfig(to=f"{SERIES}@10", frames=4))
    assert len(re.findall(r"<a [^>]*data-frame=", html)) == 4
    for cell in journey.nearest:
        assert f"cell_id={cell.cell_id}" in html
    name = journey.shown_measures(1)[0]
    for change in (journey.measured.change[name].iloc[-1], journey.change.table["real"][name]):
        assert f'<td class="number">{change_text(change)}</td>' in html
    assert str(journey.change.n_treated) + " treated" in html
    assert "same direction" in html
    assert "✓ yes" not in html  # a change in the same direction may be much too small
    assert "The same direction is not the same size" in html


def test_a_treatments_populations_are_those_that_a_travel_to_medoids_leads_to(study, visitor):
    traveller = Traveller.open(study, RUN)
    name = traveller.catalogue.treatments.query("role == 'treated'")["n_cells"].idxmax()
    targets = traveller.targets(name, TravelConfig(name, targets="medoids"))
    section = visitor.got(address("treatments", name)).text.partition('id="populations"')[2].partition("</section>")[0]
    groups = section.split('class="dose"')[1:]
    medoids = [re.search(r'alt="Cell ([^:]+):', group)[1] for group in groups]
    assert medoids == [traveller.real_cell(target.row).cell_id for target in targets]
    for number, (group, target) in enumerate(zip(groups, targets), start=1):
        assert f"{100 * target.population.share:.0f} % of the cells" in group
        html = visitor.got(re.search(r'href="(/travel[^"]+)"', group)[1].replace("&amp;", "&")).text
        assert f"The simulated cell at the end: {traveller.real_cell(target.row).label}, {medoids[number - 1]}" in html
    lonely = visitor.got(address("treatments", traveller.catalogue.find_treatment(LONELY))).text
    assert "Too few cells to find populations: 1," in lonely


def test_a_travel_can_start_from_the_id_of_any_cell(study, visitor):
    start = counted(study).query("role == 'treated'")["cell_id"].iloc[0]
    html = visitor.got(address("travel", to=f"{SERIES}@10", start=start)).text
    assert f'alt="The real cell at the start: {Traveller.open(study, RUN).real_cell(0).label}' not in html
    assert start in html


def test_a_treatment_of_one_cell_and_all_doses_can_be_travelled_to(visitor):
    assert f"From DMSO to {LONELY}" in visitor.got(address("travel", to=LONELY)).text
    assert "From DMSO to two/doses 10 µM" in visitor.got(address("travel", to=f"{SERIES}@10", doses="true")).text


@pytest.mark.parametrize(
    "query", ["to=taxxol", "to=DMSO%400", "start=nobody", "populations=4&to=lonely", "doses=true&populations=2"]
)
def test_a_travel_that_cannot_be_is_told_in_words_on_its_page(visitor, query):
    html = visitor.got(f"/travel?{query}").text
    assert 'class="missing"' in html
    assert "Travel: the effect of a treatment on a cell" in html


@pytest.mark.parametrize(
    "query",
    [
        "frames=1",
        "frames=9999999999",
        "way=fly",
        "brightness=0",
        "brightness=1e9",
        "populations=x",
        "frame=-1",
        "doses=%00",
    ],
)
def test_numbers_and_ways_that_cannot_be_are_refused(visitor, query):
    assert f"Take {query.partition('=')[0]} out of the address" in visitor.got(f"/travel?{query}", 422).text


@pytest.mark.parametrize(
    "path",
    [
        "/travel?run={}",
        "/map?run={}",
        "/travel/cell.png?cell_id={}",
        "/downloads/cells.csv?treatment={}",
        "/downloads/neighbours.csv?treatment={}",
        "/plates?measure={}",
        "/travel?channels={}",
    ],
)
def test_a_name_that_is_none_is_refused_in_words_wherever_it_stands(visitor, path):
    for trick in TRICKS:
        answer = visitor.got(path.format(quote(trick, safe="")), 404, 422)
        assert '<a href="/">Home' in answer.text
        assert "<script>" not in answer.text
        assert "root:" not in answer.text


def test_downloads_hold_every_neighbour_and_every_cell_of_the_treatment(study, visitor):
    name = f"{SERIES}@10"
    cells = pd.read_csv(io.BytesIO(visitor.got(address("downloads", "cells.csv", treatment=name, run=RUN)).content))
    rows = StudyView(study).cells().catalogue.rows_of(name)
    assert cells["cell_id"].tolist() == study.crops.cells["cell_id"].iloc[rows].tolist()
    near = pd.read_csv(io.BytesIO(visitor.got(address("downloads", "neighbours.csv", treatment=name, run=RUN)).content))
    assert near["cosine_distance"].is_monotonic_increasing
    assert name not in set(near["treatment"])
    assert (
        len(near) == study.crops.cells.query("role == 'treated'").groupby(["compound", "concentration_um"]).ngroups - 1
    )
    picture = visitor.got(address("downloads", "cells.png", treatment=name, run=RUN))
    assert picture.content.startswith(b"\x89PNG")
    assert 'filename="cells_two-doses@10_pca-seed0.png"' in picture.headers["content-disposition"]


def test_a_travel_is_taken_along_as_film_strip_and_numbers(visitor):
    asked = {"to": f"{SERIES}@10", "frames": 3}
    numbers = pd.read_csv(io.BytesIO(visitor.got(address("travel", "frames.csv", **asked)).content))
    assert numbers["frame"].tolist() == [1, 2, 3]
    assert {"cosine", "nearest_cell", "nucleus_area_px"} <= set(numbers)
    assert visitor.got(address("travel", "film.gif", **asked)).content.startswith(b"GIF8")
    assert visitor.got(address("travel", "strip.png", **asked)).content.startswith(b"\x89PNG")


def test_plates_stand_side_by_side_and_each_wells_shade_is_the_same_on_its_own_page(study, visitor):
    all_of_them = visitor.got("/plates?measure=distance").text
    assert "often an artefact: check the layout before you call it biology" in all_of_them
    plate = study.crops.plates[0]
    own = visitor.got(address("plates", plate, measure="distance")).text
    small = re.findall(
        r'<td class="(shade-\d) \w*" title="(\w+): ([\d.]+)"',
        all_of_them.split(f">{plate}</a>")[1].split("</table>")[0],
    )
    large = re.findall(r'<td class="(shade-\d) \w*"><a href="/wells/[^/]+/(\w+)".*?<b>([\d.]+)</b>', own)
    assert sorted(small) == sorted(large)
    assert len(small) == study.crops.cells.query("plate == @plate")["well"].nunique()


def test_a_feature_of_the_profile_has_two_sides(visitor):
    feature = re.search(r"<option>(\w+_mean)</option>", visitor.got("/plates").text)[1]
    html = visitor.got(address("plates", measure=feature)).text
    assert 'class="below-' in html
    assert "standard deviations of the control wells" in html


def test_looking_at_maps_travels_and_plates_changes_no_file_of_the_study(study, visitor):
    before = everything(study.folder)
    for path in (f"/map/places.bin?{ASKED}", "/travel", "/travel/film.gif?frames=2", "/plates?measure=distance"):
        visitor.got(path)
    assert everything(study.folder) == before


def test_a_study_without_models_says_on_every_page_what_comes_next(tiny_study):
    visitor = PageClient(create_app(tiny_study))
    for path in ("/map", "/map?of=cells", "/travel", "/plates"):
        html = visitor.got(path).text
        assert "phenolens train" in html
        assert "<script" not in html
    answer = visitor.got("/map/places.bin?run=&of=cells&projection=pca", 404)
    assert "phenolens train" in answer.text
    assert "phenolens train" in visitor.got("/travel/frame-1.png", 404).text


@pytest.mark.slow
def test_whatever_its_description_allows_is_answered_without_an_error(study, monkeypatch):
    """Schemathesis makes requests from the OpenAPI description: a server error is a bug."""
    monkeypatch.setattr(
        umap_map, "umap_places", lambda rows, **how: np.asarray(rows[:, :2], np.float32)
    )  # a minute each
    app = create_app(study, hosts=("*",))
    asked = set()

    def check(case):
        answer = case.call(base_url="http://127.0.0.1")
        assert answer.status_code < 500, (case.method, case.path, case.query, answer.text)
        asked.add(case.path)

    try_every_operation(app, check, max_examples=4)
    assert asked == set(app.openapi()["paths"])


def test_a_run_that_is_not_embedded_is_told_its_own_next_command_not_another_runs(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "study")
    half = Study.open(tmp_path / "study")
    shutil.rmtree(half.embeddings_folder(RUN))
    shutil.copytree(half.run_folder(RUN), half.run_folder("unfinished"))
    (half.run_folder("unfinished") / "health.json").unlink()
    visitor = PageClient(create_app(half))
    for path in (f"/map?run={RUN}&of=cells", f"/treatments/{quote(SERIES + '@10', safe='')}?run={RUN}"):
        html = visitor.got(path).text
        assert f"Next: <code>phenolens embed {half.folder}</code>" in html
        assert "--name unfinished" not in html
    home = visitor.got("/").text
    assert f"Next: <code>phenolens embed {half.folder}</code>" in home
    assert "--name unfinished" in home
    assert f"delete <code>{half.run_folder('unfinished')}</code>" in home
    with alone(half.training_lock("unfinished"), doing="training"):
        home = visitor.got("/").text
    assert "unfinished is being trained." in home
    assert "delete <code>" not in home
    assert "Next:" not in PageClient(create_app(study)).got("/travel?to=nobody").text


def test_what_nobody_foresaw_is_a_page_with_all_headers(study, monkeypatch):
    def broken(self):
        raise ZeroDivisionError("as nobody foresaw")

    monkeypatch.setattr(StudyView, "scores", broken)
    through = httpx.ASGITransport(app=create_app(study), raise_app_exceptions=False)

    async def asked():
        async with httpx.AsyncClient(transport=through, base_url="http://127.0.0.1") as client:
            return await client.get("/")

    answer = asyncio.run(asked())
    assert answer.status_code == 500
    assert "This page failed" in answer.text
    assert "as nobody foresaw" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_an_embedding_that_cannot_be_read_is_named_and_stops_nothing(study, tmp_path, capsys):
    shutil.copytree(study.folder, tmp_path / "study")
    broken = Study.open(tmp_path / "study")
    path = min(broken.embeddings_folder(RUN).glob("*.h5ad"))
    visitor = PageClient(create_app(broken))
    for content in (path.read_bytes()[:3000], b"", _empty_hdf5(tmp_path)):
        path.write_bytes(content)
        prepare(visitor.app)
        assert f"{path}: damaged; run `phenolens embed {broken.folder}`" in capsys.readouterr().err
        assert f"{path} is damaged" in visitor.got("/").text
        assert f"phenolens embed {broken.folder}" in visitor.got("/").text
        assert f"{path}: damaged; run `phenolens embed" in visitor.got(f"/travel?run={RUN}").text
        assert "no embeddings of cells" in visitor.got(f"/map?run={RUN}&of=cells").text
        for page in ("/plates", "/map", address("treatments", f"{SERIES}@10")):
            visitor.got(page)


def _empty_hdf5(folder):
    h5py.File(folder / "empty.h5", "w").close()
    return (folder / "empty.h5").read_bytes()


@pytest.mark.parametrize("name", ["scores.csv", "scores/**/*.csv", "profiles/*/*.h5ad", "report.html"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00" * 50], ids=["empty", "no text"])
def test_whatever_is_damaged_is_named_with_the_command_that_mends_it(study, tmp_path, name, content):
    shutil.copytree(study.folder, tmp_path / "study")
    broken = Study.open(tmp_path / "study")
    broken.report_path.write_bytes(b"")
    damaged = list(broken.folder.glob(name))
    assert damaged
    for path in damaged:
        path.write_bytes(content)
    visitor = PageClient(create_app(broken))
    for page in ("/", address("treatments", f"{SERIES}@10"), "/travel", "/map", "/plates", "/report"):
        answer = visitor.got(page, 200, 500)
        assert answer.status_code == 200 or re.search(r"damaged.*run `phenolens \w+", answer.text), page


def test_populations_of_many_cells_are_looked_for_when_asked(study, monkeypatch):
    monkeypatch.setattr(treatment_page, "QUICK_CELLS", 2)
    visitor, path = (
        PageClient(create_app(study)),
        address("treatments", StudyView(study).cells().catalogue.treatments["n_cells"].idxmax()),
    )
    html = visitor.got(path).text
    assert "the first is the most typical" not in html
    link = re.search(r'href="([^"]+)#populations">Find them', html)[1].replace("&amp;", "&")
    assert "the first is the most typical" in visitor.got(link).text


def test_a_map_that_takes_long_keeps_no_other_map_waiting(study, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(rows, **how):
        begun.set()
        assert go_on.wait(60)
        return np.asarray(rows[:, :2], np.float32)

    monkeypatch.setattr(umap_map, "umap_places", slow)
    maps = create_app(study).state.maps
    with ThreadPoolExecutor(2) as pool:
        umap = pool.submit(maps.map, MapQuery(RUN, "cells", "umap"))
        try:
            assert begun.wait(60)
            pca = pool.submit(maps.map, MapQuery(RUN, "cells", "pca"))
            assert len(pca.result(timeout=30)[0].rows)
        finally:
            go_on.set()
        assert len(umap.result(timeout=30)[0].rows)


@pytest.mark.slow
def test_a_process_that_ends_lets_the_opening_of_travels_come_to_its_end(study):
    ends_meanwhile = f"""
import pathlib, time
from phenolens.printing import print_result
from phenolens.runs.embeddings import mapped_embeddings
from phenolens.runs.scores import headline_lines
from phenolens.study import Study
from phenolens.web.app import create_app, prepare
app = create_app(Study.open(pathlib.Path({str(study.folder)!r})))
app.state.travels.preload = lambda: (time.sleep(1), print("opened"))
prepare(app)
"""
    ended = subprocess.run([sys.executable, "-c", ends_meanwhile], capture_output=True, text=True, check=True)
    assert ended.stdout == "opened\n"


def test_a_run_that_is_embedded_anew_shows_the_cells_of_its_new_embeddings(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "study")
    explorer = StudyView(Study.open(tmp_path / "study"))
    treatment = explorer.cells().catalogue.treatments["n_cells"].idxmax()
    before = explorer.typical_cell(RUN, treatment)
    rows = explorer.cells().catalogue.rows_of(treatment)
    *_, farthest = explorer.nearest_to_mean(RUN, treatment, n=len(rows))
    mean, first = mapped_embeddings(explorer.study, RUN, explorer.cells().store)[rows].mean(axis=0), 0
    for plate in explorer.cells().store.plates:
        with h5py.File(explorer.study.embeddings_folder(RUN) / f"{plate}.h5ad", "r+") as file:
            here = farthest - first
            first += len(file["X"])
            if 0 <= here < len(file["X"]):
                file["X"][here] = mean
    assert before != farthest
    assert explorer.typical_cell(RUN, treatment) == farthest


def test_without_controls_a_travel_says_what_it_cannot_show_and_why(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / "study")
    bare = Study.open(tmp_path / "study")
    for path in bare.crops_folder.glob("*.parquet"):
        write_parquet(path, pd.read_parquet(path).assign(role="treated"), about={})
    visitor, start = PageClient(create_app(bare)), study.crops.cells["cell_id"].iloc[0]
    asked = f"/travel?to={quote(SERIES, safe='')}&start={start}"
    assert "no control cells to start from" in visitor.got("/travel").text
    assert "standard deviations of control cells, and this study has none" in visitor.got(asked).text
    assert "no control cells: a direction starts from their mean" in visitor.got(f"{asked}&way=direction").text
    assert "no control cells" in visitor.got(f"{asked}&populations=2").text
    many = StudyView(bare).cells().catalogue.treatments["n_cells"].idxmax()
    assert "No populations: no control cells" in visitor.got(address("treatments", many, populations="true")).text


def test_choices_that_do_not_go_together_are_told_in_the_pages_words(visitor):
    html = visitor.got("/travel?populations=2&doses=true").text
    assert "use 1 population, or no “up the doses”" in html
    assert "--targets" not in html


def test_a_cell_has_a_page_with_its_channels_outline_scale_bar_and_measures(study, visitor):
    cell = study.crops.cells.iloc[0]
    html = visitor.got(address("cells", cell["cell_id"], outline="true")).text
    assert html.count("alone") == len(study.crops.channels)
    assert "Scale bar: " in html
    path = address("cells", f"{cell['cell_id']}.png")
    sizes = [
        matplotlib.image.imread(io.BytesIO(visitor.got(path + more).content)).shape[0] for more in ("", "?outline=true")
    ]
    assert sizes[1] > sizes[0] == study.crops.crop_px
    assert visitor.get(address("cells", "nobody")).status_code == 404


def test_a_cells_unusual_measures_are_first_and_the_others_folded(study, visitor):
    cells = StudyView(study).cells()
    row = cells.catalogue.rows_of(f"{SERIES}@10")[0]
    own = cells.measured.of(np.array([row])).iloc[0]
    away = ((own - cells.measured.controls.mean()) / cells.measured.controls.std()).dropna()
    far = away[away.abs() >= 2].sort_values(key=abs, ascending=False).index
    page = unescape(visitor.got(address("cells", cells.row_of[row])).text)
    shown, _, folded = page.partition("<details><summary>The other")
    named = [re.findall(r'<tr><th scope="row">([^<]*)<', part) for part in (shown, folded)]
    assert named[0] == [short_name(name) for name in far]
    assert set(named[0]).isdisjoint(named[1])
    assert len(named[0]) + len(named[1]) == len(own)
    by_chance = (cells.measured.from_controls(cells.measured.controls).abs() >= 2).sum(axis=1).mean()
    assert f"of a control cell, {by_chance:.1f} on average" in shown


@pytest.fixture(scope="module")
def beside(study, tiny_screen):
    """A visitor of the explorer with the images of the study at hand."""
    return PageClient(create_app(study, source=tiny_screen))


def test_a_cells_page_shows_its_field_with_a_frame_around_the_crop_where_the_images_are_at_hand(study, beside):
    cell, side = study.crops.cells.iloc[0], study.crops.crop_px
    html = beside.got(address("cells", cell["cell_id"])).text
    link = re.search(r'<figure class="field"><a href="([^"]+)"', html)[1].replace("&amp;", "&")
    assert (html.count("Scale bar: "), "As imaged" in html or "Simulated field" in html) == (2, True)
    shown = matplotlib.image.imread(io.BytesIO(beside.got(link).content))[..., :3]
    assert shown.shape[:2] == (140, 150)
    top, left = (int(np.floor(cell[axis] + 0.5)) - side // 2 for axis in ("y", "x"))
    assert (shown[top - 1, left : left + side] == 1).all()
    assert (shown[top : top + side, left - 1] == 1).all()
    assert not (shown[top - 3, left : left + side] == 1).all()


def test_without_the_images_a_cells_page_says_how_to_show_its_field(study, visitor):
    cell_id = study.crops.cells["cell_id"].iloc[0]
    assert "phenolens explore" in visitor.got(address("cells", cell_id)).text.partition('id="field"')[2]
    assert "--source" in visitor.got(address("fields", f"{cell_id}.png"), 404).text


def test_other_images_than_those_the_crops_were_cut_from_are_no_field_of_a_cell(study, tiny_screen, tmp_path):
    other = shutil.copytree(tiny_screen, tmp_path / "screen")
    first = next(path for path in sorted(other.rglob("*.tif")) if "B02" in path.name)
    second = next(path for path in sorted(other.rglob("*.tif")) if "B03" in path.name)
    first.write_bytes(second.read_bytes())
    cell = study.crops.cells.query("well == 'B02'").iloc[0]
    client = PageClient(create_app(study, source=other))
    assert "does not hold the pixels" in client.got(address("cells", cell["cell_id"])).text


def test_the_contrast_of_each_channel_is_set_by_hand_and_kept_in_the_address(study, visitor):
    cell_id, n = study.crops.cells["cell_id"].iloc[0], len(study.crops.channels)
    levels = {"black": [0] * n, "white": [50, *[100] * (n - 1)]}
    html = visitor.got(address("cells", cell_id, **levels)).text
    picture = re.search(r'<figure class="large"><img src="([^"]+)"', html)[1].replace("&amp;", "&")
    assert "white=50&white=100" in picture
    plain = matplotlib.image.imread(io.BytesIO(visitor.got(address("cells", f"{cell_id}.png")).content))
    brighter = matplotlib.image.imread(io.BytesIO(visitor.got(picture).content))
    changed = (plain != brighter).any(axis=(0, 1))
    assert changed[:3].sum() == 1  # the colour of the first channel
    assert (brighter >= plain).all()
    assert html.count('type="range"') == 2 * n
    assert 'name="white" min="5" max="400" step="5" value="50"' in html
    assert visitor.get(address("cells", cell_id, white=[50])).status_code == (404 if n > 1 else 200)
    assert visitor.get(address("cells", cell_id, white=[500] * n)).status_code == 422


def test_measures_of_real_cells_stand_on_plates_treatments_and_in_a_table(study, visitor):
    cell = study.crops.cells.iloc[0]
    html = visitor.got(address("plates", cell["plate"], measure="nucleus_area_px")).text
    assert re.search(r'class="(shade|below)-\d', html)
    assert '<option value="nucleus_area_px" selected' in html
    assert 'id="change"' in visitor.got(address("treatments", f"{SERIES}@10", populations="true")).text
    table = pd.read_csv(io.StringIO(visitor.got(f"/downloads/measures.csv?treatment={quote(SERIES)}%4010").text))
    assert table["nucleus_area_px"].notna().any()
    assert (table["treatment"] == f"{SERIES}@10").all()


def test_too_few_treatments_for_a_map_are_said_and_no_page_offers_it(study, visitor, monkeypatch, capsys):
    of_treatments = "of=treatments"
    assert of_treatments in visitor.got("/map?of=cells").text
    monkeypatch.setattr(umap_map, "LEAST_ON_MAP", 99)
    n = (study.crops.cells.query("role == 'treated'")[["compound", "concentration_um"]].drop_duplicates()).shape[0]
    for page in ("/map", "/map?of=cells"):
        html = visitor.got(page).text
        assert f"(a map of treatments needs 99, and this study has {n})" in html
        assert of_treatments not in html
        assert "<h1>Map of cells" in html
    home = visitor.got("/").text
    assert "The map of all cells" in home
    assert "The map of treatments" not in home
    app = create_app(study)
    opened = threading.Event()
    app.state.travels.preload = opened.set
    prepare(app)
    assert "not everything" not in capsys.readouterr().err
    assert opened.wait(10)


def test_one_of_a_kind_stands_in_the_singular_on_every_page(study, visitor):
    lonely = study.crops.cells.query("compound == @LONELY").iloc[0]
    treatment = f"{LONELY}@{lonely['concentration_um']:g}"
    pages = ["/", "/plates", address("plates", lonely["plate"]), address("wells", lonely["plate"], lonely["well"])]
    pages += [address("treatments", treatment), address("treatments", f"{SERIES}@10"), address("travel", to=LONELY)]
    for page in pages:
        text = re.sub(r"<[^>]+>", " ", visitor.got(page).text)
        assert re.findall(r"(?<![\w.,–-])1 (?:\w+ )?(?:cells|wells|plates|treatments|measures|frames)\b", text) == []
    assert "1 cell in 1 well" in visitor.got(address("treatments", treatment)).text


def test_a_selection_is_saved_and_compared_with_other_points(study, visitor):
    saved = visitor.got(f"/map/selection.csv?{ASKED}&numbers=0,3")
    assert len(pd.read_csv(io.StringIO(saved.text))) == 2
    found = visitor.got(
        f"/map/differs.json?{ASKED}&inside={','.join(map(str, range(20)))}&outside={','.join(map(str, range(20, 60)))}"
    )
    assert all(set(one) == {"measure", "change"} for one in found.json())
    assert visitor.get(f"/map/selection.csv?{ASKED}&numbers=99999999").status_code == 404


def test_numbers_below_zero_have_a_minus_sign_and_none_is_minus_zero(study, visitor):
    cell_id = study.crops.cells["cell_id"].iloc[0]
    for page in (address("treatments", f"{SERIES}@10"), address("cells", cell_id)):
        numbers = re.findall(r'<td class="number">([^<]*)</td>', visitor.got(page).text)
        assert any("−" in number for number in numbers)
        assert [number for number in numbers if "-" in number or number in ("−0.0", "−0.00")] == []


def test_typical_cells_have_their_well_below_them_the_nearest_first_and_no_number_without_a_unit(study, visitor):
    treatment = f"{SERIES}@10"
    page = visitor.got(address("treatments", treatment)).text
    section = page.partition('id="nearest"')[2].partition("</section>")[0]
    cells = study.crops.cells.iloc[list(StudyView(study).nearest_to_mean(RUN, treatment, n=16))]
    assert re.findall(r"<span>([^<]*)</span>", section) == [f"{c.plate} {c.well}" for c in cells.itertuples()]


def test_the_headlines_scores_are_the_first_lines_in_the_terminal(study, capsys):
    (line,) = headline_lines(study, [RUN])  # NSC alone was scored
    row = study.scores.query("statistics == 'mean' and whitening == 'aligned'").iloc[0]
    chance = pd.read_csv(study.chance_path).query("statistics == 'mean' and whitening == 'aligned'")["chance"].iloc[0]
    right = f"NSC: {row['n_correct']} of {row['n_treatments']} right ({100 * row['accuracy']:.0f} %, "
    assert line == f"{right}{100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f}; chance {100 * chance:.0f} %)"
    print_result("run", study, {"study": study.folder})
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == line
    assert "zscore" not in printed.out
    assert f"other profiles' scores: {study.scores_path}" in printed.err


def test_the_home_page_asks_of_a_control_with_few_cells_only_whether_a_field_failed(study):
    app = create_app(study)
    wells = app.state.view.cells().catalogue.wells
    wells.loc[wells["role"] == "control", "n_cells"] = 0
    assert re.search(r"0 of \w+, a control\. Did a field fail\?", PageClient(app).got("/").text)
    wells["n_cells"] = 1 + (wells["role"] == "control")
    assert "A toxic dose, or a field that failed?" in PageClient(app).got("/").text


def test_the_home_page_has_the_scores_of_the_headline_alone_and_its_profiles_have_one_name(study, visitor):
    home = visitor.got("/").text
    scores = home.partition('id="models"')[2]
    assert (scores.count('<th scope="col">NSC</th>'), "Mean" in scores) == (1, False)  # the report has the others
    right = study.scores.query("statistics == 'mean' and whitening == 'aligned' and protocol == 'NSC'")["accuracy"]
    assert f"<td>{100 * right.iloc[0]:.1f}<small>" in scores
    aligned = "means of cells, whitened within treatments, batches aligned"
    for page in ("/", address("treatments", f"{SERIES}@10")):
        assert aligned in visitor.got(page).text
    assert aligned in umap_map.map_of_treatments(study, RUN, projection="pca").caption


def test_the_home_page_begins_with_cells_and_umap_is_offered_where_it_is_installed(study, visitor, monkeypatch):
    html = visitor.got("/").text
    assert 0 < html.index('id="strongest"') < html.index('id="next"')
    assert "projection=umap" in visitor.got("/map").text
    monkeypatch.setattr(umap_map, "find_spec", lambda name: None)
    assert "projection=umap" not in visitor.got("/map").text
