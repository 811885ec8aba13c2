"""Scale and whiten profiles so that control wells have no preferred direction.

N profiles, Z features, n controls. Fitted on the control wells, applied to all rows: scaling, then rotation and
division by the controls' spread, x (V / sqrt(s + ridge)) with V and s the eigenvectors and eigenvalues of their
covariance (divided by n), then the alignment of batches (TVN, Ando et al. 2017). docs/definitions.md, "From cells to
treatments".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from phenolens.core.bounds import Bounded, Count, NotNegative, Positive
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.provenance import KEY, provenance, provenance_text
from phenolens.profiles.columns import resembles_metadata
from phenolens.profiles.coral import CoralForm, coral
from phenolens.profiles.covariance import eigen_of_rows, eigenvalues_of_rows, rank_of, second_moment
from phenolens.profiles.profiles import metadata
from phenolens.profiles.validate import SMALLEST_SPREAD, constant_features, feature_matrix, refuse_too_large
from phenolens.profiles.whitening_certificate import Certificate, certificate_of

if TYPE_CHECKING:
    from anndata import AnnData

Extent = Literal["all", "batch", "plate"]
Transforms = Mapping[str, tuple[np.ndarray, np.ndarray]]
SCALED = " after scaling on the controls"  # where a number became too large


@dataclass(frozen=True)
class Recipe(Bounded):
    """How profiles are scaled and whitened.

    PCA and ZCA after `scaling="zscore"` are the correlation forms, after `scaling="centre"` the covariance forms.
    """

    scaling: Literal["zscore", "robust", "centre", "none"] = "zscore"  # robust: median and 1.4826 x MAD
    scaled_over: Extent = "all"  # rows that share one centre and one scale
    # scaled values beyond this are set to it, in standard deviations of the controls; left out: as they are
    largest_deviation: Positive | None = None
    whitening: Literal["pca", "zca", "none"] = "pca"  # zca is rotated back, so that features keep their names
    whitened_over: Extent = "all"  # rows that share one whitening
    learnt_on: Literal["controls", "everything", "treatments"] = "controls"  # treatments: docs/definitions.md
    ridge: NotNegative = 1.0  # added to each eigenvalue; fixed in advance, never chosen on the score
    ridge_unit: Literal["absolute", "relative"] = "absolute"  # relative: times the mean eigenvalue
    estimate: Literal["sample", "ledoit-wolf"] = "sample"  # of the covariance
    n_components: Count | None = None  # number of leading directions to keep; left out: all
    constant_features: Literal["refused", "left out"] = "refused"  # those without spread among a group's controls
    coral: Literal["none", "batch", "plate"] = "none"  # align the controls of each with all controls (TVN)
    coral_form: CoralForm = "broad"  # which published form (docs/definitions.md)

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        if self.largest_deviation is not None and self.scaling not in ("zscore", "robust"):
            raise InputError(f"--largest-deviation: goes with --scaling zscore or robust, not {self.scaling}")
        if self.coral_form != "broad" and self.coral == "none":
            raise InputError(f"--coral-form {self.coral_form}: goes with --coral batch or plate; add that")

    @property
    def needs_learning(self) -> bool:
        """Whether any parameter is fitted; otherwise profiles stay as they are."""
        return (self.scaling, self.whitening, self.coral) != ("none", "none", "none")


UNTOUCHED = Recipe(scaling="none", whitening="none")
# The whole recipes of typical variation normalisation as three groups published them. The last two need more controls
# than features, or a ridge.
TVN = {
    "broad": Recipe(coral="batch"),
    "google": Recipe(scaling="centre", ridge=0, coral="batch", coral_form="google"),
    "efaar": Recipe(ridge=0, coral="batch", coral_form="efaar"),
}


class Fit(NamedTuple):
    """The rotation of one group of rows."""

    transform: tuple[np.ndarray, np.ndarray]  # centre (Z,) and matrix (Z, components)
    certificate: Certificate


@dataclass(frozen=True)
class Whitening:
    """A fitted recipe: the parameters that `apply_whitening` uses, and the certificate of each fit."""

    recipe: Recipe
    features: tuple[str, ...]  # kept, in this order
    constant_features: tuple[str, ...]  # left out: without spread among the controls of some group
    centre_and_scale: Transforms  # group -> (Z,), (Z,)
    centre_and_matrix: Transforms  # group -> (Z,), (Z, components); empty: not whitened
    certificates: tuple[Certificate, ...]
    # batch or plate -> (components,), (components, components); empty: no CORAL
    alignment: Transforms = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        names: np.ndarray,
        constant: np.ndarray,
        centre_and_scale: Transforms,
        fits: Mapping[str, Fit],
    ) -> Whitening:
        """From the names of all features, which of them are constant, and the scaling and rotation of each group."""
        return cls(
            recipe=recipe,
            features=tuple(names[~constant]),
            constant_features=tuple(names[constant]),
            centre_and_scale=centre_and_scale,
            centre_and_matrix={group: fit.transform for group, fit in fits.items() if recipe.whitening != "none"},
            certificates=tuple(fit.certificate for fit in fits.values()),
        )


def whiten(
    profiles: AnnData,
    *,
    method: Literal["pca", "zca", "none"] = "pca",
    ridge: NotNegative = 1.0,
    per: Extent = "all",
    scaling: Literal["zscore", "robust", "centre", "none"] = "zscore",
    scaled_over: Extent = "all",
    learnt_on: Literal["controls", "everything", "treatments"] = "controls",
    ridge_unit: Literal["absolute", "relative"] = "absolute",
    estimate: Literal["sample", "ledoit-wolf"] = "sample",
    n_components: Count | None = None,
    constant_features: Literal["refused", "left out"] = "refused",
    coral: Literal["none", "batch", "plate"] = "none",
    coral_form: CoralForm = "broad",
    largest_deviation: Positive | None = None,
) -> AnnData:
    """Scale and whiten profiles with parameters fitted on their control rows.

    Args:
        profiles: rows x features; `obs["Metadata_Role"]` marks the controls.
        method: `pca`, `zca` (rotated back, so that features keep their names) or `none` (scale only).
        ridge: added to each eigenvalue of the controls' covariance; 0 or more.
        per: rows that share one whitening: all, those of a batch, or those of a plate.
        scaling: before whitening. `zscore`: mean and standard deviation (n - 1); `robust`: median and 1.4826 MAD.
        scaled_over: rows that share one centre and one scale.
        learnt_on: the rows that parameters are fitted on; `treatments`: all rows, about the mean of their treatment.
        ridge_unit: `relative` multiplies the ridge by the mean eigenvalue.
        estimate: of the covariance; `ledoit-wolf` shrinks it.
        n_components: number of leading directions to keep; None keeps all.
        constant_features: what to do with features without spread among the controls of any group.
        coral: align the controls of each batch or plate with all controls afterwards (TVN).
        coral_form: which published form (docs/definitions.md); `phenolens.profiles.whitening.TVN` has whole recipes.
        largest_deviation: scaled values beyond this are set to it; None leaves them as they are.

    Returns:
        A new table of the same rows and obs. `uns["phenolens"]` holds the settings and, for each fit, its rank and how
        far the controls' covariance is from identity.

    Raises:
        InputError: NaN, no controls (or none in a group), fewer controls than features without a ridge, features
            without spread unless they are left out.
    """
    recipe = Recipe(
        scaling=scaling,
        scaled_over=scaled_over,
        whitening=method,
        whitened_over=per,
        learnt_on=learnt_on,
        ridge=ridge,
        ridge_unit=ridge_unit,
        estimate=estimate,
        n_components=n_components,
        constant_features=constant_features,
        coral=coral,
        coral_form=coral_form,
        largest_deviation=largest_deviation,
    )
    return apply_whitening(profiles, fit_whitening(profiles, recipe))


def fit_whitening(profiles: AnnData, recipe: Recipe | None = None) -> Whitening:
    """Fit a recipe on the controls of `profiles`; errors as in `whiten`.

    A recipe that neither scales nor whitens fits nothing and needs no controls.
    """
    recipe = recipe or Recipe()
    if recipe.learnt_on == "treatments":
        from phenolens.profiles.within_treatments import fit_within_treatments

        return fit_within_treatments([profiles], recipe)
    numbers = feature_matrix(profiles)
    if not recipe.needs_learning:
        return Whitening(recipe, tuple(profiles.var_names), (), {}, {}, ())
    groups = _groups(profiles, recipe)
    learn = np.ones(len(numbers), dtype=bool)
    if recipe.learnt_on == "controls":
        learn = (metadata(profiles, ("role",))["role"] == "control").to_numpy()
    if not learn.any():
        raise InputError(
            "profiles: no row is a control (Metadata_Role); name the controls (--control DMSO), fit on all rows "
            "(--learnt-on everything), or neither scale nor whiten (--scaling none --whitening none)"
        )
    constant = np.zeros(numbers.shape[1], dtype=bool)
    for group, rows in _learning_rows(learn, groups[recipe.scaled_over], at_least=2):
        _refuse_small_spread(numbers[rows], profiles.var_names, group)
        without = _without_spread(numbers[rows], recipe)
        if without.any() and not without.all() and recipe.constant_features == "refused":
            raise InputError(_constant(profiles, without, group, recipe))
        constant |= without
    if constant.all():
        raise InputError(
            f"profiles: all {len(constant)} features are constant among the controls; are these rows the controls?"
        )
    names = np.asarray(profiles.var_names, dtype=object)
    centre_and_scale = {
        group: _centre_and_scale(numbers[rows][:, ~constant], recipe)
        for group, rows in _learning_rows(learn, groups[recipe.scaled_over], at_least=2)
    }
    scaled = _clipped(_by_group(numbers[:, ~constant], groups[recipe.scaled_over], centre_and_scale, _scale), recipe)
    refuse_too_large(scaled, names[~constant], what="profiles", after=SCALED)
    whitening = Whitening.of(
        recipe,
        names,
        constant,
        centre_and_scale,
        {
            group: _fit_rotation(scaled[rows], recipe, group)
            for group, rows in _learning_rows(learn, groups[recipe.whitened_over], at_least=2)
        },
    )
    whitened = _by_group(scaled, groups[recipe.whitened_over], whitening.centre_and_matrix, _rotate)
    return replace(whitening, alignment=_alignment(whitened, learn, groups, recipe))


def apply_whitening(profiles: AnnData, whitening: Whitening) -> AnnData:
    """A new table of the same rows and obs; InputError on a feature, plate or batch that the fit does not have."""
    from anndata import AnnData

    missing = sorted(set(whitening.features) - set(profiles.var_names))
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f'profiles: feature "{missing[0]}"{more} is missing, which the whitening was fitted on')
    recipe = whitening.recipe
    numbers = feature_matrix(profiles[:, list(whitening.features)])
    groups = _groups(profiles, recipe)
    numbers = _clipped(_by_group(numbers, groups[recipe.scaled_over], whitening.centre_and_scale, _scale), recipe)
    refuse_too_large(numbers, whitening.features, what="profiles", after=SCALED)
    numbers = _by_group(numbers, groups[recipe.whitened_over], whitening.centre_and_matrix, _rotate)
    numbers = _by_group(numbers, groups[recipe.coral], whitening.alignment, _rotate)
    named = recipe.whitening != "pca"  # zca is rotated back to the features
    names = whitening.features if named else [f"white_{axis}" for axis in range(numbers.shape[1])]
    white = AnnData(numbers, obs=profiles.obs.copy(), var=pd.DataFrame(index=pd.Index(list(names), dtype=object)))
    white.uns[KEY] = provenance_text(
        "whitening",
        made_from=provenance(profiles),
        recipe=asdict(recipe),
        constant_features_left_out=list(whitening.constant_features),
        certificates=[asdict(certificate) for certificate in whitening.certificates],
    )
    return white


def _groups(profiles: AnnData, recipe: Recipe) -> dict[str, pd.Series]:
    """The name of each row's group, for each extent that the recipe uses."""
    everything = pd.Series("all", index=range(profiles.n_obs))
    extents = {recipe.scaled_over, recipe.whitened_over, recipe.coral} - {"all", "none"}
    return {"all": everything, "none": everything} | {
        extent: metadata(profiles, (extent,))[extent].reset_index(drop=True) for extent in extents
    }


