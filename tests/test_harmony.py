"""A planted shift of the batches goes and the planted effects stay; then what is told, then refusals."""

import sys
import warnings

import anndata
import harmony as library
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from phenolens.core.errors import InputError
from phenolens.core.provenance import provenance
from phenolens.profiles.harmony import certificate_of, harmonise
from phenolens.profiles.nsc import nsc, nscb
from phenolens.profiles.profiles import treatment_profiles
from phenolens.profiles.whitening import whiten
from real_profiles import ljosa_wells

N_FEATURES = 10


def planted_wells(
    *, shift: float = 6.0, n_batches: int = 4, n_treatments: int = 12, n_controls: int = 18, seed: int = 0
) -> AnnData:
    """Wells = effect of the treatment (length 6) + shift of the batch + noise (0.7 a feature).

    Every treatment has 4 wells in every batch, which is one plate; controls are first, and without an effect.
    """
    rng = np.random.default_rng(seed)
    effects = np.vstack([np.zeros(N_FEATURES), 6 * unit_vectors(rng, n_treatments)])
    shifts = shift * unit_vectors(rng, n_batches)
    of_a_batch = np.repeat(np.arange(n_treatments + 1), [n_controls] + [4] * n_treatments)
    treatment, batch = np.tile(of_a_batch, n_batches), np.repeat(np.arange(n_batches), len(of_a_batch))
    features = effects[treatment] + shifts[batch] + 0.7 * rng.normal(size=(len(batch), N_FEATURES))
    obs = pd.DataFrame(
        {
            "Metadata_Plate": [f"plate{number}" for number in batch],
            "Metadata_Batch": [f"week{number}" for number in batch],
            "Metadata_Compound": [f"compound{number}" if number else "DMSO" for number in treatment],
            "Metadata_Concentration_um": np.where(treatment > 0, 1.0, 0.0),
            "Metadata_Role": np.where(treatment > 0, "treated", "control"),
        },
        index=[f"well{number}" for number in rng.permutation(len(batch))],
    )
    return AnnData(features, obs=obs, var=pd.DataFrame(index=[f"f{axis}" for axis in range(N_FEATURES)]))


def unit_vectors(rng, n):
    vectors = rng.normal(size=(n, N_FEATURES))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def share_between_batches(wells: AnnData) -> float:
    """R² of the controls, feature by feature, as an analysis of variance has it."""
    controls = wells[wells.obs["Metadata_Role"] == "control"]
    batches = controls.obs["Metadata_Batch"].to_numpy()
    within = total = 0.0
    for column in controls.X.T:
        total += ((column - column.mean()) ** 2).sum()
        within += sum(((column[batches == name] - column[batches == name].mean()) ** 2).sum() for name in set(batches))
    return 1 - within / total


def found_across_batches(wells: AnnData) -> float:
    """Share of treated wells whose nearest treated well of another batch (cosine) got the same compound."""
    treated = wells[wells.obs["Metadata_Role"] == "treated"]
    directions = treated.X / np.linalg.norm(treated.X, axis=1, keepdims=True)
    batch, compound = (treated.obs[f"Metadata_{name}"].to_numpy() for name in ("Batch", "Compound"))
    similarity = np.where(batch[:, None] == batch, -np.inf, directions @ directions.T)
    return float((compound[similarity.argmax(axis=1)] == compound).mean())


def effect_lengths(wells: AnnData) -> np.ndarray:
    """How far the mean of each treatment lies from that of the controls; 6 was planted."""
    means = pd.DataFrame(wells.X).groupby(wells.obs["Metadata_Compound"].to_numpy()).mean()
    return np.linalg.norm(means.drop("DMSO") - means.loc["DMSO"], axis=1)


