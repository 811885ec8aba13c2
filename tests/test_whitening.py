"""Whitened controls have identity covariance, asserted as it is; then every choice of a recipe, then refusals."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from anndata import AnnData

from naive_scores import whiten as naive_whiten
from phenolens.core.errors import InputError
from phenolens.core.provenance import provenance
from phenolens.profiles.coral import coral
from phenolens.profiles.covariance import eigen, eigen_of_rows, eigenvalues_of_rows, second_moment
from phenolens.profiles.whitening import TVN, Recipe, apply_whitening, fit_whitening, whiten
from phenolens.profiles.whitening_certificate import Certificate


def wells_of(features: np.ndarray, *, n_controls: int, n_plates: int = 2, n_batches: int = 2) -> AnnData:
    """Wells on plates in turn; the first `n_controls` are controls."""
    row = np.arange(len(features))
    obs = pd.DataFrame(
        {
            "Metadata_Plate": [f"p{plate}" for plate in row % n_plates],
            "Metadata_Well": [f"{chr(65 + index // 90)}{index % 90 + 1:02d}" for index in row],
            "Metadata_Batch": [f"week{batch}" for batch in row % n_plates % n_batches],
            "Metadata_Role": np.where(row < n_controls, "control", "treated"),
        },
        index=[f"well{index}" for index in row],
    )
    return AnnData(features, obs=obs, var=pd.DataFrame(index=[f"f{axis}" for axis in range(features.shape[1])]))


def correlated(rng, n, n_features=4):
    return rng.normal(size=(n, n_features)) @ rng.normal(size=(n_features, n_features)) + 50  # far from zero


def is_control(wells):
    return (wells.obs["Metadata_Role"] == "control").to_numpy()


@pytest.mark.parametrize("whitening", ["pca", "zca"])
@pytest.mark.parametrize("scaling", ["zscore", "robust", "centre", "none"])
def test_whitened_controls_have_identity_covariance(rng, whitening, scaling):
    wells = wells_of(correlated(rng, 600), n_controls=500)
    white = whiten(wells, scaling=scaling, method=whitening, ridge=0)
    controls = white.X[is_control(wells)]
    np.testing.assert_allclose(np.cov(controls.T, ddof=0), np.eye(4), atol=1e-6)
    np.testing.assert_allclose(controls.mean(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize("extent", ["plate", "batch"])
def test_controls_of_each_group_have_identity_covariance_when_whitened_by_group(rng, extent):
    wells = wells_of(correlated(rng, 600), n_controls=500, n_plates=3, n_batches=2)
    white = whiten(wells, per=extent, ridge=0)
    column = {"plate": "Metadata_Plate", "batch": "Metadata_Batch"}[extent]
    for group in set(wells.obs[column]):
        controls = white.X[is_control(wells) & (wells.obs[column] == group).to_numpy()]
        np.testing.assert_allclose(np.cov(controls.T, ddof=0), np.eye(4), atol=1e-6)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 10.0])
def test_the_default_is_its_written_definition(rng, ridge):
    wells = wells_of(correlated(rng, 60), n_controls=40)
    expected = naive_whiten(wells.X, is_control(wells), ridge=ridge)
    zca = whiten(wells, method="zca", ridge=ridge)
    np.testing.assert_allclose(zca.X, expected, atol=1e-10)
    pca = whiten(wells, ridge=ridge)  # the same up to a rotation: all angles and lengths agree
    np.testing.assert_allclose(pca.X @ pca.X.T, expected @ expected.T, atol=1e-9)


@pytest.mark.parametrize("n_controls", [3, 12, 20, 21, 39, 40])
def test_few_controls_of_many_features_are_whitened_by_the_same_definition(rng, n_controls):
    wells = wells_of(correlated(rng, 60, n_features=40), n_controls=n_controls)
    expected = naive_whiten(wells.X, is_control(wells), ridge=1.0)
    np.testing.assert_allclose(whiten(wells, method="zca").X, expected, rtol=1e-9, atol=1e-9)
    pca = whiten(wells).X
    np.testing.assert_allclose(pca @ pca.T, expected @ expected.T, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("n", [1, 7, 20, 21, 40, 60])
def test_directions_of_rows_are_those_of_their_covariance(rng, n):
    rows = correlated(rng, n, n_features=40)
    rows -= rows.mean(axis=0)
    covariance = second_moment(rows)
    values, vectors = eigen_of_rows(rows)
    np.testing.assert_allclose(values, eigen(covariance)[0], atol=1e-12 * values[0])
    np.testing.assert_allclose(eigenvalues_of_rows(rows), values, atol=1e-12 * values[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(40), atol=1e-12)
    np.testing.assert_allclose((vectors * values) @ vectors.T, covariance, atol=1e-12 * values[0])


def test_the_default_recipe_is_ridge_1_on_all_controls_after_the_z_score():
    recipe = Recipe()
    assert (recipe.scaling, recipe.scaled_over, recipe.whitening, recipe.whitened_over) == (
        "zscore",
        "all",
        "pca",
        "all",
    )
    assert (recipe.learnt_on, recipe.ridge, recipe.ridge_unit, recipe.coral) == ("controls", 1.0, "absolute", "none")


def test_a_z_score_uses_the_n_minus_1_deviation_of_the_controls():
    wells = wells_of(np.array([[0.0], [2.0], [4.0], [10.0]]), n_controls=3, n_plates=1)
    np.testing.assert_allclose(whiten(wells, method="none").X, [[-1], [0], [1], [4]])


def test_a_z_score_per_plate_uses_that_plates_controls():
    features = np.array([[0.0], [100.0], [2.0], [300.0], [5.0], [400.0]])
    wells = wells_of(features, n_controls=4, n_plates=2)
    scored = whiten(wells, method="none", scaled_over="plate")
    np.testing.assert_allclose(scored.X[4:], [[4 / np.sqrt(2)], [200 / (200 / np.sqrt(2))]])


def test_a_robust_score_uses_median_and_mad():
    wells = wells_of(np.array([[1.0], [2.0], [3.0], [5.0], [900.0], [3 + 1.4826 * 2]]), n_controls=5, n_plates=1)
    assert whiten(wells, scaling="robust", method="none").X[5, 0] == pytest.approx(1)


def test_learning_on_everything_whitens_everything(rng):
    wells = wells_of(correlated(rng, 300), n_controls=10)
    white = whiten(wells, learnt_on="everything", ridge=0)
    np.testing.assert_allclose(np.cov(white.X.T, ddof=0), np.eye(4), atol=1e-6)


def test_a_relative_ridge_is_a_share_of_the_mean_eigenvalue(rng):
    wells = wells_of(correlated(rng, 100), n_controls=90)
    certificate = fit_whitening(wells, Recipe(scaling="centre", ridge=0.5, ridge_unit="relative")).certificates[0]
    mean_variance = np.cov(wells.X[:90].T, ddof=0).trace() / 4
    assert certificate.ridge == pytest.approx(0.5 * mean_variance)


def test_truncation_keeps_the_leading_directions(rng):
    wells = wells_of(rng.normal(size=(100, 3)) * [1, 10, 100], n_controls=90)
    white = whiten(wells, scaling="centre", ridge=0, n_components=1)
    assert white.shape == (100, 1)
    assert abs(np.corrcoef(white.X[:, 0], wells.X[:, 2])[0, 1]) > 0.999
    assert whiten(wells, scaling="centre", method="zca", ridge=0, n_components=1).shape == (100, 3)


def test_ledoit_wolf_whitens_by_its_definition_row_by_row(rng):
    wells = wells_of(rng.normal(size=(24, 5)) @ rng.normal(size=(5, 5)), n_controls=20)
    centred = wells.X[:20] - wells.X[:20].mean(axis=0)
    sample = centred.T @ centred / 20
    target = np.trace(sample) / 5 * np.eye(5)
    noise = sum(np.square(np.outer(row, row) - sample).sum() for row in centred) / 20**2
    share = min(1, noise / np.square(sample - target).sum())
    white = whiten(wells, scaling="centre", estimate="ledoit-wolf", ridge=0).X
    expected = np.linalg.inv(share * target + (1 - share) * sample)  # lengths after whitening are Mahalanobis'
    np.testing.assert_allclose(white @ white.T, (c := wells.X - wells.X[:20].mean(axis=0)) @ expected @ c.T, atol=1e-9)


def test_tvn_gives_every_batch_the_regularised_second_moment_of_all_controls(rng):
    features = correlated(rng, 400)
    features[1::2] *= [1, 3, 0.5, 2]  # the second batch has other spreads
    wells = wells_of(features, n_controls=300)
    before, after = whiten(wells), whiten(wells, coral="batch")
    first = is_control(wells) & (wells.obs["Metadata_Batch"] == "week0").to_numpy()
    second = is_control(wells) & (wells.obs["Metadata_Batch"] == "week1").to_numpy()
    everything = second_moment(before.X[is_control(wells)]) + np.eye(4)
    for batch in (
        first,
        second,
    ):  # (S_b + I)^(-1/2) then (S_all + I)^(1/2), so that S_b + I becomes S_all + I
        own = second_moment(before.X[batch]) + np.eye(4)
        matrix = np.linalg.lstsq(before.X[batch], after.X[batch], rcond=None)[0]
        np.testing.assert_allclose(matrix.T @ own @ matrix, everything, atol=1e-8)


def naive_tvn(x: np.ndarray, controls: np.ndarray, batches: np.ndarray, form: str) -> np.ndarray:
    """The recipes as their authors write them, in loops; up to a rotation of the axes."""
    n = controls.sum()
    if form != "google":
        x = (x - x[controls].mean(0)) / x[controls].std(0, ddof=1)
    x = x - x[controls].mean(0)
    values, vectors = np.linalg.eigh(x[controls].T @ x[controls] / n)
    x = x @ vectors / np.sqrt(values + (1 if form == "broad" else 0))
    aligned = np.empty_like(x)
    for batch in set(batches):
        own = x[controls & (batches == batch)]
        if form == "broad":
            matrix = inverse_root(own.T @ own / len(own) + np.eye(x.shape[1]))
            matrix = matrix @ np.linalg.inv(inverse_root(x[controls].T @ x[controls] / n + np.eye(x.shape[1])))
        else:
            matrix = inverse_root(np.cov(own.T) + (1 if form == "google" else 0.5) * np.eye(x.shape[1]))
        centre = own.mean(0) if form == "google" else 0
        aligned[batches == batch] = (x[batches == batch] - centre) @ matrix
    return aligned


def inverse_root(symmetric: np.ndarray) -> np.ndarray:
    return np.linalg.inv(scipy.linalg.sqrtm(symmetric).real)


@pytest.mark.parametrize("form", TVN)
def test_each_published_form_of_tvn_is_its_naive_twin(rng, form):
    features = correlated(rng, 200)
    features[1::2] = features[1::2] * [1, 3, 0.5, 2] + 4  # the second batch has other means and spreads
    wells = wells_of(features, n_controls=120)
    ours = apply_whitening(wells, fit_whitening(wells, TVN[form])).X
    expected = naive_tvn(features, is_control(wells), wells.obs["Metadata_Batch"].to_numpy(), form)
    np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, rtol=1e-8, atol=1e-8)
    others = [apply_whitening(wells, fit_whitening(wells, TVN[other])).X for other in TVN if other != form]
    assert all(np.abs(cosines(ours) - cosines(other)).max() > 0.01 for other in others)


@pytest.mark.parametrize("n", [2, 12, 30])
def test_axes_in_which_controls_do_not_vary_depend_neither_on_rounding_nor_on_the_order_of_wells(rng, n):
    rows = correlated(rng, n, n_features=40)
    vectors = eigen_of_rows(rows - rows.mean(axis=0))[1]
    other = rows[::-1] + rng.normal(size=rows.shape) * 1e-9
    np.testing.assert_allclose(eigen_of_rows(other - other.mean(axis=0))[1], vectors, atol=1e-5)


def test_rows_that_do_not_vary_leave_the_axes_as_they_are():
    values, vectors = eigen_of_rows(np.zeros((3, 8)))
    np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(vectors, np.eye(8))


@pytest.mark.parametrize("form", TVN)
@pytest.mark.parametrize("n", [5, 60])
def test_batches_of_few_and_of_many_controls_are_aligned_by_the_same_definition(rng, form, n):
    batch, everything = correlated(rng, n, n_features=20) - 49, correlated(rng, 70, n_features=20) - 50
    centre, matrix = coral({"week0": batch}, everything, form=form)["week0"]
    identity = np.eye(20)
    expected = inverse_root(np.cov(batch.T) + (1 if form == "google" else 0.5) * identity)
    if form == "broad":
        to_all = scipy.linalg.sqrtm(everything.T @ everything / 70 + identity).real
        expected = inverse_root(batch.T @ batch / n + identity) @ to_all
    np.testing.assert_allclose(matrix, expected, atol=1e-9)
    np.testing.assert_allclose(centre, batch.mean(axis=0) if form == "google" else 0)


def cosines(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def test_the_forms_of_tvn_give_the_same_cosines_where_every_batch_has_identity_covariance(rng):
    features = rng.normal(size=(300, 4))
    wells = wells_of(features, n_controls=200)
    for batch in ("week0", "week1"):
        rows = is_control(wells) & (wells.obs["Metadata_Batch"] == batch).to_numpy()
        centred = features[rows] - features[rows].mean(0)
        features[rows] = centred @ inverse_root(np.cov(centred.T))
    wells.X = features
    found = [cosines(apply_whitening(wells, fit_whitening(wells, recipe)).X) for recipe in TVN.values()]
    np.testing.assert_allclose(found[1], found[0], atol=1e-9)
    np.testing.assert_allclose(found[2], found[0], atol=1e-9)


def test_a_form_of_coral_without_coral_is_refused(rng):
    with pytest.raises(InputError, match=r"--coral-form google.*--coral"):
        whiten(wells_of(correlated(rng, 60), n_controls=40), coral_form="google")


def test_a_certificate_says_what_was_achieved(rng):
    wells = wells_of(correlated(rng, 600), n_controls=500)
    exact = fit_whitening(wells, Recipe(ridge=0)).certificates[0]
    assert (exact.n_rows, exact.n_features, exact.rank, exact.ridge) == (500, 4, 4, 0)
    assert exact.largest_deviation < 1e-10
    with_ridge = fit_whitening(wells).certificates[0]
    values = np.linalg.eigvalsh(np.corrcoef(wells.X[:500].T) * 499 / 500)
    assert with_ridge.largest_deviation == pytest.approx(1 - values[0] / (values[0] + 1))
    assert with_ridge.condition_number == pytest.approx((values[-1] + 1) / (values[0] + 1))


def test_a_certificate_tells_in_plain_words_what_six_controls_cannot_do(rng):
    wells = wells_of(rng.normal(size=(24, 512)), n_controls=12, n_plates=2)
    certificates = fit_whitening(wells, Recipe(whitened_over="plate")).certificates
    assert [certificate.group for certificate in certificates] == ["p0", "p1"]
    assert certificates[0].rank == 5
    assert "6 controls" in str(certificates[0])
    assert "5 of 512" in str(certificates[0])
    assert provenance(whiten(wells))["certificates"][0]["rank"] == 11


def test_a_constant_feature_is_left_out_and_listed_and_nothing_is_nan(rng):
    features = rng.normal(size=(40, 3))
    features[:20, 1] = 0.1  # constant among the controls only; 0.1 summed up does not give a deviation of exactly 0
    wells = wells_of(features, n_controls=20)
    with pytest.raises(InputError, match='feature "f1" has no spread in the control rows of "all"'):
        fit_whitening(wells, Recipe(whitening="zca"))
    fitted = fit_whitening(wells, Recipe(whitening="zca", constant_features="left out"))
    assert fitted.constant_features == ("f1",)
    white = apply_whitening(wells, fitted)
    assert list(white.var_names) == ["f0", "f2"]
    assert np.isfinite(white.X).all()
    assert provenance(white)["constant_features_left_out"] == ["f1"]


def test_rows_keep_their_index_and_the_callers_table_is_as_it_was(rng):
    wells = wells_of(rng.normal(size=(40, 3)), n_controls=20)
    before = wells.copy()
    white = whiten(wells, coral="batch")
    np.testing.assert_array_equal(wells.X, before.X)
    assert wells.obs.equals(before.obs)
    assert white.obs.equals(wells.obs)
    assert list(white.obs_names) == list(wells.obs_names)


def test_a_fit_applies_to_rows_it_has_not_seen(rng):
    wells = wells_of(rng.normal(size=(40, 3)), n_controls=20)
    fitted = fit_whitening(wells)
    np.testing.assert_allclose(apply_whitening(wells[30:], fitted).X, whiten(wells).X[30:])
    with pytest.raises(InputError, match='feature "f1" is missing'):
        apply_whitening(wells[:, ["f0", "f2"]], fitted)


def test_a_plate_that_was_not_learnt_on_is_refused(rng):
    wells = wells_of(rng.normal(size=(40, 3)), n_controls=40)
    fitted = fit_whitening(wells[wells.obs["Metadata_Plate"] == "p0"].copy(), Recipe(scaled_over="plate"))
    with pytest.raises(InputError, match='not fitted on "p1"'):
        apply_whitening(wells, fitted)


def test_whitened_profiles_come_back_from_a_file_as_they_were(rng, tmp_path):
    white = whiten(wells_of(rng.normal(size=(40, 3)), n_controls=20))
    white.write_h5ad(tmp_path / "white.h5ad")
    read = anndata.read_h5ad(tmp_path / "white.h5ad")
    np.testing.assert_array_equal(read.X, white.X)
    assert provenance(read) == provenance(white)


def test_no_controls_is_refused(rng):
    with pytest.raises(InputError, match="no row is a control"):
        whiten(wells_of(rng.normal(size=(10, 3)), n_controls=0))


def test_a_plate_without_controls_is_named(rng):
    wells = wells_of(rng.normal(size=(40, 3)), n_controls=20)
    wells.obs.loc[wells.obs["Metadata_Plate"] == "p1", "Metadata_Role"] = "treated"
    with pytest.raises(InputError, match=r'"p1" has 0 control rows.*--learnt-on everything'):
        whiten(wells, scaled_over="plate")
    assert np.isfinite(whiten(wells).X).all()  # pooled, the other plate's controls serve


def test_fewer_controls_than_features_without_a_ridge_is_refused(rng):
    wells = wells_of(rng.normal(size=(20, 10)), n_controls=6)
    with pytest.raises(InputError, match=r'6 controls of "all" vary in 5 directions of 10.*give a ridge'):
        whiten(wells, ridge=0)
    assert fit_whitening(wells, Recipe(ridge=0, n_components=5)).certificates[0].largest_deviation < 1e-10


def test_controls_that_are_all_alike_are_refused():
    with pytest.raises(InputError, match="all 3 features are constant"):
        whiten(wells_of(np.ones((10, 3)), n_controls=5))


def test_a_nan_is_named():
    features = np.arange(12.0).reshape(4, 3)
    features[2, 1] = np.nan
    with pytest.raises(InputError, match=r'nan at row "well2", feature "f1" \(1 such value in 1 of 3 features'):
        whiten(wells_of(features, n_controls=3))


@pytest.mark.parametrize("estimate", ["sample", "ledoit-wolf"])
def test_the_rank_is_that_of_the_controls_whatever_the_estimate(rng, estimate):
    wells = wells_of(rng.normal(size=(24, 40)), n_controls=12)
    certificate = fit_whitening(wells, Recipe(estimate=estimate)).certificates[0]
    assert certificate.rank == 11
    assert "12 controls" in str(certificate)
    assert "11 of 40" in str(certificate)
    assert ("Ledoit-Wolf" in str(certificate)) == (estimate == "ledoit-wolf")


def test_ledoit_wolf_needs_no_ridge_and_says_what_it_made_up(rng):
    wells = wells_of(rng.normal(size=(24, 40)), n_controls=12)
    certificate = fit_whitening(wells, Recipe(estimate="ledoit-wolf", ridge=0)).certificates[0]
    assert certificate.rank == 11
    assert "arbitrary" in str(certificate)
    assert "Ledoit-Wolf" in str(certificate)


@pytest.mark.parametrize("estimate", ["sample", "ledoit-wolf"])
@pytest.mark.parametrize("whitening", ["pca", "zca"])
@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_components_beyond_what_the_controls_span_are_refused(rng, estimate, whitening, ridge):
    wells = wells_of(rng.normal(size=(24, 40)), n_controls=12)
    recipe = {"estimate": estimate, "whitening": whitening, "ridge": ridge}
    with pytest.raises(InputError, match=r"12 controls .* in 11 directions of 40, .* --n-components 12 are arbitrary"):
        fit_whitening(wells, Recipe(**recipe, n_components=12))
    assert fit_whitening(wells, Recipe(**recipe, n_components=11)).certificates[0].rank == 11


@pytest.mark.parametrize("ridge", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("whitening", ["pca", "zca"])
def test_a_certificate_says_what_a_ridge_leaves_of_the_spread(rng, ridge, whitening):
    wells = wells_of(correlated(rng, 24, n_features=40), n_controls=12)
    certificate = fit_whitening(wells, Recipe(scaling="centre", ridge=ridge, whitening=whitening)).certificates[0]
    before = np.linalg.eigvalsh(np.cov(wells.X[:12].T, ddof=0))[-11:]  # 12 controls span 11 directions
    expected = before / (before + ridge)
    np.testing.assert_allclose(certificate.spanned_variance, (expected[0], expected[-1]), rtol=1e-9)
    assert f"variance is {expected[0]:.3g} to {expected[-1]:.3g} (white: 1)" in str(certificate)


def test_certificates_of_older_versions_are_still_printed(rng):
    kept = provenance(whiten(wells_of(rng.normal(size=(40, 3)), n_controls=20)))["certificates"][0]
    assert "(white: 1)" in str(Certificate(**kept))
    del kept["spanned_variance"]
    assert "(white: 1)" not in str(Certificate(**kept))


@pytest.mark.parametrize("number", [0, -3])
def test_a_number_of_components_below_1_is_refused(number):
    with pytest.raises(InputError, match=f"--n-components {number}"):
        Recipe(n_components=number)


def test_more_components_than_features_are_refused(rng):
    with pytest.raises(InputError, match="--n-components 99: expected at most 10, the number of features"):
        fit_whitening(wells_of(rng.normal(size=(200, 10)), n_controls=100), Recipe(n_components=99))


@pytest.mark.parametrize("ridge", [-1.0, float("nan"), float("inf")])
def test_a_ridge_below_0_or_without_end_is_refused(ridge):
    with pytest.raises(InputError, match=r"--ridge .*: expected a number of at least 0"):
        Recipe(ridge=ridge)
