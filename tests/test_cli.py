"""The command line: commands, settings from files, and one clear line with exit code 2 for what a user gave wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from phenolens import cli
from phenolens.core.files import alone
from phenolens.study import Study
from processes import with_small_files

SHORT = "--steps 4 --batch-size 4 --width 4 --latent-size 8 --threads 1 --precision float32".split()


def run(*arguments: object) -> int:
    """One command in this process; its exit code."""
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def said(capsys):
    """What the last command said on stderr, as lines."""
    return lambda: [line for line in capsys.readouterr().err.splitlines() if line.startswith("phenolens ")]


def refused(said, *arguments: object) -> str:
    """The one line with which a command refuses, after exit code 2."""
    assert run(*arguments) == 2
    lines = said()
    assert len(lines) == 1, lines
    return lines[0]


def test_help_names_every_verb_and_every_verb_has_its_own(capsys):
    assert run("--help") == 0
    overview = capsys.readouterr().out
    for verb in cli.VERBS:
        assert f"  {verb} " in overview
        with pytest.raises(SystemExit) as done:
            run(verb, "--help")
        assert done.value.code == 0


def test_every_flag_has_a_sentence_and_examples_are_flags(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")  # so that no sentence is wrapped
    for verb in cli.VERBS:
        with pytest.raises(SystemExit):
            run(verb, "--help")
        page = capsys.readouterr().out
        assert re.findall(r"(?:--[\w-]+ [A-Z{]\S*|--no-[\w-]+) +\(default:", page) == [], verb
        assert re.findall(r"`\w+=[^`]*`", page) == [], verb


def test_an_unknown_verb_is_refused_with_the_nearest(said):
    assert 'no verb "evalute"; did you mean "evaluate"?' in refused(said, "evalute")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("train S --stepz 3", ["--stepz", "--steps"]),
        ("train S extra", ["extra", "--help"]),
        ("train S --model vae+", ["--model", "vae+", "vaeplus", "pca", 'did you mean "vae"']),
        ("train S --steps ten --seed 1", ["--steps ten", "an integer"]),
        ("train S --steps=1.5", ["--steps 1.5", "an integer"]),
        ("train S --steps --seed 1", ["--steps", "an integer"]),
        ("train", ["study", "--help"]),
        ("crop S", ["--source", "--help"]),
        ("crop S --sourc x", ["--sourc", "--source"]),
        ("evaluate S --whitening bogus", ["--whitening", "pca", "zca", "none"]),
        ("run S --source x --layout table --also pca vea", ["--also", "'vea'", "vae"]),
        ("figure bogus S --out x.png", ["bogus", "interpolation"]),
        ("check S --layout table --overlay-field P1 A01", ["--overlay-field P1 A01", "an integer"]),
        ("compare A B --draws 0", ["--draws 0", "at least 1"]),
    ],
)
def test_wrong_flags_are_refused_in_one_line_that_says_what_is_allowed(capsys, arguments, named):
    assert run(*arguments.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert [part for part in named if part not in line] == []


def test_without_the_hook_of_tyro_a_wrong_flag_still_exits_with_2(monkeypatch, capsys):
    import tyro

    monkeypatch.delattr(tyro._errors, "on_parse_error")
    with pytest.raises(SystemExit) as done:
        run("train", "study", "--stepz", 3)
    assert done.value.code == 2
    assert "--stepz" in capsys.readouterr().err


def test_every_step_without_its_study_says_which_command_comes_first(said, tmp_path):
    for verb in ("train", "embed", "profile", "evaluate", "report"):
        assert "no study here" in refused(said, verb, tmp_path / "nothing")


def test_each_step_says_which_step_is_missing(said, tiny_study):
    study = tiny_study.folder
    assert "phenolens train" in refused(said, "embed", study)
    assert run("train", study, "--model", "ae", *SHORT) == 0
    said()
    assert "phenolens embed" in refused(said, "profile", study)
    assert run("embed", study) == 0
    said()
    assert "phenolens profile" in refused(said, "evaluate", study)
    assert run("profile", study) == 0
    said()
    assert "phenolens evaluate" in refused(said, "report", study)


def test_what_was_made_from_something_older_is_not_mixed_with_what_is_new(said, tiny_study, tiny_screen):
    study = tiny_study.folder
    for verb in (["train", study, "--model", "ae", *SHORT], ["embed", study], ["profile", study], ["evaluate", study]):
        assert run(*verb) == 0
    assert run("train", study, "--model", "ae", "--steps", 6, *SHORT[2:]) == 0
    said()
    for verb in ("profile", "evaluate", "report"):
        assert "run `phenolens embed" in refused(said, verb, study)
    assert run("embed", study) == 0
    said()
    assert "run `phenolens profile" in refused(said, "evaluate", study)
    assert run("profile", study) == 0
    said()
    assert "run `phenolens evaluate" in refused(said, "report", study)
    source = ["--source", tiny_screen, "--layout", "bbbc021", "--crop-px", 44]
    assert run("crop", study, *source) == 0
    said()
    for verb in ("profile", "evaluate", "report"):
        assert "run `phenolens embed" in refused(said, verb, study)
    assert "trained on other crops" in refused(said, "embed", study)
    assert "trained on other crops" in refused(said, "train", study, "--model", "ae", *SHORT)


def scored_study(study, *, model: str = "ae", flags: list | None = None):
    """Take a study with crops from training to scores."""
    for verb in (["train", study, "--model", model, *SHORT, *(flags or [])], ["embed", study], ["profile", study]):
        assert run(*verb) == 0
    assert run("evaluate", study, "--bootstraps", 10, "--shuffles", 5) == 0


def test_of_a_study_half_run_the_command_that_comes_first_is_named(said, tiny_study):
    study = tiny_study.folder
    asked = (["report", study], ["evaluate", study], ["figure", "comparison", study, "--out", study / "f.png"])

    def come_first(named: str, *, of=asked) -> None:
        for verb in of:
            assert named in refused(said, *verb)

    tiny_study.crops_folder.rename(study / "aside")
    come_first("`phenolens crop`")
    (study / "aside").rename(tiny_study.crops_folder)
    come_first("`phenolens train ")
    assert run("train", study, "--model", "ae", *SHORT) == 0
    health = tiny_study.run_folder("ae-seed0") / "health.json"
    finished = health.read_bytes()
    health.unlink()
    come_first("`phenolens train` command")
    health.write_bytes(finished)
    come_first("`phenolens embed ")
    assert run("embed", study) == 0
    come_first("`phenolens profile ")
    assert run("profile", study) == 0
    come_first("`phenolens evaluate ", of=asked[:1])


def test_profiles_that_were_broken_off_are_made_again(said, tiny_study):
    study = tiny_study.folder
    scored_study(study)
    whole = tiny_study.profiles_folder("ae-seed0") / "wells_mean.h5ad"
    before = whole.read_bytes()
    said()
    assert "cells" in refused(said, "profile", study, "--min-cells", 10_000)
    assert run("profile", study) == 0
    assert whole.read_bytes() == before
    whole.unlink()
    assert run("profile", study) == 0
    assert whole.read_bytes() == before


@pytest.mark.slow
def test_scores_hold_every_run_and_a_named_run_keeps_its_name(tiny_study):
    study = tiny_study.folder
    scored_study(study)
    scored_study(study, flags=["--seed", "1"])
    scored_study(study, flags=["--name", "wide", "--width", "6"])
    table = pd.read_csv(study / "scores.csv")
    assert set(zip(table["model"], table["seed"])) == {("ae", 0), ("ae", 1), ("wide", 0)}
    assert not table.duplicated(["model", "seed", "statistics", "whitening", "protocol"]).any()
    assert run("train", study, "--model", "ae", "--name", "late", *SHORT) == 0
    assert run("report", study, "--run", "wide", "--picture-seed", 3) == 0
    text = (study / "report.html").read_text()
    assert "run late</td>" in text  # left out, and why
    assert "no scores: run `phenolens embed`" in text
    assert "phenolens report study --run wide --picture-seed 3\n" in text
    assert "wide matches" in text
    assert "quality is not in this report" not in text
    assert "phenolens train study --name wide --model ae" in text


@pytest.mark.slow
def test_no_table_of_a_protocol_that_was_not_asked_for_is_left(tiny_study):
    scored_study(tiny_study.folder)
    assert list((tiny_study.folder / "scores").rglob("*NSCB*"))
    assert run("evaluate", tiny_study.folder, "--protocols", "NSC", "--shuffles", 50) == 0
    assert not list((tiny_study.folder / "scores").rglob("*NSCB*"))
    assert run("report", tiny_study.folder) == 0
    assert "phenolens evaluate study --protocols NSC --shuffles 50\n" in (tiny_study.folder / "report.html").read_text()
    assert run("evaluate", tiny_study.folder, "--protocols", "NSCB") == 0
    assert run("report", tiny_study.folder) == 0
    html = (tiny_study.folder / "report.html").read_text()
    assert "<code>phenolens evaluate study --protocols NSC</code>" in html
    assert "No treatment has enough wells to be tested against the controls" in html


def test_a_lost_history_is_written_again_from_the_checkpoint(tiny_study):
    command = ["train", tiny_study.folder, "--model", "ae", "--record-every", 1, *SHORT]
    assert run(*command) == 0
    history = tiny_study.run_folder("ae-seed0") / "history.csv"
    before = history.read_bytes()
    history.unlink()
    assert run(*command) == 0
    assert history.read_bytes() == before


def test_a_run_that_is_not_finished_does_not_stand_in_the_way_of_the_others(tiny_study, capsys):
    scored_study(tiny_study.folder)
    (tiny_study.folder / "runs" / "half").mkdir()
    shutil.copy(tiny_study.run_folder("ae-seed0") / "config.json", tiny_study.folder / "runs" / "half")
    for verb in ("embed", "profile", "evaluate"):
        assert run(verb, tiny_study.folder) == 0
        assert "half" in capsys.readouterr().err


def test_a_damaged_table_is_named_and_embed_mends_its_own(said, tiny_study):
    scored_study(tiny_study.folder)
    said()
    part = next(tiny_study.embeddings_folder("ae-seed0").glob("*.h5ad"))
    whole = part.read_bytes()
    part.write_bytes(whole[:1000])
    assert part.name in refused(said, "profile", tiny_study.folder)
    assert run("embed", tiny_study.folder) == 0
    assert part.read_bytes() == whole
    said()
    table = tiny_study.treatments_path("ae-seed0", statistics="mean", whitening="none")
    table.write_bytes(b"not a table")
    assert "damaged; delete it" in refused(said, "evaluate", tiny_study.folder)


def test_two_processes_do_not_train_one_run_or_make_one_studys_crops_at_once(said, tiny_study, tiny_screen):
    folder = tiny_study.run_folder("ae-seed0")
    with alone(folder / ".lock", doing="training"):
        line = refused(said, "train", tiny_study.folder, "--model", "ae", *SHORT)
    assert "another process is training" in line
    with alone(tiny_study.folder / ".crops.lock", doing="making crops"):
        source = ["--source", tiny_screen, "--layout", "bbbc021", "--crop-px", 36]
        assert "another process is making crops" in refused(said, "crop", tiny_study.folder, *source)
    assert run("train", tiny_study.folder, "--model", "ae", *SHORT) == 0


def test_a_run_cannot_be_named_out_of_the_study(said, tiny_study):
    for name in ("../../escaped", "/tmp/escaped", "a/b", ".hidden", ""):
        assert "expected letters, digits" in refused(said, "train", tiny_study.folder, "--name", name or " ")


def test_a_treatment_with_two_mechanisms_is_refused(said, tiny_screen, tmp_path):
    screen = tmp_path / "screen"
    shutil.copytree(tiny_screen, screen)
    labels = screen / "BBBC021_v1_moa.csv"
    first = pd.read_csv(labels).query("moa != 'DMSO'").iloc[0]
    labels.write_text(labels.read_text() + f'"{first["compound"]}",{first["concentration"]},"Something else"\n')
    line = refused(said, "crop", tmp_path / "study", "--source", screen, "--layout", "bbbc021")
    assert "has two mechanisms" in line


@pytest.mark.parametrize(
    ("verb", "flags"),
    [
        ("train", ["--width", "0"]),
        ("train", ["--latent-size", "0"]),
        ("train", ["--learning-rate", "nan"]),
        ("train", ["--beta", "-1"]),
        ("train", ["--weight-decay", "2"]),
        ("train", ["--clip-norm", "0"]),
        ("train", ["--seed", "12345678901234567890123"]),
        ("train", ["--steps", "5", "--cooldown-steps", "6"]),
        ("embed", ["--threads", "-1"]),
        ("profile", ["--min-cells", "-3"]),
        ("profile", ["--ridge", "-1"]),
        ("evaluate", ["--bootstraps", "0"]),
        ("evaluate", ["--bootstrap-seed", "-1"]),
        ("report", ["--shown-cells", "-1"]),
        ("report", ["--picture-seed", "-1"]),
    ],
)
def test_a_setting_out_of_its_range_is_named(said, tiny_study, verb, flags):
    assert "expected" in refused(said, verb, tiny_study.folder, *flags)


def test_lists_in_study_toml_do_not_swallow_the_folder(said, tiny_study):
    toml = tiny_study.folder / "study.toml"
    toml.write_text('[evaluate]\nprotocols = ["NSC"]\n')
    scored_study(tiny_study.folder)
    assert set(pd.read_csv(tiny_study.scores_path)["protocol"]) == {"NSC"}
    said()
    toml.write_text("[train]\nthreads = true\n")
    assert 'setting "threads" is True; expected a value' in refused(said, "train", tiny_study.folder)
    assert "--steps: STUDY is missing" in refused(said, "train", "--steps", 3)
    toml.write_bytes(b"\xff\xfe")
    assert "not readable as TOML" in refused(said, "train", tiny_study.folder)


def test_a_folder_that_holds_something_else_is_not_touched(said, tmp_path, tiny_screen):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("precious")
    line = refused(said, "run", other, "--source", tiny_screen, "--layout", "bbbc021")
    assert "is not empty and no study of phenolens" in line
    assert "is not empty" in refused(said, "demo", other)
    assert "not empty" in refused(said, "simulate", other)
    assert [path.name for path in other.iterdir()] == ["chapter1.txt"]


def test_a_study_of_another_tool_is_refused(said, tmp_path):
    (tmp_path / "study.json").write_text('{"format": "somebody else"}')
    assert "not a study of this version of phenolens" in refused(said, "train", tmp_path)


def test_a_missing_source_begins_no_study(said, tmp_path):
    line = refused(said, "crop", tmp_path / "new", "--source", tmp_path / "no", "--layout", "bbbc021")
    assert "no such folder" in line
    assert not (tmp_path / "new").exists()


def test_a_bad_number_is_refused_before_any_work(said, tiny_study):
    assert "--steps -1: " in refused(said, "train", tiny_study.folder, "--steps", -1)
    assert "--feature-layers 5: " in refused(said, "train", tiny_study.folder, "--feature-layers", 5)
    assert tiny_study.runs == []


def test_a_device_that_is_not_there_is_refused(said, tiny_study):
    assert "--device cuda:7: " in refused(said, "train", tiny_study.folder, "--device", "cuda:7")


def test_settings_come_from_study_toml_and_flags_by_hand_win(tiny_study, capsys):
    (tiny_study.folder / "study.toml").write_text('[train]\nsteps = 3\nmodel = "vae"\nbeta = 0.5\nramp_steps = 7\n')
    assert run("train", tiny_study.folder, *SHORT[2:], "--beta", 0.25) == 0
    config = json.loads((tiny_study.run_folder("vae-seed0") / "config.json").read_text())["config"]
    assert (config["steps"], config["model"], config["network"]["beta"]) == (3, "vae", 0.25)
    assert "ramp_steps" not in config["network"]  # a setting of VAE+


def test_an_unknown_setting_in_study_toml_is_refused_with_the_nearest(said, tiny_study):
    (tiny_study.folder / "study.toml").write_text("[train]\nbatchsize = 3\n")
    assert 'no setting "batchsize"; did you mean "batch_size"?' in refused(said, "train", tiny_study.folder)
    (tiny_study.folder / "study.toml").write_text("[training]\nsteps = 3\n")
    assert "[training]" in refused(said, "train", tiny_study.folder)


def test_study_toml_has_a_table_for_each_command_that_reads_a_study(said, tiny_study):
    toml = tiny_study.folder / "study.toml"
    toml.write_text("[travel]\nframes = 1\n[train]\nsteps = -1\n")
    assert "--frames 1" in refused(said, "travel", tiny_study.folder, "--to", "taxol")
    assert f"{toml}: --steps -1" in refused(said, "train", tiny_study.folder)
    assert str(toml) not in refused(said, "train", tiny_study.folder, "--steps", "-1")
    toml.write_text('[train]\nsteps = "many"\n')
    assert f"{toml}: --steps many" in refused(said, "train", tiny_study.folder)
    toml.write_text('[evaluate]\nprotocols = ["NSCC"]\n')
    assert f"{toml}: --protocols" in refused(said, "evaluate", tiny_study.folder)
    for verb in ("demo", "fetch", "figure", "compare"):
        toml.write_text(f"[{verb}]\nseed = 1\n")
        assert f"[{verb}]" in refused(said, "train", tiny_study.folder)


def test_a_runs_own_config_can_be_given_back(tiny_study):
    assert run("train", tiny_study.folder, "--model", "vae", "--beta", 0.5, *SHORT) == 0
    first = tiny_study.run_folder("vae-seed0") / "config.json"
    assert run("train", tiny_study.folder, "--name", "again", "--config", first) == 0
    second = tiny_study.run_folder("again") / "config.json"
    assert json.loads(first.read_text())["config"] == json.loads(second.read_text())["config"]


@pytest.mark.slow
def test_one_batch_makes_nscb_impossible_which_is_said_before_training(tmp_path, tiny_screen, said):
    source = one_batch(tiny_screen, tmp_path / "screen")
    flags = ["--source", source, "--layout", "bbbc021", "--crop-px", 36, "--model", "ae", "--also", "vae", *SHORT]
    line = refused(said, "run", tmp_path / "study", *flags, "--protocols", "NSC", "NSCB")
    assert '"Week1"' in line
    assert "NSCB" in line
    assert not (tmp_path / "study" / "runs").exists()
    assert run("run", tmp_path / "study", *flags) == 0
    assert set(pd.read_csv(tmp_path / "study" / "scores.csv")["protocol"]) == {"NSC"}


def one_batch(screen: Path, folder: Path) -> Path:
    """The screen with all its plates renamed into Week1."""
    shutil.copytree(screen, folder)
    table = pd.read_csv(folder / "BBBC021_v1_image.csv")
    for plate in table["Image_Metadata_Plate_DAPI"].unique():
        (folder / plate).rename(folder / plate.replace("Week2", "Week1"))
    names = [name for name in table.columns if "Path" in name or "Plate" in name]
    table[names] = table[names].replace("Week2", "Week1", regex=True)
    table.to_csv(folder / "BBBC021_v1_image.csv", index=False)
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="file-size limits are POSIX")
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, tiny_screen):
    """A limit on file sizes stands for the disk: writes beyond 40 kB fail as they do there."""
    study = tmp_path / "study"
    command = [sys.executable, "-m", "phenolens.cli", "crop", str(study), "--source", str(tiny_screen)]
    done = subprocess.run(
        [*command, "--layout", "bbbc021", "--crop-px", "36"],
        capture_output=True,
        text=True,
        preexec_fn=with_small_files,
    )
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert "the disk is full" in lines[0]
    assert [path for path in study.rglob("*") if path.name.endswith((".partial", ".npy", ".parquet"))] == []


def test_stopping_by_ctrl_c_says_that_the_same_command_goes_on(tiny_study, monkeypatch, said):
    def interrupted(*_args, **_flags):
        raise KeyboardInterrupt

    monkeypatch.setattr("phenolens.pipeline.train", interrupted)
    assert run("train", tiny_study.folder, *SHORT) == 130
    assert "the same command resumes" in said()[0]


def test_the_installed_command_is_the_same_program():
    done = subprocess.run([Path(sys.executable).parent / "phenolens", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("phenolens 0.")
    assert os.linesep not in done.stderr


@pytest.mark.parametrize("verb", ["crop", "run"])
def test_a_new_study_that_is_refused_its_crops_leaves_nothing_and_one_that_was_there_stays(
    said, tmp_path, tiny_screen, verb
):
    new, empty, begun = (tmp_path / name for name in ("new", "empty", "begun"))
    empty.mkdir()
    Study.create(begun)
    for study in (new, empty, begun):
        asked = [study, "--source", tiny_screen, "--layout", "bbbc021", "--plates", "nope"]
        assert 'plate "nope" is not in the screen' in refused(said, verb, *asked)
    assert not new.exists()
    assert list(empty.iterdir()) == []
    assert (begun / "study.json").is_file()
