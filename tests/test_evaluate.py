"""`phenolens evaluate TABLE`: planted answers found, each choice applied and documented, bad input refused."""

import hashlib
import json
import re
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

from phenolens import __version__
from phenolens.core.errors import InputError
from phenolens.profiles.evaluate import (
    ScoreConfig,
    held_out,
    matched_rows,
    matchings_of,
    precision_of,
    scored,
)
from phenolens.profiles.nsc import nsc
from phenolens.profiles.profiles import treatment_profiles
from phenolens.profiles.scores_folder import caption
from phenolens.profiles.table_profiles import TableConfig, profiles_of
from phenolens.profiles.whitening import UNTOUCHED, Recipe, whiten
from real_profiles import VIGNETTE, ljosa_wells
from table_source import FEATURES, FLAGS, MECHANISMS, cells_of, wells
from test_cli import refused, run, said  # noqa: F401  # a fixture

QUICK = ["--shuffles", 20, "--bootstraps", 50, "--null-draws", 200]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluated(here, table: pd.DataFrame, *flags: object) -> pd.DataFrame:
    """Evaluate the table as a CSV into `out`; its scores by protocol."""
    table.to_csv(here / "t.csv", index=False)
    assert run("evaluate", "t.csv", *FLAGS, *QUICK, "--out", "out", *flags) == 0
    return pd.read_csv(here / "out" / "scores.csv").set_index("protocol")