def _learning_rows(learn: np.ndarray, groups: pd.Series, *, at_least: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each group in sorted order and its rows to fit on; InputError on a group with too few."""
    for group in sorted(set(groups)):
        rows = np.flatnonzero(learn & (groups == group).to_numpy())
        if len(rows) < at_least:
            raise InputError(
                f'profiles: "{group}" has {len(rows)} control rows; at least {at_least} are needed: fit over '
                "all rows instead (--learnt-on everything), or leave that group out"
            )
        yield group, rows


def _without_spread(learnt_on: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Which features cannot be scaled: their deviation (for `robust` their MAD) is 0 in these rows (n, Z)."""
    constant = constant_features(learnt_on)
    if recipe.scaling == "robust":
        constant |= np.median(np.abs(learnt_on - np.median(learnt_on, axis=0)), axis=0) == 0
    return constant


def _refuse_small_spread(learnt_on: np.ndarray, names: pd.Index, group: str) -> None:
    """InputError that names the first feature whose spread in these rows (n, Z) is lost when it is squared."""
    spread = learnt_on.max(axis=0) - learnt_on.min(axis=0)
    bad = (spread > 0) & (spread < SMALLEST_SPREAD)
    if bad.any():
        raise InputError(
            f'profiles: feature "{names[int(bad.argmax())]}" has a spread of {spread[bad.argmax()]:.3g} in the rows of '
            f'"{group}" ({counted(int(bad.sum()), "such feature")} of {len(bad):,}), too small to be squared in '
            "float64; convert it to another unit, or remove it"
        )


def _constant(profiles: AnnData, without: np.ndarray, group: str, recipe: Recipe) -> str:
    first, more = profiles.var_names[int(without.argmax())], int(without.sum()) - 1
    rows = "control rows" if recipe.learnt_on == "controls" else "rows"
    return (
        f'profiles: feature "{first}"{f" (and {more} more of {len(without)})" if more else ""} has no spread in the '
        f'{rows} of "{group}", so it cannot be scaled; have such features left out (--constant-features "left out")'
        + (", or name it with --metadata if it is not a feature" if resembles_metadata(first) else "")
    )


def _centre_and_scale(controls: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    mean, one = controls.mean(axis=0), np.ones(controls.shape[1])
    if recipe.scaling == "zscore":
        return mean, controls.std(axis=0, ddof=1)
    if recipe.scaling == "robust":
        median = np.median(controls, axis=0)
        return median, 1.4826 * np.median(np.abs(controls - median), axis=0)  # 1.4826: a normal deviation
    return (mean if recipe.scaling == "centre" else 0 * mean), one


def _alignment(
    whitened: np.ndarray, learn: np.ndarray, groups: dict[str, pd.Series], recipe: Recipe
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The centre and the matrix of CORAL of each batch or plate."""
    if recipe.coral == "none":
        return {}
    least = 1 if recipe.coral_form == "broad" else 2
    batches = {group: whitened[rows] for group, rows in _learning_rows(learn, groups[recipe.coral], at_least=least)}
    return coral(batches, whitened[learn], form=recipe.coral_form)


def _clipped(scaled: np.ndarray, recipe: Recipe) -> np.ndarray:
    largest = recipe.largest_deviation
    return scaled if largest is None else scaled.clip(-largest, largest)


def _scale(rows: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # refused by the caller, who knows the feature
        return (rows - centre) / scale


def _rotate(rows: np.ndarray, centre: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return (rows - centre) @ matrix


def _by_group(
    numbers: np.ndarray,
    groups: pd.Series,
    fitted: Mapping[str, tuple[np.ndarray, ...]],
    transform: Callable[..., np.ndarray],
) -> np.ndarray:
    """Transform each group's rows (N, Z) with its own parameters; InputError on a group that has none."""
    if not fitted:
        return numbers
    unknown = sorted(set(groups) - set(fitted))
    if unknown:
        raise InputError(
            f'profiles: the whitening was not fitted on "{unknown[0]}" (known: {", ".join(sorted(fitted))})'
        )
    members = {group: (groups == group).to_numpy() for group in sorted(set(groups))}
    parts = {group: transform(numbers[rows], *fitted[group]) for group, rows in members.items()}
    transformed = np.empty((len(numbers), next(iter(parts.values())).shape[1]))
    for group, rows in members.items():
        transformed[rows] = parts[group]
    return transformed


def _fit_rotation(controls: np.ndarray, recipe: Recipe, group: str) -> Fit:
    """The rotation of one group from its scaled controls (n, Z)."""
    n = len(controls)
    centre = controls.mean(axis=0)
    centred = controls - centre
    values, vectors = eigen_of_rows(centred)
    rank = rank_of(values, n)
    if recipe.estimate == "ledoit-wolf":
        from sklearn.covariance import ledoit_wolf_shrinkage  # slow to import, and rarely needed

        values = values + ledoit_wolf_shrinkage(controls) * (values.mean() - values)
    if recipe.whitening != "none":
        _refuse_undetermined(group, values, n=n, rank=rank, recipe=recipe)
    kept, ridge = regularised(values, recipe)
    matrix = rotation(vectors, kept, recipe)
    rotated = centred @ matrix
    rotated -= rotated.mean(axis=0)
    spanned = eigenvalues_of_rows(rotated)[: min(rank, len(kept))]
    return Fit(
        (centre, matrix),
        certificate_of(
            group, values, kept, second_moment(rotated), spanned, n_rows=n, rank=rank, ridge=ridge, recipe=recipe
        ),
    )


def regularised(values: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, float]:
    """The eigenvalues to keep (components,) with the ridge added, and the ridge itself."""
    ridge = float(recipe.ridge * (values.mean() if recipe.ridge_unit == "relative" else 1.0))
    return values[: recipe.n_components or len(values)] + ridge, ridge


def rotation(vectors: np.ndarray, kept: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The whitening matrix (Z, components) from the vectors (Z, Z) and the regularised eigenvalues of those kept."""
    if recipe.whitening == "none":
        return np.eye(len(vectors))
    leading = vectors[:, : len(kept)]
    matrix = leading / np.sqrt(kept)
    return matrix @ leading.T if recipe.whitening == "zca" else matrix


def _refuse_undetermined(group: str, values: np.ndarray, *, n: int, rank: int, recipe: Recipe) -> None:
    """InputError where the directions to keep are not determined by the controls, or have no spread to divide by."""
    asked, n_features = recipe.n_components, len(values)
    if asked is not None and asked > n_features:
        raise InputError(f"profiles: --n-components {asked}: expected at most {n_features}, the number of features")
    if asked is not None and asked > rank:
        raise InputError(
            f'profiles: {n} controls of "{group}" vary in {rank} directions of {n_features}, so the axes of '
            f"--n-components {asked} are arbitrary beyond these; keep at most {rank} components, or all of them with a "
            "ridge (leave --n-components out)"
        )
    if recipe.ridge <= 0 and rank_of(values, n) < (asked or n_features):
        raise InputError(
            f'profiles: {n} controls of "{group}" vary in {rank} directions of {n_features}, which cannot be whitened '
            f"without a ridge; give a ridge (1 is the usual), pool all plates, or keep at most {rank} components"
        )
