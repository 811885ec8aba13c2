"""Whitening within treatments: the literal definition, in one table or many, in a study and for a table."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from phenolens import cli
from phenolens.core.errors import InputError
from phenolens.pipeline import EmbedConfig, ProfileConfig, embed, profile, train
from phenolens.profiles.whitening import Recipe, apply_whitening, fit_whitening, whiten
from phenolens.profiles.within_treatments import _aligned_by, fit_within_treatments
from phenolens.training.config import TrainConfig


def cells(rng, n: int = 300, features: int = 6, treatments: int = 12) -> AnnData:
    """Cells whose treatments differ in mean, with a spread within treatments that has a preferred direction."""
    treatment = rng.integers(treatments, size=n)
    mixing = rng.normal(size=(features, features))
    x = rng.normal(size=(n, features)) @ mixing + 3 * rng.normal(size=(treatments, features))[treatment] + 1000
    obs = pd.DataFrame({"Metadata_Treatment": [f"t{code}" for code in treatment]}, index=[str(i) for i in range(n)])
    return AnnData(x, obs=obs)


def literally(x: np.ndarray, treatment: np.ndarray, ridge: float) -> np.ndarray:
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    residuals = np.concatenate(
        [scaled[treatment == one] - scaled[treatment == one].mean(axis=0) for one in np.unique(treatment)]
    )
    values, vectors = np.linalg.eigh(residuals.T @ residuals / len(x))
    return scaled @ (vectors / np.sqrt(values + ridge)) @ vectors.T


def in_batches(table: AnnData, rng) -> AnnData:
    """t0 and t1 are in both batches, each other treatment in one; the batches differ in mean."""
    treatment = table.obs["Metadata_Treatment"]
    repeated = treatment.isin(["t0", "t1"]).to_numpy()
    batch = np.where(repeated, rng.integers(2, size=len(table)), treatment.str[1:].astype(int) % 2)
    return AnnData(table.X + 5 * batch[:, None], obs=table.obs.assign(Metadata_Batch=[f"b{one}" for one in batch]))


def aligned_literally(x: np.ndarray, obs: pd.DataFrame, ridge: float) -> np.ndarray:
    """One batch at a time, one repeated treatment at a time, in scaled features."""
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    aligned = scaled.copy()
    repeated = [name for name, own in obs.groupby("Metadata_Treatment") if own["Metadata_Batch"].nunique() > 1]
    for batch in set(obs["Metadata_Batch"]):
        residuals = []
        for name in repeated:
            of_treatment = (obs["Metadata_Treatment"] == name).to_numpy()
            here = of_treatment & (obs["Metadata_Batch"] == batch).to_numpy()
            residuals.append(scaled[here] - scaled[of_treatment].mean(axis=0))
        rows = np.concatenate(residuals)
        aligned[(obs["Metadata_Batch"] == batch).to_numpy()] -= rows.mean(axis=0) * len(rows) / (len(rows) + 100)
    treatment = obs["Metadata_Treatment"].to_numpy()
    residuals = aligned - pd.DataFrame(aligned).groupby(treatment).transform("mean").to_numpy()
    values, vectors = np.linalg.eigh(residuals.T @ residuals / len(x))
    return aligned @ (vectors / np.sqrt(values + ridge)) @ vectors.T


def test_batches_are_aligned_by_the_treatments_in_several_whether_rows_come_in_one_table_or_by_batch(rng):
    table = in_batches(cells(rng), rng)
    expected = aligned_literally(table.X, table.obs, 1.0)
    recipe = Recipe(learnt_on="treatments", scaled_over="batch", whitening="zca")
    by_batch = [table[table.obs["Metadata_Batch"] == batch] for batch in ("b1", "b0")]
    for tables in ([table], by_batch):
        fit = fit_within_treatments(tables, recipe)
        np.testing.assert_allclose(apply_whitening(table, fit).X, expected, atol=1e-8)
    assert "2 treatments" in str(fit.certificates[0])


def test_without_a_treatment_in_several_batches_nothing_is_aligned(rng):
    table = in_batches(cells(rng), rng)
    table.obs["Metadata_Treatment"] += table.obs["Metadata_Batch"]
    plain, aligned = (
        apply_whitening(table, fit_whitening(table, Recipe(learnt_on="treatments", scaled_over=extent)))
        for extent in ("all", "batch")
    )
    np.testing.assert_array_equal(plain.X, aligned.X)


@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_it_is_the_literal_definition_whether_rows_come_in_one_table_or_in_three(rng, ridge):
    table = cells(rng)
    expected = literally(table.X, table.obs["Metadata_Treatment"].to_numpy(), ridge)
    white = whiten(table, learnt_on="treatments", method="zca", ridge=ridge)
    np.testing.assert_allclose(white.X, expected, atol=1e-8)
    recipe = Recipe(learnt_on="treatments", whitening="zca", ridge=ridge)
    parts = fit_within_treatments([table[:100], table[100:140], table[140:]], recipe)
    np.testing.assert_allclose(apply_whitening(table, parts).X, expected, atol=1e-8)


def test_without_a_ridge_cells_vary_alike_in_every_direction_within_their_treatments(rng):
    table = cells(rng)
    fit = fit_whitening(table, Recipe(learnt_on="treatments", ridge=0))
    white = apply_whitening(table, fit)
    x = pd.DataFrame(np.asarray(white.X))
    residuals = x - x.groupby(table.obs["Metadata_Treatment"].to_numpy()).transform("mean")
    np.testing.assert_allclose(residuals.T @ residuals / len(x), np.eye(x.shape[1]), atol=1e-8)
    (certificate,) = fit.certificates
    assert (certificate.n_rows, certificate.rank) == (300, 6)
    assert certificate.largest_deviation < 1e-8


def test_noise_is_left_out_and_features_without_spread_are_refused_or_left_out(rng):
    table = cells(rng)
    obs = pd.concat([table.obs, table.obs[:5].set_index("noise" + table.obs_names[:5])])
    noisy = AnnData(np.concatenate([table.X, np.full((5, 6), 1e6)]), obs=obs)
    noisy.obs["Metadata_Is_Noise"] = [False] * 300 + [True] * 5
    recipe = Recipe(learnt_on="treatments")
    ours, theirs = (fit_whitening(each, recipe).centre_and_scale["all"][0] for each in (table, noisy))
    np.testing.assert_allclose(ours, theirs)
    table.X[:, 2] = 7
    with pytest.raises(InputError, match=r'"2".*--constant-features'):
        fit_whitening(table, recipe)
    left_out = fit_whitening(table, Recipe(learnt_on="treatments", constant_features="left out"))
    assert left_out.constant_features == ("2",)


def test_rows_that_are_only_scaled_have_a_certificate_of_their_covariance_as_it_is(rng):
    table = cells(rng)
    (certificate,) = fit_whitening(table, Recipe(learnt_on="treatments", whitening="none", ridge=0)).certificates
    scaled = pd.DataFrame((table.X - table.X.mean(axis=0)) / table.X.std(axis=0))
    residuals = scaled - scaled.groupby(table.obs["Metadata_Treatment"].to_numpy()).transform("mean")
    variances = np.linalg.eigvalsh(residuals.T @ residuals / len(scaled))
    assert "not whitened" in str(certificate)
    np.testing.assert_allclose(certificate.spanned_variance, (variances[0], variances[-1]), rtol=1e-8)


def test_what_cannot_be_whitened_within_treatments_is_named(rng):
    table = cells(rng)
    with pytest.raises(InputError, match="--whitened-over plate"):
        fit_whitening(table, Recipe(learnt_on="treatments", whitened_over="plate"))
    with pytest.raises(InputError, match="Metadata_Batch"):
        fit_whitening(table, Recipe(learnt_on="treatments", scaled_over="batch"))
    with pytest.raises(InputError, match="repeats"):
        fit_whitening(table[~table.obs["Metadata_Treatment"].duplicated()], Recipe(learnt_on="treatments"))
    few = table[table.obs["Metadata_Treatment"].isin(["t0", "t1"])][:5]
    with pytest.raises(InputError, match="--ridge"):
        fit_whitening(few, Recipe(learnt_on="treatments", ridge=0))


def test_a_studys_profiles_are_means_of_cells_whitened_within_their_treatments(tiny_study):
    train(tiny_study, TrainConfig(model="pca", steps=1, threads=1, network={"latent_size": 6}), name="pca-seed0")
    embed(tiny_study, "pca-seed0", EmbedConfig(threads=1))
    profile(tiny_study, "pca-seed0", ProfileConfig())
    table = tiny_study.embeddings("pca-seed0")
    counted = table[~table.obs["Metadata_Is_Noise"].to_numpy(bool)]
    treatment = counted.obs["Metadata_Treatment"].to_numpy()
    x = np.asarray(counted.X, float)
    white = pd.DataFrame(aligned_literally(x, counted.obs, 1.0)).groupby(treatment).mean()
    ours = tiny_study.profiles("pca-seed0")
    theirs = white.loc[ours.obs["Metadata_Treatment"]].to_numpy()
    np.testing.assert_allclose(np.asarray(ours.X) @ np.asarray(ours.X).T, theirs @ theirs.T, rtol=1e-3, atol=1e-3)
    assert cli.main(["evaluate", str(tiny_study.folder), "--shuffles", "5", "--bootstraps", "5"]) == 0
    assert "aligned" in set(tiny_study.scores["whitening"])


@pytest.mark.parametrize(
    ("names", "said"), [("aa", "the 1 treatment that is in"), ("ab", "the 2 treatments that are in")]
)
def test_treatments_in_several_batches_are_counted_in_words(names, said):
    parts = pd.DataFrame({"treatment": list(names), "batch": [0, 1], "rows": [3, 4]})
    moments = SimpleNamespace(parts=parts, repeated=np.array([True, True]), batches=["w1", "w2"])
    assert said in _aligned_by(moments, "batch")