def test_a_planted_answer_is_found_and_everything_is_kept(here, capsys):
    scores = evaluated(here, wells())
    assert scores.loc["NSC", ["n_correct", "n_treatments"]].tolist() == [18, 18]
    assert scores.loc["NSC", "p_value"] == pytest.approx(1 / 21)
    shown = capsys.readouterr()
    assert "18 of 18" in shown.out
    assert "mAP of treatments" in shown.out
    assert str((here / "out").resolve()) in shown.out
    assert "32 controls vary in all 6 directions" in shown.err
    assert "32 rows, 6 features, rank 6, ridge 1" in (here / "out" / "protocol.md").read_text()
    names = {path.name for path in (here / "out").iterdir()}
    assert names == {
        "scores.csv",
        "protocol.md",
        "about.json",
        "neighbours_NSC.csv",
        "confusion_NSC.csv",
        "confusion_NSC.png",
        "activity.csv",
        "precision_replicates.csv",
        "precision_mechanisms.csv",
        "wells.h5ad",
        "wells_scaled.h5ad",
        "treatments.h5ad",
    }
    confusion = pd.read_csv(here / "out" / "confusion_NSC.csv", index_col=0)
    np.testing.assert_array_equal(confusion, 6 * np.eye(3))
    assert (here / "out" / "confusion_NSC.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_without_mechanisms_gets_the_map_of_replicates_and_activity(here, capsys):
    wells().drop(columns="target").to_csv(here / "t.csv", index=False)
    flags = [flag for flag in FLAGS if flag not in ("--mechanism", "target")]
    assert run("evaluate", "t.csv", *flags, *QUICK, "--out", "out") == 0
    shown = capsys.readouterr()
    assert "mAP of treatments" in shown.out
    assert all(f"not scored: {name} " in shown.err for name in ("NSC", "NSCB"))
    assert pd.read_csv(here / "out" / "scores.csv").empty
    assert len(pd.read_csv(here / "out" / "precision_replicates.csv")) == 18
    assert len(pd.read_csv(here / "out" / "activity.csv")) == 18
    assert "NSC** is not scored" in (here / "out" / "protocol.md").read_text()
    assert not list((here / "out").glob("confusion*"))


def test_compounds_and_mechanisms_are_compared_with_the_controls_on_request(here, capsys):
    evaluated(here, wells(), "--against-controls", "dna1", "actin", "--no-confusion-figures")
    table = pd.read_csv(here / "out" / "against_controls.csv")
    assert table.set_index("name")["n_wells"].to_dict() == {"dna1": 4, "actin": 12}
    assert "dna1" in capsys.readouterr().out
    assert not (here / "out" / "confusion_NSC.png").exists()
    assert run("evaluate", "t.csv", *FLAGS, *QUICK, "--out", "out", "--against-controls", "dna") == 0
    assert run("evaluate", "t.csv", *FLAGS, *QUICK, "--out", "out", "--against-controls", "dnaX") == 2
    assert "dna" in capsys.readouterr().err.splitlines()[-1]


def test_what_is_not_counted_is_said_beside_the_score_and_lists_of_mechanisms_are_noticed(here, capsys):
    table = wells()
    table.loc[table["drug"].isin(["dna1", "dna2"]), "target"] = "actin|dna"
    table.loc[table["drug"].isin(["tubulin1", "tubulin2"]), "target"] = None
    scores = evaluated(here, table)
    shown = capsys.readouterr()
    assert "--several-mechanisms" in shown.err
    counted = scores.loc["NSC", "n_treatments"]
    assert f"NSC: {18 - counted} of 18 treatments cannot be counted" in shown.out
    assert "no mechanism is known: 4" in shown.out
    scores = evaluated(here, table, "--several-mechanisms", "|")
    assert scores.loc["NSC", "n_treatments"] == 12
    assert scores.loc["NSC", "n_correct"] == 12
    assert "--several-mechanisms" not in capsys.readouterr().err
    mechanisms = pd.read_csv(here / "out" / "precision_mechanisms.csv")["Metadata_MoA"].tolist()
    assert mechanisms == ["actin", "dna"]


def test_the_library_gives_what_the_command_gives(here):
    evaluated(here, wells())
    kept = anndata.read_h5ad(here / "out" / "wells.h5ad")
    treatments = treatment_profiles(whiten(kept))
    np.testing.assert_allclose(treatments.X, anndata.read_h5ad(here / "out" / "treatments.h5ad").X)
    queries = pd.read_csv(here / "out" / "neighbours_NSC.csv", index_col="row")
    assert nsc(treatments).queries["neighbour"].tolist() == queries["neighbour"].tolist()


def test_cells_make_the_wells_that_they_are_of(here):
    from_wells = evaluated(here, wells())
    queries = pd.read_csv(here / "out" / "neighbours_NSC.csv")
    table = cells_of(wells())
    for name in ("t.parquet", "t.h5ad"):
        if name.endswith("parquet"):
            table.to_parquet(here / name)
        else:
            obs = table.drop(columns=FEATURES).set_axis(table.index.astype(str))
            anndata.AnnData(table[FEATURES].to_numpy(), obs=obs, var=pd.DataFrame(index=FEATURES)).write_h5ad(
                here / name
            )
        assert run("evaluate", name, *FLAGS, *QUICK, "--out", "out") == 0
        again = pd.read_csv(here / "out" / "neighbours_NSC.csv")
        assert again["neighbour"].tolist() == queries["neighbour"].tolist()
        np.testing.assert_allclose(again["distance"], queries["distance"], atol=1e-9)
    assert from_wells.loc["NSC", "n_correct"] == 18


def test_statistics_of_cells_stand_side_by_side(here):
    evaluated(here, cells_of(wells()), "--statistics", "median+mad+q25")
    names = anndata.read_h5ad(here / "out" / "wells.h5ad").var_names
    assert list(names) == [f"{feature}_{of}" for of in ("median", "mad", "q25") for feature in FEATURES]


def test_rows_that_are_treatments_are_scored_as_they_are(here):
    evaluated(here, wells(), "--scaling", "none", "--whitening", "none")
    made = anndata.read_h5ad(here / "out" / "treatments.h5ad")
    before = pd.read_csv(here / "out" / "neighbours_NSC.csv")
    made.write_h5ad(here / "treatments.h5ad")
    obs = made.obs.rename(columns={"Metadata_Treatment": "t", "Metadata_Compound": "c", "Metadata_MoA": "m"})
    table = pd.concat([obs[["t", "c", "m"]], made.to_df()], axis=1)
    table.to_csv(here / "treatments.csv", index=False)
    flags = "--treatment t --compound c --mechanism m --scaling none --whitening none --out again".split()
    assert run("evaluate", "treatments.csv", *flags, *QUICK) == 0
    again = pd.read_csv(here / "again" / "neighbours_NSC.csv")
    assert again.set_index("treatment")["predicted"].to_dict() == before.set_index("treatment")["predicted"].to_dict()
    assert not (here / "again" / "wells.h5ad").exists()


def test_nscb_is_scored_where_batches_are_and_named_protocols_hold_out_what_they_say(here):
    table = wells()
    table["week"] = np.where(table["drug"].str.endswith("0"), "w1", "w2")  # a compound is of one week
    scores = evaluated(here, table)
    assert list(scores.index) == ["NSC", "NSCB"]
    queries = pd.read_csv(here / "out" / "neighbours_NSCB.csv").set_index("treatment")
    assert (queries["batch"] != queries.loc[queries["neighbour"].dropna(), "batch"].to_numpy()).all()
    scores = evaluated(here, table, "--protocols", "compound+plate")
    assert scores["held_out"].tolist() == ["compound+plate"]
    assert (here / "out" / "confusion_compound+plate.csv").exists()
    assert held_out("batch+well") == ("batch", "well")


def test_wells_can_be_the_queries(here):
    scores = evaluated(
        here, wells(), "--queries", "wells", "--protocols", "compound+well", "--averaged-over", "compounds"
    )
    assert scores["n_treatments"].tolist() == [36]
    assert "each compound one vote" in (here / "out" / "protocol.md").read_text()


def test_every_recipe_is_in_the_protocol_and_kept(here):
    table = wells()
    flags = {
        "--scaling robust --scaled-over plate --whitening none": "1.4826",
        "--whitening zca --whitened-over batch --ridge 0.1 --ridge-unit relative": "s + 0.1 x the mean eigenvalue",
        "--coral plate --coral-form efaar": "in each plate b, x <- x (C_b + I/2)^(-1/2)",
        "--coral batch --coral-form google": "in each batch b, x <- (x - m_b) (C_b + I)^(-1/2)",
        "--estimate ledoit-wolf --coral plate": "in each plate b, x <- x (S_b + I)^(-1/2) (S + I)^(1/2)",
        "--n-components 3 --learnt-on everything": "V the 3 leading",
        "--scaling none --whitening none": "features as they are",
    }
    for given, words in flags.items():
        evaluated(here, table, *given.split())
        text = re.sub(r"\s+", " ", (here / "out" / "protocol.md").read_text())
        assert words in text
        recipe = json.loads((here / "out" / "about.json").read_text())["recipe"]
        assert all(str(recipe[flag[2:].replace("-", "_")]) == value for flag, value in zip(*[iter(given.split())] * 2))


def test_what_is_left_out_when_asked_is_listed(here, capsys):
    table = wells()
    table.loc[2, "Cells_Noise"] = np.inf
    table = pd.concat([table, table.iloc[[5]].assign(position="H12")])
    table["Cells_Flat"] = 1.5
    evaluated(here, table, "--non-finite", "features", "--duplicates", "left out", "--constant-features", "left out")
    text = (here / "out" / "protocol.md").read_text()
    assert "features that are not finite (1): Cells_Noise" in text
    assert "rows that repeat another (1): w1a_H12" in text
    assert "features without spread (1): Cells_Flat" in text
    assert "left out: features without spread (1): Cells_Flat" in capsys.readouterr().err
    assert list(anndata.read_h5ad(here / "out" / "treatments.h5ad").obs_names) != []


def test_wells_with_too_few_cells_are_left_out_and_listed(here):
    table = cells_of(wells()).drop(index=range(4))  # one cell of the first well is left
    evaluated(here, table, "--min-cells", 3)
    assert "wells with too few cells (1): w1a_A02" in (here / "out" / "protocol.md").read_text()


def spoilt(kind: str) -> tuple[pd.DataFrame, list[str], str]:
    """A table with one thing wrong, further flags, and words of the line that says so."""
    table = wells()
    if kind == "nan":
        table.loc[[3, 4], "Cells_Edge"] = np.nan
        return table, [], 'nan at row "w1a_A05", feature "Cells_Edge" (2 such values in 1 of 6 features)'
    if kind == "infinite":
        table.loc[3, "Cells_Edge"] = -np.inf
        return table, [], '-inf at row "w1a_A05", feature "Cells_Edge"'
    if kind == "constant":
        table.loc[table["drug"] == "DMSO", "Cells_Edge"] = 0.1
        return table, [], 'feature "Cells_Edge" has no spread in the control rows of "all"'
    if kind == "one class":
        table["target"] = table["target"].where(table["target"].isna(), "actin")
        return table, ["--protocols", "NSC"], 'the only one is "actin"'
    if kind == "no class":
        return table.assign(target=None), ["--protocols", "NSC"], "--mechanism"
    if kind == "two mechanisms":
        table.loc[(table["drug_dose"] == "dna1_10") & (table["week"] == "w2"), "target"] = "actin"
        return table, [], 'treatment "dna1_10" has Metadata_MoA actin and dna; expected one'
    if kind == "no controls on a plate":
        table = table[(table["drug"] != "DMSO") | (table["barcode"] != "w2b")]
        return table, ["--scaled-over", "plate"], '"w2b" has 0 control rows; at least 2 are needed'
    if kind == "no controls":
        return table[table["drug"] != "DMSO"], [], '--control "DMSO"'
    if kind == "fewer controls than features":
        table = wells(n_controls=1)
        return table, ["--ridge", "0"], '4 controls of "all" vary in 3 directions of 6'
    if kind == "duplicate rows":
        again = table.iloc[[5]].assign(position="H12")
        return pd.concat([table, again]), [], 'row "w1a_H12" repeats another row in all 6 features'
    if kind == "a well twice":
        again = table.iloc[[5]].copy()
        again[FEATURES] += 1.0
        return pd.concat([table, again]), [], 'plate "w1a", well "A07" is listed twice'
    if kind == "text":
        table["Cells_Edge"] = table["Cells_Edge"].astype(object)
        table.loc[7, "Cells_Edge"] = "broken"
        return table, [], 'row "w1a_A09", feature "Cells_Edge" holds "broken", '
    if kind == "empty":
        return table.iloc[:0], [], "no rows below the column names"
    if kind == "one batch":
        return table.assign(week="w1"), ["--protocols", "NSCB"], "--protocols"
    assert kind == "protocol"
    return table, ["--protocols", "NSCC"], "expected NSC, NSCB, or what is held out"


KINDS = (
    "nan|infinite|constant|one class|no class|two mechanisms|no controls on a plate|no controls|"
    "fewer controls than features|duplicate rows|a well twice|text|empty|one batch|protocol"
).split("|")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", ["t.csv", "t.parquet"])
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(here, said, kind, file):  # noqa: F811
    table, flags, words = spoilt(kind)
    if file == "t.parquet":
        if kind in ("text", "empty"):
            table["Cells_Edge"] = table["Cells_Edge"].astype(str)  # Parquet holds no mixed columns
        words = {"empty": "no rows"}.get(kind, words)
        if kind == "text":
            words = 'feature "Cells_Edge" holds "broken"'
            table["Cells_Edge"] = "broken"
        table.to_parquet(here / file)
    else:
        table.to_csv(here / file, index=False)
    line = refused(said, "evaluate", file, *FLAGS, *QUICK, *flags)
    assert words in line
    assert [path.name for path in here.iterdir()] == [file]


def test_older_scores_are_replaced_and_nothing_else_ever_is(here, said):  # noqa: F811
    evaluated(here, wells())
    evaluated(here, wells(seed=1))
    before = (here / "out" / "scores.csv").read_bytes()
    table, flags, _ = spoilt("nan")
    table.to_csv(here / "t.csv", index=False)
    refused(said, "evaluate", "t.csv", *FLAGS, *flags, "--out", "out")
    assert (here / "out" / "scores.csv").read_bytes() == before
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years of work")
    assert "holds no scores of phenolens" in refused(said, "evaluate", "t.csv", *FLAGS, "--out", "mine")
    assert (here / "mine" / "thesis.txt").read_text() == "years of work"


def test_the_same_command_gives_the_same_files(here):
    evaluated(here, wells())
    before = {path.name: path.read_bytes() for path in (here / "out").iterdir()}
    evaluated(here, wells())
    assert {path.name: path.read_bytes() for path in (here / "out").iterdir()} == before


def test_controls_that_do_not_span_all_directions_are_reported_with_what_to_do(here, capsys):
    evaluated(here, wells(n_controls=3), "--whitened-over", "plate", "--protocols", "NSC")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("whitening: ")]
    for value in ("3 controls", "4 plate groups", "2 of 6", "--whitened-over all", "zca", "--n-components 2"):
        assert value in line
    assert "eigensolver" in (here / "out" / "protocol.md").read_text()
    evaluated(here, wells(n_controls=3), "--whitened-over", "plate", "--well-statistic", "mean")
    assert "eigensolver" not in (here / "out" / "protocol.md").read_text()