@pytest.fixture
def threads():
    """Three threads for PyTorch, and afterwards what there was."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_shift_goes_and_treatments_find_each_other_across_batches(seed):
    wells = planted_wells(seed=seed)
    together = harmonise(wells)
    assert share_between_batches(wells) > 0.7
    assert share_between_batches(together) < 0.65 * share_between_batches(wells)
    assert found_across_batches(wells) < 0.9
    assert found_across_batches(together) > 0.95


def test_treated_wells_of_a_batch_are_moved_back_by_the_planted_shift():
    wells, without_shift = planted_wells(), planted_wells(shift=0)
    assert (wells.obs_names == without_shift.obs_names).all()
    treated = (wells.obs["Metadata_Role"] == "treated").to_numpy()
    off = {}
    for name, table in (("before", wells), ("after", harmonise(wells))):
        rest = (table.X - without_shift.X)[treated]
        off[name] = np.linalg.norm(rest - rest.mean(axis=0), axis=1).mean()  # what all rows are moved by is no matter
    assert off["before"] > 4
    assert off["after"] < 0.4 * off["before"]


@pytest.mark.parametrize("seed", range(3))
def test_without_a_shift_effects_seen_in_every_batch_stay_and_those_of_one_batch_are_partly_removed(seed):
    wells = planted_wells(shift=0, seed=seed)
    np.testing.assert_allclose(effect_lengths(harmonise(wells)), effect_lengths(wells), rtol=0.06)
    number = wells.obs["Metadata_Compound"].str.extract(r"(\d+)$", expand=False).fillna(-1).astype(int)
    in_its_week = (number % 4).astype(str) == wells.obs["Metadata_Batch"].str[-1]
    once = wells[(number < 0) | in_its_week].copy()
    together = harmonise(once)
    assert effect_lengths(together).mean() < 0.8 * effect_lengths(once).mean()  # what the docstring warns of
    assert "12 of 12 treatments are in one batch only" in str(certificate_of(together))


def test_plates_can_be_brought_together_in_place_of_batches():
    wells = planted_wells()
    wells.obs["Metadata_Plate"], wells.obs["Metadata_Batch"] = wells.obs["Metadata_Batch"], "all weeks"
    together = harmonise(wells, over="plate")
    np.testing.assert_array_equal(together.X, harmonise(planted_wells()).X)
    assert (certificate_of(together).over, certificate_of(together).n_batches) == ("plate", 4)
    assert "of 4 plates in" in str(certificate_of(together))


def test_rows_keep_index_obs_and_features_and_the_callers_table_is_as_it_was():
    wells = whiten(planted_wells())
    before = wells.copy()
    together = harmonise(wells)
    np.testing.assert_array_equal(wells.X, before.X)
    assert wells.obs.equals(before.obs)
    assert dict(wells.uns) == dict(before.uns)
    assert together.obs.equals(before.obs)
    assert list(together.obs_names) == list(before.obs_names)
    assert list(together.var_names) == list(before.var_names)
    assert (together.X != before.X).any(axis=1).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    wells = planted_wells()
    assert harmonise(wells, seed=4).X.tobytes() == harmonise(wells, seed=4).X.tobytes()
    assert harmonise(wells, seed=4).X.tobytes() != harmonise(wells, seed=5).X.tobytes()


def test_the_order_of_rows_does_not_matter(rng):
    wells = planted_wells()
    turned = wells[rng.permutation(wells.n_obs)].copy()
    assert harmonise(turned)[wells.obs_names].X.tobytes() == harmonise(wells).X.tobytes()


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_the_unit_of_the_features_does_not_matter(unit):
    wells, in_another_unit = planted_wells(), planted_wells()
    in_another_unit.X = in_another_unit.X * unit
    np.testing.assert_allclose(harmonise(in_another_unit).X / unit, harmonise(wells).X, atol=1e-3)


def test_it_is_silent_and_leaves_threads_and_random_numbers_as_they_were(threads, capfd):
    wells = planted_wells()
    np.random.seed(2019)  # noqa: NPY002  # the library draws from these
    legacy, of_torch = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    harmonise(wells)
    assert torch.get_num_threads() == threads
    assert all(np.array_equal(now, then) for now, then in zip(np.random.get_state(), legacy))  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), of_torch)
    assert capfd.readouterr() == ("", "")


def test_the_number_of_threads_does_not_matter(threads, rng):
    obs = planted_wells(n_controls=102).obs  # 600 rows: so many are shared out among threads
    wells = AnnData(rng.normal(size=(600, 60)), obs=obs)
    on_three = harmonise(wells)
    torch.set_num_threads(1)
    assert harmonise(wells).X.tobytes() == on_three.X.tobytes()


def test_threads_and_random_numbers_are_put_back_when_the_library_fails(threads, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        torch.set_num_threads(1)
        np.random.seed(1)  # noqa: NPY002
        raise RuntimeError("of the library")

    monkeypatch.setattr(library, "harmonize", fail)
    legacy = np.random.get_state()  # noqa: NPY002
    with pytest.raises(RuntimeError, match="of the library"):
        harmonise(planted_wells())
    assert torch.get_num_threads() == threads
    assert all(np.array_equal(now, then) for now, then in zip(np.random.get_state(), legacy))  # noqa: NPY002


def test_the_certificate_says_how_near_the_controls_came():
    wells = planted_wells()
    together = harmonise(wells)
    certificate = certificate_of(together)
    assert (certificate.over, certificate.n_batches, certificate.n_rows) == ("batch", 4, 264)
    assert (certificate.n_controls, certificate.n_clusters) == (72, 8)
    assert certificate.share_before == pytest.approx(share_between_batches(wells))
    assert certificate.share_after == pytest.approx(share_between_batches(together))
    assert certificate.share_by_chance == pytest.approx(3 / 71)
    assert certificate.remarks == ()
    assert str(certificate).startswith("264 rows of 4 batches in 8 clusters; of the variance of 72 controls ")


def test_the_share_by_chance_is_that_of_controls_that_know_nothing_of_batches():
    shares = [certificate_of(harmonise(planted_wells(shift=0, seed=seed))).share_before for seed in range(20)]
    assert np.mean(shares) == pytest.approx(3 / 71, rel=0.15)


def test_the_certificate_is_found_in_what_was_made_of_the_table(tmp_path):
    wells = planted_wells()
    wells.obs["Metadata_Well"] = list(wells.obs_names)
    together = harmonise(whiten(wells), seed=3)
    treatment_profiles(together).write_h5ad(tmp_path / "treatments.h5ad")
    read = anndata.read_h5ad(tmp_path / "treatments.h5ad")
    assert certificate_of(read) == certificate_of(together)
    made = provenance(read)["made_from"]
    assert (made["step"], made["over"], made["seed"]) == ("harmony", "batch", 3)
    assert made["library"] == f"harmony-pytorch {library.__version__}"
    assert made["made_from"]["step"] == "whitening"
    assert (made["settings"]["theta"], made["settings"]["n_clusters"]) == (2.0, 8)
    with pytest.raises(InputError, match="neither these nor what they were made from went through harmonise"):
        certificate_of(wells)


def test_batches_without_controls_are_named():
    wells = planted_wells()
    wells = wells[(wells.obs["Metadata_Role"] == "treated") | (wells.obs["Metadata_Batch"] != "week2")].copy()
    certificate = certificate_of(harmonise(wells))
    assert '1 of 4 batches have no controls ("week2" first)' in str(certificate)
    assert certificate.share_by_chance == pytest.approx(2 / 53)


@pytest.mark.parametrize("kept", [[], ["week0"]])
def test_where_fewer_than_two_batches_have_controls_no_share_is_given(kept):
    wells = planted_wells()
    wells = wells[(wells.obs["Metadata_Role"] == "treated") | wells.obs["Metadata_Batch"].isin(kept)].copy()
    certificate = certificate_of(harmonise(wells))
    assert (certificate.share_before, certificate.share_after, certificate.share_by_chance) == (None, None, None)
    assert "variance" not in str(certificate)
    assert f"{4 - len(kept)} of 4 batches have no controls" in str(certificate)


def test_treatments_that_stand_in_one_batch_only_are_counted():
    wells = planted_wells()
    elsewhere = wells.obs["Metadata_Compound"].isin(["compound1", "compound2"]) & (
        wells.obs["Metadata_Batch"] != "week1"
    )
    certificate = certificate_of(harmonise(wells[~elsewhere].copy()))
    assert "2 of 12 treatments are in one batch only" in str(certificate)


def test_a_batch_with_fewer_rows_than_clusters_is_named():
    wells = planted_wells()
    of_week3 = np.flatnonzero(wells.obs["Metadata_Batch"] == "week3")
    fewer = wells[np.setdiff1d(np.arange(wells.n_obs), of_week3[5:])].copy()
    remark = '1 of 4 batches have fewer rows than there are clusters ("week3": 5 of 6)'
    assert remark in str(certificate_of(harmonise(fewer)))


def test_batches_that_share_no_cluster_are_left_apart_and_that_is_told():
    certificate = certificate_of(harmonise(planted_wells(shift=1000, n_batches=2)))
    assert certificate.share_after == pytest.approx(certificate.share_before)
    assert "the controls of the batches came hardly nearer to each other" in certificate.remarks


def test_rows_that_are_alike_do_no_harm():
    wells = planted_wells(n_batches=2)
    wells.X = np.repeat(np.eye(2, N_FEATURES), wells.n_obs // 2, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(harmonise(wells).X).all()


def test_sixty_rows_are_clustered_and_fewer_are_refused():
    wells = planted_wells(n_batches=2, n_controls=30)[:100]
    sixty = wells[20:80].copy()
    assert certificate_of(harmonise(sixty)).n_clusters == 2
    with pytest.raises(InputError, match=r"profiles: 59 rows; expected at least 60.*give more wells, or leave harmony"):
        harmonise(sixty[:59])


def test_one_cluster_alone_would_leave_rows_where_they_are(rng):
    # Why fewer than 60 rows are refused: the library weighs a row that points away from its only cluster with zero.
    rows, batch = rng.normal(size=(59, 2)), np.arange(59) % 2
    rows[:, 0] += 4 * batch
    moved = library.harmonize(rows, pd.DataFrame({"b": batch.astype(str)}), "b", n_jobs=1, verbose=False)
    lengths = np.linalg.norm(moved - rows, axis=1)
    assert lengths.max() > 1
    assert lengths.min() < 1e-3


def refused(wells: AnnData, **choices: str) -> str:
    with pytest.raises(InputError) as error:
        harmonise(wells, **choices)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_batch_alone_is_refused():
    line = refused(planted_wells(n_batches=1))
    assert 'all 66 rows have Metadata_Batch "week0"; expected at least two to bring together' in line


def test_a_nan_is_named():
    wells = planted_wells()
    wells.X[2, 1] = np.nan
    assert f'nan at row "{wells.obs_names[2]}", feature "f1" (1 such values' in refused(wells)


@pytest.mark.parametrize(("over", "column"), [("batch", "Metadata_Batch"), ("plate", "Metadata_Plate")])
def test_a_missing_column_is_named(over, column):
    wells = planted_wells()
    del wells.obs[column]
    assert f"no metadata column {column}" in refused(wells, over=over)


def test_a_row_without_a_batch_is_named():
    wells = planted_wells()
    wells.obs.iloc[7, wells.obs.columns.get_loc("Metadata_Batch")] = None
    assert f'row "{wells.obs_names[7]}" has no Metadata_Batch (1 such rows)' in refused(wells)


def test_treatments_in_place_of_wells_are_refused():
    wells = planted_wells()
    wells.obs["Metadata_Well"] = list(wells.obs_names)
    line = refused(treatment_profiles(wells))
    assert 'has Metadata_Batch "week0|week1|week2|week3", which is several' in line
    assert "harmonise wells, then make treatments of them" in line


def test_two_rows_of_one_name_are_refused():
    wells = planted_wells()
    wells.obs_names = ["same", "same", *wells.obs_names[2:]]
    assert 'row "same" is there twice' in refused(wells)


def test_a_missing_library_is_told_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "harmony", None)
    assert refused(planted_wells()).endswith('harmonise needs: pip install "phenolens[harmony]"')


def test_on_bbbc021_every_treatment_is_in_one_week_and_the_certificate_says_so(real_data):
    white = whiten(ljosa_wells(real_data / "bbbc021"))
    for table in (white, together := harmonise(white)):
        treatments = treatment_profiles(table)
        scores = nsc(treatments), nscb(treatments, dropped_mechanisms="leave")
        print(", ".join(f"{score.protocol} {score.n_correct} of {score.n_treatments}" for score in scores))
    certificate = certificate_of(together)
    print(certificate)
    assert (certificate.n_batches, certificate.n_controls, certificate.n_clusters) == (10, 330, 21)
    assert certificate.share_before == pytest.approx(share_between_batches(white))
    assert certificate.share_after < certificate.share_before
    assert "103 of 103 treatments are in one batch only" in str(certificate)
