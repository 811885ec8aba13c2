"""Wells profiled by the distribution of their cells: values by hand, scipy's and closed formulas; scaled cells."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.stats import ks_2samp
from sklearn import svm

from phenolens import cli, pp
from phenolens.core.errors import InputError
from phenolens.core.provenance import provenance
from phenolens.profiles import populations
from phenolens.profiles.cell_scaling import fit_cell_scaling, fit_cell_tvn
from phenolens.profiles.kinds import ProfileConfig, check_cells
from phenolens.profiles.populations import Factors, Mixture, even_sample, signed_ks, svm_normal
from phenolens.profiles.whitening import apply_whitening
from phenolens.study import HEADLINE, Study
from travelling_study import RUN

PLATES = ("p1", "p2")


def cells_of(wells: dict[tuple[str, str], tuple[str, np.ndarray]]) -> AnnData:
    """A table of cells: {(plate, well): (compound, cells (n, Z))}; DMSO is the control."""
    obs = [
        {
            "Metadata_Plate": plate,
            "Metadata_Well": well,
            "Metadata_Batch": "week1",
            "Metadata_Compound": compound,
            "Metadata_Concentration_um": 0.0 if compound == "DMSO" else 1.0,
            "Metadata_MoA": "",
            "Metadata_Role": "control" if compound == "DMSO" else "treated",
            "Metadata_Is_Noise": False,
        }
        for (plate, well), (compound, cells) in wells.items()
        for _ in cells
    ]
    x = np.concatenate([cells for _, cells in wells.values()])
    index = [f"cell{i}" for i in range(len(x))]
    return AnnData(x, obs=pd.DataFrame(obs, index=index), var=pd.DataFrame(index=[f"z{j}" for j in range(x.shape[1])]))


def screen(rng, *, n: int = 30, features: int = 6) -> AnnData:
    """Two plates of two control wells and two compounds, of which `up` shifts feature 0 by 3 and `down` by -3."""
    shift = np.eye(features)[0] * 3
    wells = {}
    for number, plate in enumerate(PLATES):
        for well, compound, by in (("A1", "DMSO", 0), ("A2", "DMSO", 0), ("B1", "up", 1), ("B2", "down", -1)):
            wells[plate, well] = (compound, rng.normal(size=(n, features)) + 10 * number + by * shift)
    return cells_of(wells)


def by_plate(cells: AnnData) -> list[AnnData]:
    return [cells[cells.obs["Metadata_Plate"] == plate].copy() for plate in PLATES]


# Kolmogorov-Smirnov


def test_the_signed_statistic_by_hand():
    controls = np.array([[1.0, 5, 1], [2, 6, 2], [3, 7, 2], [4, 8, 9]])
    cells = np.array([[3.5, 1.0, 2], [9, 2, 2]])
    # feature 0: below 3.5 lie 3/4 of the controls and no cell; 1: all cells lie below; 2: at 2, 3/4 and all
    np.testing.assert_allclose(signed_ks(cells, controls), [0.75, -1.0, 0.25])


def test_the_statistic_and_its_sign_are_those_of_scipy(rng):
    controls, cells = rng.normal(size=(83, 20)), rng.normal(size=(41, 20)) * np.linspace(0.3, 3, 20) + 0.3
    found = signed_ks(cells, controls)
    for j, value in enumerate(found):
        expected = ks_2samp(controls[:, j], cells[:, j])
        assert value == pytest.approx(expected.statistic * expected.statistic_sign, abs=1e-12)


def test_a_well_is_compared_with_the_other_control_wells_of_its_plate(rng):
    cells = screen(rng)
    wells = pp.population_profiles(cells, method="ks")
    assert list(wells.var_names[:2]) == ["z0_ks", "z1_ks"]
    of_wells = {
        name: cells.X[((cells.obs["Metadata_Plate"] + "_" + cells.obs["Metadata_Well"]) == name).to_numpy()]
        for name in wells.obs_names
    }
    controls = np.concatenate([of_wells["p2_A1"], of_wells["p2_A2"]])
    np.testing.assert_allclose(wells["p2_B1"].X[0], signed_ks(of_wells["p2_B1"], controls))
    np.testing.assert_allclose(wells["p2_A1"].X[0], signed_ks(of_wells["p2_A1"], of_wells["p2_A2"]))
    assert wells["p1_B1"].X[0, 0] > 0.7
    assert wells["p1_B2"].X[0, 0] < -0.7
    parts = pp.population_profiles(by_plate(cells), method="ks")
    np.testing.assert_array_equal(parts.X, wells.X)


# plane between cells and controls


def test_the_normal_between_two_shifted_gaussians_points_along_the_shift(rng):
    shift = np.array([2.0, -1, 0, 0, 1])
    normal, settled = svm_normal(rng.normal(size=(900, 5)) + shift, rng.normal(size=(700, 5)), seed=0)
    assert settled
    assert normal @ shift / np.linalg.norm(normal) / np.linalg.norm(shift) > 0.98


def test_as_many_controls_are_drawn_as_there_are_cells(rng, monkeypatch):
    taken = []

    class Watched(svm.LinearSVC):
        def fit(self, x, y):
            taken.append((len(x), y.mean(), self.C, self.penalty, self.loss))
            return super().fit(x, y)

    monkeypatch.setattr(svm, "LinearSVC", Watched)
    svm_normal(rng.normal(size=(30, 2)), rng.normal(size=(500, 2)), seed=0)
    svm_normal(rng.normal(size=(70, 2)), rng.normal(size=(12, 2)), seed=0)
    assert taken == [(60, 0.5, 1.0, "l2", "squared_hinge"), (140, 0.5, 1.0, "l2", "squared_hinge")]


def test_planes_that_are_not_final_are_counted(rng, capsys, monkeypatch):
    class Short(svm.LinearSVC):
        def fit(self, x, y):
            return self.set_params(max_iter=1) and super().fit(x, y)

    pp.population_profiles(screen(rng), method="svm")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(svm, "LinearSVC", Short)
    pp.population_profiles(screen(rng), method="svm")
    assert "--cell-scaling" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["ks", "svm"])
def test_too_few_controls_on_a_plate_are_named(rng, method):
    cells = screen(rng, n=9)
    with pytest.raises(InputError, match=rf'plate "p1" has 9 .*well "A1".*--methods {method}') as refused:
        pp.population_profiles(cells, method=method)
    assert "\n" not in str(refused.value)


def test_a_plate_in_two_parts_is_refused(rng):
    cells = screen(rng)
    with pytest.raises(InputError, match='plate "p1"'):
        pp.population_profiles([cells[:60].copy(), cells[60:].copy()], method="ks")


# what all cells have in common


def test_a_mixture_profile_is_a_share_per_component_and_differs_between_treatments(rng):
    wells = pp.population_profiles(screen(rng, n=60, features=3), method="mixture")
    np.testing.assert_allclose(wells.X.sum(axis=1), 1, atol=1e-5)
    assert wells.X.min() >= 0
    assert wells.n_vars == populations.N_COMPONENTS
    change = np.abs(wells["p1_B1"].X - wells["p1_B2"].X).sum()
    assert change > 3 * np.abs(wells["p1_A1"].X - wells["p1_A2"].X).sum()


def test_a_mixture_is_fitted_in_the_axes_that_explain_four_fifths_and_at_least_twenty(rng):
    flat = Mixture.fit(rng.normal(size=(300, 60)), seed=0)
    assert 30 < flat.axes.shape[1] < 50
    assert flat.model.covariance_type == "diag"
    steep = Mixture.fit(rng.normal(size=(300, 60)) * 0.5 ** np.arange(60), seed=0)
    assert steep.axes.shape[1] == 20
    full = Mixture.fit(rng.normal(size=(300, 4)), seed=0)
    assert full.axes.shape[1] == 4
    assert full.model.covariance_type == "full"


def test_factor_scores_are_those_of_the_closed_formula(rng):
    x = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 30)) + rng.normal(size=(400, 30))
    x[:, 7] = 3.0  # constant: left out
    factors = Factors.fit(x, seed=0)
    cells = x[:50]
    y = (np.delete(cells, 7, axis=1) - np.delete(x, 7, axis=1).mean(0)) / np.delete(x, 7, axis=1).std(0)
    loadings, noise = factors.model.components_.T, factors.model.noise_variance_
    weighted = loadings.T / noise
    expected = np.linalg.solve(np.eye(loadings.shape[1]) + weighted @ loadings, weighted @ y.T).T.mean(0)
    np.testing.assert_allclose(factors.profile(cells), expected, rtol=1e-6, atol=1e-9)
    assert len(factors.names) == 29  # as many as features, at most 50


@pytest.mark.parametrize("method", ["svm", "mixture", "factors"])
def test_a_seed_gives_the_same_profiles_whole_and_plate_by_plate(rng, method):
    cells = screen(rng)
    whole, again, other = (pp.population_profiles(cells, method=method, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(whole.X, again.X)
    assert provenance(whole)["seed"] == 1
    np.testing.assert_allclose(pp.population_profiles(by_plate(cells), method=method, seed=1).X, whole.X, atol=1e-7)
    assert not np.allclose(whole.X, other.X, atol=1e-3) or method == "factors"


def test_a_sample_has_as_many_cells_of_each_treatment_whatever_the_order_of_plates(rng, monkeypatch):
    monkeypatch.setattr(populations, "SAMPLE", 60)
    cells = screen(rng, n=50)
    cells.X[:, 1] = np.arange(cells.n_obs)
    sample = np.concatenate(list(even_sample(by_plate(cells), seed=0).values()))
    role = cells.obs["Metadata_Compound"].iloc[sample[:, 1].astype(int)]
    assert role.value_counts().to_dict() == {"DMSO": 20, "up": 20, "down": 20}
    other = np.concatenate(list(even_sample(by_plate(cells)[::-1], seed=0).values()))
    assert set(sample[:, 1]) == set(other[:, 1])
    assert set(sample[:, 1]) != set(np.concatenate(list(even_sample([cells], seed=1).values()))[:, 1])


@pytest.mark.parametrize("method", ["mixture", "factors"])
def test_what_cannot_be_fitted_is_refused(rng, method):
    cells = screen(rng, n=3)
    with pytest.raises(InputError, match="can be read only once"):
        pp.population_profiles(iter(by_plate(cells)), method=method)
    cells.X = np.ones_like(cells.X)
    with pytest.raises(InputError, match=method):
        pp.population_profiles(cells, method=method)


# scaled cells


def test_the_percentiles_of_a_plates_controls_become_0_and_1(rng):
    cells = screen(rng, n=60)
    cells.X[:, 3] = 5.0  # cannot be scaled
    scaled = pp.scale_cells(cells)
    assert list(scaled.var_names) == ["z0", "z1", "z2", "z4", "z5"]
    kept = np.delete(cells.X, 3, axis=1)
    for plate in PLATES:
        own = (cells.obs["Metadata_Plate"] == plate).to_numpy()
        low, high = np.percentile(kept[own & (cells.obs["Metadata_Role"] == "control")], [1, 99], axis=0)
        np.testing.assert_allclose(scaled.X[own], (kept[own] - low) / (high - low), rtol=1e-4, atol=1e-5)
    assert scaled.X.max() > 1.2  # not clipped


def test_a_plate_of_few_controls_is_scaled_by_all_and_clipped_and_this_is_said(rng, capsys):
    cells = screen(rng, n=60)
    many = cells.obs["Metadata_Plate"] == "p1"
    few = cells[many | cells.obs["Metadata_Well"].isin(["A2", "B1"])].copy()  # 60 - 30 controls of p2
    few = few[~(few.obs_names.isin(few.obs_names[-80:-60]) & (few.obs["Metadata_Plate"] == "p2"))].copy()
    few.X[-1] = 1e6
    scaled = pp.scale_cells(few)
    said = capsys.readouterr().err
    assert '"p2"' in said
    controls = few.X[(few.obs["Metadata_Role"] == "control").to_numpy()]
    low, high = np.percentile(controls, [1, 99], axis=0)
    own = (few.obs["Metadata_Plate"] == "p2").to_numpy()
    expected = np.clip((few.X[own] - low) / (high - low), -20, 20)
    np.testing.assert_allclose(scaled.X[own], expected, rtol=1e-4, atol=1e-5)
    assert scaled.X.max() == 20
    assert provenance(scaled)["pooled"] == ["p2"]


def test_cells_without_controls_or_without_differences_are_not_scaled(rng):
    cells = screen(rng)
    with pytest.raises(InputError, match="control"):
        pp.scale_cells(cells[cells.obs["Metadata_Role"] == "treated"].copy())
    cells.X = np.ones_like(cells.X)
    with pytest.raises(InputError, match="--cell-scaling"):
        fit_cell_scaling([cells])


def test_tvn_of_cells_whitens_on_control_cells_and_aligns_batches(rng):
    cells = screen(rng, n=60)
    cells.obs["Metadata_Batch"] = cells.obs["Metadata_Plate"]
    fit = fit_cell_tvn(by_plate(cells), ridge=0.5)
    parts = [apply_whitening(part, fit) for part in by_plate(cells)]
    whole = pp.whiten(cells, ridge=0.5, coral="batch", coral_form="google")
    np.testing.assert_allclose(np.concatenate([part.X for part in parts]), whole.X, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="control"):
        fit_cell_tvn([cells[cells.obs["Metadata_Role"] == "treated"].copy()], ridge=1.0)


# a study


@pytest.fixture
def study(travelling, tmp_path) -> Study:
    """A study of one embedded run."""
    return Study.open(shutil.copytree(travelling.folder, tmp_path / "study"))


def test_methods_are_further_kinds_of_profiles_that_are_scored_like_the_others(study):
    folder, scoring = str(study.folder), ["--bootstraps", "20", "--shuffles", "20"]
    assert cli.main(["profile", folder, "--methods", "mixture", "ks", "--cell-scaling", "percentiles"]) == 0
    assert cli.main(["evaluate", folder, *scoring]) == 0
    kinds = study.scores.groupby("statistics")["whitening"].unique().map(set).to_dict()
    assert kinds == {
        "mean": {"none", "whitened", "zscore", "aligned"},
        **{name: {"none", "whitened", "zscore"} for name in ("mean+sd", "ks", "mixture")},
    }
    assert study.headline == HEADLINE
    wells = study.profiles(RUN, level="well", statistics="ks")
    assert wells.n_obs == study.profiles(RUN, level="well").n_obs
    assert np.abs(wells.X).max() <= 1
    treatments = study.profiles(RUN, statistics="mixture", whitening="none")
    assert treatments.n_obs == study.profiles(RUN).n_obs
    about = json.loads((study.profiles_folder(RUN) / "about.json").read_text())["config"]
    assert (about["methods"], about["methods_seed"], about["cell_scaling"]) == (["mixture", "ks"], 0, "percentiles")
    scaled = pp.well_profiles(pp.scale_cells(study.embeddings(RUN)))
    np.testing.assert_allclose(study.profiles(RUN, level="well").X, scaled.X, rtol=1e-5, atol=1e-5)

    assert cli.main(["profile", folder, "--cell-scaling", "tvn", "--ridge", "2"]) == 0
    cells = pp.whiten(study.embeddings(RUN), ridge=2, coral="batch", coral_form="google", constant_features="left out")
    np.testing.assert_allclose(study.profiles(RUN, level="well").X, pp.well_profiles(cells).X, rtol=1e-4, atol=1e-4)

    assert cli.main(["profile", folder]) == 0
    assert cli.main(["evaluate", folder, *scoring]) == 0
    assert set(study.scores["statistics"]) == {"mean", "mean+sd"}
    assert not list(study.profiles_folder(RUN).glob("*ks*"))


def test_too_few_controls_and_unknown_methods_are_refused_with_one_line(study, capsys, monkeypatch):
    monkeypatch.setattr(populations, "LEAST_CONTROLS", 1000)
    assert cli.main(["profile", str(study.folder), "--methods", "ks", "gmm"]) == 2
    assert "gmm" in capsys.readouterr().err
    assert cli.main(["profile", str(study.folder), "--methods", "ks"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "control cells" in line]
    assert "--methods" in line
    assert not (study.profiles_folder(RUN) / "about.json").exists()


def test_too_few_cells_for_these_profiles_are_told_from_the_table_of_cells():
    wells = [("p1", "A01", "control", 9), ("p1", "A02", "control", 4), ("p1", "A03", "treated", 3)]
    rows = [dict(zip(("plate", "well", "role"), well), is_noise=i > 5) for *well, n in wells for i in range(n)]
    cells = pd.DataFrame(rows)  # 6, 4 and 3 cells that are no noise
    check_cells(cells, ProfileConfig(min_cells=6))
    check_cells(cells, ProfileConfig(methods=("mixture",)))
    with pytest.raises(InputError, match="--min-cells 7: no well has so many cells; the largest has 6"):
        check_cells(cells, ProfileConfig(min_cells=7))
    with pytest.raises(InputError, match=r'"p1" has 4 control cells outside well "A01"; --methods svm needs 10'):
        check_cells(cells, ProfileConfig(methods=("mixture", "svm")))
    check_cells(cells[cells["role"] == "treated"], ProfileConfig())
    enough = pd.concat([cells, cells.assign(well="A04", role="control"), cells.assign(well="A05", role="control")])
    check_cells(enough, ProfileConfig(methods=("ks",)))