def test_the_page_says_the_file_the_columns_the_draws_and_mean_average_precision(here):
    table = cells_of(wells())
    evaluated(here, table, "--statistics", "trimmed", "--well-statistic", "trimmed")
    text = (here / "out" / "protocol.md").read_text()
    sha = hashlib.sha256((here / "t.csv").read_bytes()).hexdigest()  # as sha256sum gives it
    for value in (f"t.csv, SHA-256 {sha}", __version__, "50 resamplings", "20 times", "200 random rankings", "seed 0"):
        assert value in text
    columns = "treatment drug_dose, compound drug, concentration uM, mechanism target, batch week, plate barcode"
    for what, column in (pair.split() for pair in columns.split(", ")):
        assert f"{what} from column {column}" in text
    assert "role from no column" in text
    assert '"DMSO"' in text
    assert text.count("positives") >= 2  # of treatments and of mechanisms
    assert text.count("fewer than 10") == 2  # trimmed means of cells and of wells


def test_about_holds_the_numbers_that_were_used_where_none_were_given(here):
    wells().to_csv(here / "t.csv", index=False)
    assert run("evaluate", "t.csv", *FLAGS, "--out", "out", "--null-draws", 100) == 0
    about = json.loads((here / "out" / "about.json").read_text())
    assert (about["scores"]["bootstraps"], about["scores"]["shuffles"]) == (10_000, 1_000)
    assert about["scores"]["protocols"] == ["NSC"]
    assert about["source"] == "t.csv"


