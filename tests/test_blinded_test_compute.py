"""Blinded assessments made from a study and a run, and the command that makes, serves and sums them up."""

import imagecodecs
import numpy as np
import pytest

from blinded_tests import TOKEN, kinds_by_picture_id, made_up
from phenolens.blinded_test.compute import assessments, draw_pictures, set_up, summary
from phenolens.blinded_test.config import AssessmentConfig
from phenolens.cli import main
from phenolens.commands.web_commands import checked_token, named
from phenolens.core.colours import cell_image, shared_contrast
from phenolens.core.errors import InputError
from phenolens.core.files import sha256, write_json
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from phenolens.crops.store import normalised
from phenolens.runs.decoder import find_decoding_run
from phenolens.study import Study
from phenolens.training.config import TrainConfig
from phenolens.training.device import Compute
from trained_runs import trained

SMALL = TrainConfig(model="vae", steps=2, batch_size=4, network=dict(width=4, latent_size=4))


@pytest.fixture(scope="module")
def study(tiny_screen, tmp_path_factory):
    """A study with a run that decodes."""
    study = Study.create(tmp_path_factory.mktemp("assessed") / "study")
    make_crops(tiny_screen, study.crops_folder, layout="bbbc021", config=CropConfig(crop_px=36))
    compute = Compute.chosen(device="cpu", precision="float32", threads=1)
    trained(study.crops, SMALL, compute, study.run_folder("vae-seed0"))
    write_json(study.run_folder("vae-seed0") / "health.json", {})  # says that it is trained to its end
    return study


def everything_but_assessments(study):
    paths = (
        path for path in study.folder.rglob("*") if path.is_file() and study.assessments_folder not in path.parents
    )
    return {path: sha256(path) for path in sorted(paths)}


def test_pictures_are_the_cells_real_or_redrawn_in_one_contrast(study):
    run = find_decoding_run(study, "vae-seed0")
    pictures = draw_pictures(run.store, run.reconstructed, AssessmentConfig(n=8), channels=run.store.channels)
    cells = run.store.cells
    fine = np.flatnonzero(~cells["is_noise"].to_numpy(bool))
    sample = fine[np.unique(np.linspace(0, len(fine) - 1, 256).astype(int))]
    contrast = shared_contrast(normalised(run.store.take(sample)), run.store.channels)
    assert sum(picture.is_synthetic for picture in pictures) == 8
    for picture in pictures:
        row = np.flatnonzero(cells["cell_id"] == picture.cell_id)
        crop = (run.reconstructed(row) if picture.is_synthetic else normalised(run.store.take(row)))[0]
        shown = imagecodecs.png_decode(picture.png) / 255
        np.testing.assert_allclose(shown, cell_image(crop, contrast), atol=0.5 / 255 + 1e-3)  # bfloat16 apart
        assert picture.treatment.startswith(cells["compound"][row[0]])


def test_no_length_size_or_metadata_of_a_picture_tells_its_kind(study):
    run = find_decoding_run(study, "vae-seed0")
    for channels in (run.store.channels, run.store.channels[:1], run.store.channels[:2]):
        pictures = draw_pictures(run.store, run.reconstructed, AssessmentConfig(n=4), channels=channels)
        assert len({len(picture.png) for picture in pictures}) == 1
        headers = {picture.png[:33] for picture in pictures}  # signature and IHDR
        assert len(headers) == 1
        for picture in pictures:
            kinds = [kind for kind in (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf", b"gAMA") if kind in picture.png]
            assert kinds == []
            assert imagecodecs.png_decode(picture.png).shape == (36, 36, 3)


def test_one_channel_is_shown_in_grey_and_others_are_not(study):
    run = find_decoding_run(study, "vae-seed0")
    grey = draw_pictures(run.store, run.reconstructed, AssessmentConfig(n=2), channels=["actin"])
    colour = draw_pictures(run.store, run.reconstructed, AssessmentConfig(n=2), channels=["DNA", "actin"])
    assert all((imagecodecs.png_decode(p.png) == imagecodecs.png_decode(p.png)[..., :1]).all() for p in grey)
    planes = np.stack([imagecodecs.png_decode(picture.png) for picture in colour])
    assert planes[..., 1].max() == 0  # neither DNA nor actin is green
    assert min(planes[..., 0].max(), planes[..., 2].max()) > 100


def test_each_channel_is_shown_alone_as_often_as_all_of_them(study):
    run = find_decoding_run(study, "vae-seed0")
    config = AssessmentConfig(n=8, each_channel=True)
    pictures = draw_pictures(run.store, run.reconstructed, config, channels=run.store.channels)
    together = ", ".join(run.store.channels)
    for kind in (True, False):
        shown = [picture.shown for picture in pictures if picture.is_synthetic is kind]
        assert {view: shown.count(view) for view in set(shown)} == dict.fromkeys([together, *run.store.channels], 2)
    pixels = {picture.cell_id: imagecodecs.png_decode(picture.png) for picture in pictures}
    for picture in pictures:
        if picture.shown != together:
            assert (pixels[picture.cell_id] == pixels[picture.cell_id][..., :1]).all()
    assert any(np.ptp(pixels[p.cell_id], axis=2).max() > 100 for p in pictures if p.shown == together)
    assert len({len(picture.png) for picture in pictures}) == 1
    cells = run.store.cells.set_index("cell_id")
    for picture in pictures:
        row = cells.loc[picture.cell_id]
        assert picture.mechanism == ("control" if row["role"] == "control" else row["moa"])


def test_setting_up_writes_nothing_but_assessments_and_given_again_adds_only_who_is_new(study):
    before = everything_but_assessments(study)
    config = AssessmentConfig(run="vae-seed0", n=6, seed=5)
    file = set_up(study, config, ["anna"])
    made, codes = kinds_by_picture_id(file), file.assessors()
    again = set_up(study, config, ["anna", "ben"])
    assert again.path == file.path == study.assessments_folder / "vae-seed0-n6-seed5.sqlite"
    assert kinds_by_picture_id(again) == made
    assert again.assessors()[:1] == codes
    assert [person.name for person in again.assessors()] == ["anna", "ben"]
    assert everything_but_assessments(study) == before
    row = summary(assessments(study).values()).set_index("assessment").loc[file.name]
    assert (row["title"], row["n"], row["channels"], row["n_finished"]) == ("VAE", 6, "DNA tubulin actin", 0)


def test_a_name_that_is_taken_by_other_settings_is_refused(study):
    set_up(study, AssessmentConfig(n=3), ["anna"], name="mine")
    with pytest.raises(InputError, match=r"mine.sqlite.* n, seed; .*--name"):
        set_up(study, AssessmentConfig(n=4, seed=1), ["anna"], name="mine")
    assert len(kinds_by_picture_id(assessments(study)["mine"])) == 6


@pytest.mark.parametrize(
    ("config", "name", "said"),
    [
        (dict(n=0), "", "--n 0: expected"),
        (dict(n=1001), "", "--n 1001: expected"),
        (dict(n=900), "", r"have cells for \d+ of each; give --n \d+ or fewer"),
        (dict(seed=-1), "", "--seed -1: expected"),
        (dict(run="../x"), "", 'no run "../x"'),
        (dict(channels=("DNA", "x-ray")), "", "--channels x-ray: no such channel; there are: DNA"),
        (dict(channels=("DNA",), each_channel=True), "", "--each-channel.*DNA"),
        (dict(n=3, each_channel=True), "", "--n 3: expected at least 4 pictures of each kind"),
        (dict(n=2), "../../evil", "expected at most 100 letters"),
        (dict(n=2), ".hidden", "expected at most 100 letters"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line_and_nothing_is_left(study, config, name, said):
    before = sorted(study.assessments_folder.glob("*")) if study.assessments_folder.exists() else []
    with pytest.raises(InputError, match=said) as caught:
        set_up(study, AssessmentConfig(**config), ["anna"], name=name)
    assert "\n" not in str(caught.value)
    left = sorted(study.assessments_folder.glob("*")) if study.assessments_folder.exists() else []
    assert [path for path in left if path not in before and path.suffix != ".lock"] == []


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["anna", "ben", " anna "], '"anna"'),
        (["anna", ""], "expected 1 to"),
        ([f"a{number}" for number in range(501)], "501 assessors: expected at most 500"),
    ],
)
def test_assessors_that_cannot_be_are_refused_before_anything_is_made(study, names, said):
    with pytest.raises(InputError, match=said):
        set_up(study, AssessmentConfig(n=2), names, name="refused")
    assert "refused" not in assessments(study)


def test_results_are_printed_and_written_as_tables(tmp_path, capsys):
    study = Study.create(tmp_path / "study")
    file = made_up(study, "anna", "ben", n=10)
    kinds = kinds_by_picture_id(file)
    passed = [picture for picture, synthetic in kinds.items() if synthetic][:4]
    for number in (1, 2):
        while turn := file.turn(number):
            synthetic = kinds[turn.picture_id] and turn.picture_id not in passed
            file.answer(number, turn.picture_id, synthetic=synthetic)
    assert main(["assess", str(study.folder), "--results"]) == 0
    said = capsys.readouterr().out
    assert "round-1: VAE+, 10 real and 10 synthetic cells, 2 of 2 assessors finished" in said
    assert "synthetic passed as real  40.0 % (95 % interval 1" in said
    assert "real called synthetic     0.0 % (95 % interval 0.0 to" in said
    assert "Fleiss' kappa             1.00" in said
    names = {path.name for path in study.assessments_folder.glob("*.csv")}
    tables = ("answers", "assessors", "treatments", "mechanisms", "channels", "pictures", "summary")
    assert names == {f"round-1_{table}.csv" for table in tables}
    answers = (study.assessments_folder / "round-1_answers.csv").read_text().splitlines()
    columns = "assessor,item,treatment,mechanism,shown,is_synthetic,said_synthetic,seconds,cell_id,answered_at"
    assert answers[0] == columns
    assert len(answers) == 41


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--results"], "--assessors"),
        (["--results", "--name", "x"], 'no assessment "x" (there are: none)'),
        (["--token", "short"], "--token: expected at least 16"),
        (["--assessors", "0"], "--assessors 0: expected 1 to 500"),
        (["--assessors", "99999999999999999999"], "expected 1 to 500, or names"),
        (["--assessors", "2"], "no crops here"),
        ([], "--assessors"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, capsys, arguments, said):
    study = Study.create(tmp_path / "study")
    assert main(["assess", str(study.folder), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not list(study.folder.rglob("*.sqlite"))


def test_a_host_that_is_not_of_this_machine_is_one_line(tmp_path, capsys):
    study = Study.create(tmp_path / "study")
    made_up(study, "anna")
    assert main(["assess", str(study.folder), "--host", "no such host"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--host no such host" in line


def test_a_number_of_assessors_names_them_and_a_token_is_new_each_time():
    assert named(("3",)) == ["assessor 1", "assessor 2", "assessor 3"]
    assert named(("anna", "7")) == ["anna", "7"]
    tokens = {checked_token("") for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32
    assert checked_token(TOKEN) == TOKEN