def test_our_own_columns_are_named_where_no_flag_names_others(here):
    table = parts_of(wells())
    table.write_h5ad(here / "t.h5ad")
    pd.concat([table.obs, table.to_df()], axis=1).to_parquet(here / "t.parquet")
    for name in ("t.h5ad", "t.parquet"):
        assert run("evaluate", name, *QUICK, "--out", "out") == 0
        text = (here / "out" / "protocol.md").read_text()
        assert "mechanism from column Metadata_MoA" in text
        assert '"control" in column Metadata_Role' in text


def test_a_protocol_that_is_named_twice_is_scored_once(here):
    scores = evaluated(here, wells(), "--protocols", "NSC", "compound", "NSC", "compound+plate", "plate+compound")
    assert scores["held_out"].tolist() == ["compound", "compound+plate"]


def test_holding_out_the_well_of_treatments_is_refused_with_what_to_add(here, said):  # noqa: F811
    line = refused(said, "evaluate", "t.csv", *FLAGS, "--protocols", "well")  # before the table is looked for
    assert "--queries wells" in line


@pytest.mark.parametrize("kind", ["one class", "no class", "one batch"])
def test_what_cannot_be_scored_is_refused_before_anything_is_said_of_the_table(here, capsys, kind):
    table, flags, words = spoilt(kind)
    table.to_csv(here / "t.csv", index=False)
    assert run("evaluate", "t.csv", *FLAGS, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize("there", [True, False])
def test_another_kind_of_file_is_refused_with_the_kinds_that_are_read(here, said, there):  # noqa: F811
    if there:
        (here / "h.docx").write_bytes(b"PK")
    (here / "empty").mkdir()
    for name in ("h.docx", "empty"):
        assert ", .xlsx, .parquet, .h5ad" in refused(said, "evaluate", name, *FLAGS)


def test_the_figures_caption_has_the_accuracy_its_interval_chance_and_what_is_left_out(here):
    profiles = profiles_of([parts_of(wells())], TableConfig(), Recipe())
    for config, words in (
        (ScoreConfig(protocols=("NSC",), bootstraps=50, shuffles=5), "their own compound is left out."),
        (
            ScoreConfig(protocols=("plate+well",), queries="wells", bootstraps=50, shuffles=5),
            "the other wells with a mechanism; those of the same plate or well are left out.",
        ),
    ):
        (matching,), _ = matchings_of(matched_rows(profiles, config), config)
        found = scored(matching, config)
        score, text = found.score, caption(found)
        assert text.endswith(words)
        assert f"Accuracy: {100 * score.accuracy:.1f} % (95 % interval {100 * score.ci_low:.0f} to" in text
        assert f"by chance {100 * score.chance:.1f} %" in text


def test_a_study_refuses_flags_of_a_table_and_says_how(tiny_study, said):  # noqa: F811
    for flags in (["--ridge", 2], ["--treatment", "x"], ["--similarity", "pearson"], ["--rows", "wells"]):
        line = refused(said, "evaluate", tiny_study.folder, *flags)
        assert f"{flags[0]}: is for tables" in line
        assert "wells_mean.h5ad" in line


def test_scores_are_compared_query_by_query(here, capsys):
    table = wells()
    evaluated(here, table)
    rng = np.random.default_rng(0)
    table.loc[table["target"] == "dna", FEATURES] = rng.normal(50, 9, size=((table["target"] == "dna").sum(), 6))
    table.to_csv(here / "b.csv", index=False)
    assert run("evaluate", "b.csv", *FLAGS, *QUICK) == 0
    capsys.readouterr()
    assert run("compare", "out", "b_scores", "--out", "changed.csv") == 0
    changed = pd.read_csv(here / "changed.csv")
    assert set(changed["moa"]) == {"dna"}
    assert (changed["right_a"] & ~changed["right_b"]).all()
    assert f"counted in both: 18 queries; {len(changed)} right in a alone, 0 in b alone" in capsys.readouterr().out
    assert run("compare", "out", "nowhere") == 2
    for wrong in (("b_scores", "--protocol", "NSCB"), ("b_scores/neighbours_mean_NSC.csv",)):
        capsys.readouterr()
        assert run("compare", "out", *wrong) == 2
        assert "there is: neighbours_NSC.csv" in capsys.readouterr().err


def test_scores_of_two_protocols_and_damaged_ones_are_not_compared(here, said):  # noqa: F811
    table = wells()
    table["week"] = np.where(table["drug"].str.endswith("0"), "w1", "w2")
    evaluated(here, table)
    line = refused(said, "compare", "out/neighbours_NSC.csv", "out/neighbours_NSCB.csv")
    assert "out/neighbours_NSC.csv holds out compound, out/neighbours_NSCB.csv batch+compound" in line
    queries = pd.read_csv(here / "out" / "neighbours_NSC.csv")
    for spoil, words in (
        (lambda: queries.assign(right=["maybe", *queries["right"][1:]]), 'row 2: right is "maybe", expected True or'),
        (lambda: queries.assign(counted=""), 'row 2: counted is ""'),
        (lambda: pd.concat([queries, queries[:1]]).drop(columns="row"), "no column row"),
        (lambda: pd.concat([queries, queries[:1]]), f'row "{queries["row"][0]}"'),
        (lambda: queries.drop(columns="neighbour"), "no column neighbour"),
    ):
        spoil().to_csv(here / "b.csv", index=False)
        assert words in refused(said, "compare", "out/neighbours_NSC.csv", "b.csv")
    queries.to_csv(here / "b.csv", index=False)
    assert run("compare", "out/neighbours_NSC.csv", "b.csv") == 0


def test_scoring_a_table_needs_no_torch(here):
    wells().to_csv(here / "t.csv", index=False)
    script = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ImportError('there is no torch here')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from phenolens.cli import main\n"
        f"sys.exit(main({['evaluate', 't.csv', *FLAGS, *map(str, QUICK)]!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (here / "t_scores" / "scores.csv").exists()


def parts_of(table: pd.DataFrame) -> anndata.AnnData:
    """The wells under our own names."""
    obs = pd.DataFrame(
        {
            "Metadata_Plate": table["barcode"],
            "Metadata_Well": table["position"],
            "Metadata_Batch": table["week"],
            "Metadata_Compound": table["drug"],
            "Metadata_Concentration_um": table["uM"],
            "Metadata_MoA": table["target"].fillna(""),
            "Metadata_Role": np.where(table["drug"] == "DMSO", "control", "treated"),
            "Metadata_Treatment": table["drug_dose"],
        }
    )
    obs.index = (table["barcode"] + "_" + table["position"]).tolist()
    return anndata.AnnData(table[FEATURES].to_numpy(), obs=obs, var=pd.DataFrame(index=FEATURES))


def test_wells_of_one_treatment_find_each_other_before_controls_unless_they_are_like_controls():
    table = wells()
    idle = table["drug"].isin(["dna1"])
    table.loc[idle, FEATURES] = wells(seed=5).loc[table["drug"] == "DMSO", FEATURES].to_numpy()[: idle.sum()]
    profiles = profiles_of([parts_of(table)], TableConfig(), Recipe())
    precision = precision_of(profiles, "treatments", ScoreConfig(null_draws=500)).set_index("Metadata_Treatment")
    active = ~precision.index.str.startswith("dna1")
    np.testing.assert_allclose(precision["mean_average_precision"][active], 1)
    assert (precision["mean_average_precision"][~active] < 0.7).all()
    assert len(precision) == len(MECHANISMS) * 3 * 2


def test_the_callers_table_is_never_changed():
    table = parts_of(wells())
    before = table.copy()
    profiles = profiles_of([table], TableConfig(), Recipe(coral="batch"))
    matchings, absent = matchings_of(profiles.treatments, ScoreConfig())
    assert ([matching.protocol for matching in matchings], list(absent)) == (["NSC"], ["NSCB"])
    np.testing.assert_array_equal(table.X, before.X)
    pd.testing.assert_frame_equal(table.obs, before.obs)
    assert list(profiles.whitened.obs_names) == list(before.obs_names)


def test_nothing_is_learnt_where_nothing_is_to_be_learnt():
    table = parts_of(wells())
    no_controls = table[(table.obs["Metadata_Role"] == "treated").to_numpy()].copy()
    profiles = profiles_of([no_controls], TableConfig(), UNTOUCHED)
    np.testing.assert_array_equal(profiles.whitened.X, no_controls.X)
    with pytest.raises(InputError, match="no row is a control"):
        profiles_of([no_controls], TableConfig(), Recipe())


def test_the_published_vignette_by_one_command(real_data, here):
    ljosa_wells(real_data / "bbbc021", features=VIGNETTE).write_h5ad(here / "ljosa.h5ad")
    flags = "--scaled-over plate --whitening none --well-statistic mean --similarity pearson --protocols NSC".split()
    assert run("evaluate", "ljosa.h5ad", *flags, *QUICK) == 0
    published = pd.read_csv(real_data / "bbbc021" / "profiles" / "published_vignette_confusion_matrix.csv", index_col=0)
    ours = pd.read_csv(here / "ljosa_scores" / "confusion_NSC.csv", index_col=0)
    np.testing.assert_array_equal(ours.T, published)
    assert pd.read_csv(here / "ljosa_scores" / "scores.csv")["n_correct"].tolist() == [84]
