"""Whiten profiles so that controls have no preferred direction.

N profiles, Z features, n controls. Learnt on control wells, applied to all: scaling, then rotation and division by
the controls' spread, then (TVN) alignment of the batches. METHOD 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.provenance import KEY, provenance, provenance_text
from phenolens.profiles.profiles import metadata
from phenolens.profiles.recipe import TVN, UNWHITENED, Recipe
from phenolens.profiles.rotation import Certificate, fit_rotation, matrix_power, second_moment
from phenolens.profiles.validate import SMALLEST_SPREAD, constant_features, feature_matrix, refuse_too_large

if TYPE_CHECKING:
    from anndata import AnnData

SCALED = " after scaling on the controls"  # where a number became too large

__all__ = [
    "TVN",
    "UNWHITENED",
    "Certificate",
    "Recipe",
    "Whitening",
    "apply_whitening",
    "fit_whitening",
    "whiten",
]


@dataclass(frozen=True)
class Whitening:
    """A recipe as learnt: what `apply_whitening` does to rows, and how well it does it."""

    recipe: Recipe
    features: tuple[str, ...]  # kept, in this order
    constant_features: tuple[str, ...]  # left out: without spread among the controls of some group
    centre_and_scale: dict[str, tuple[np.ndarray, np.ndarray]]  # group -> (Z,), (Z,)
    centre_and_matrix: dict[str, tuple[np.ndarray, np.ndarray]]  # group -> (Z,), (Z, components); empty: not whitened
    alignment: dict[str, np.ndarray]  # batch or plate -> (components, components); empty: no CORAL
    certificates: tuple[Certificate, ...]


def fit_whitening(profiles: AnnData, recipe: Recipe | None = None) -> Whitening:
    """Learn a recipe on the controls of `profiles` (the default recipe is METHOD 5's).

    InputError on NaN, on no control at all, on a plate or batch without the controls it needs, on fewer controls than
    features without a ridge, and on features without spread among the controls of any group, unless the recipe leaves
    these out (they are listed then). A recipe that neither scales nor whitens learns nothing and needs no controls.
    """
    recipe = recipe or Recipe()
    numbers = feature_matrix(profiles)
    if not recipe.needs_learning:
        return Whitening(recipe, tuple(profiles.var_names), (), {}, {}, {}, ())
    groups = _groups(profiles, recipe)
    learn = np.ones(len(numbers), dtype=bool)
    if recipe.learnt_on == "controls":
        learn = (metadata(profiles, ("role",))["role"] == "control").to_numpy()
    if not learn.any():
        raise InputError(
            "profiles: no row is a control (Metadata_Role) to learn from; name the controls (--control DMSO), learn on "
            "all rows (--learnt-on everything), or learn nothing (--scaling none --whitening none)"
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
            f"profiles: all {len(constant)} features are constant among the controls; nothing is left to score: "
            "are these rows the controls?"
        )
    names = np.asarray(profiles.var_names, dtype=object)
    centre_and_scale = {
        group: _centre_and_scale(numbers[rows][:, ~constant], recipe)
        for group, rows in _learning_rows(learn, groups[recipe.scaled_over], at_least=2)
    }
    scaled = _scaled(numbers[:, ~constant], groups[recipe.scaled_over], centre_and_scale)
    refuse_too_large(scaled, names[~constant], what="profiles", after=SCALED)
    fits = [
        (group, *fit_rotation(scaled[rows], recipe, group))
        for group, rows in _learning_rows(learn, groups[recipe.whitened_over], at_least=2)
    ]
    centre_and_matrix = {} if recipe.whitening == "none" else {group: transform for group, transform, _ in fits}
    whitened = _rotated(scaled, groups[recipe.whitened_over], centre_and_matrix)
    return Whitening(
        recipe=recipe,
        features=tuple(names[~constant]),
        constant_features=tuple(names[constant]),
        centre_and_scale=centre_and_scale,
        centre_and_matrix=centre_and_matrix,
        alignment=_alignment(whitened, learn, groups, recipe),
        certificates=tuple(certificate for _, _, certificate in fits),
    )


def apply_whitening(profiles: AnnData, whitening: Whitening) -> AnnData:
    """The profiles as the recipe makes them: a new table of the same rows, obs and index.

    InputError on a missing feature and on a plate or batch that the recipe was not learnt on.
    """
    from anndata import AnnData

    missing = sorted(set(whitening.features) - set(profiles.var_names))
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f'profiles: feature "{missing[0]}"{more} is missing, which the whitening was learnt on')
    recipe = whitening.recipe
    numbers = feature_matrix(profiles[:, list(whitening.features)])
    groups = _groups(profiles, recipe)
    numbers = _scaled(numbers, groups[recipe.scaled_over], whitening.centre_and_scale)
    refuse_too_large(numbers, whitening.features, what="profiles", after=SCALED)
    numbers = _rotated(numbers, groups[recipe.whitened_over], whitening.centre_and_matrix)
    for group, matrix in whitening.alignment.items():
        rows = (groups[recipe.coral] == group).to_numpy()
        numbers[rows] = numbers[rows] @ matrix
    _check_known(groups[recipe.coral], whitening.alignment)
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


def whiten(profiles: AnnData, recipe: Recipe | None = None) -> AnnData:
    """Learn a recipe on the controls of `profiles` and apply it to all of them; the certificates are in `uns`."""
    return apply_whitening(profiles, fit_whitening(profiles, recipe))


def _groups(profiles: AnnData, recipe: Recipe) -> dict[str, pd.Series]:
    """The name of each row's group, for each extent that the recipe speaks of."""
    everything = pd.Series("all", index=range(profiles.n_obs))
    extents = {recipe.scaled_over, recipe.whitened_over, recipe.coral} - {"all", "none"}
    return {"all": everything, "none": everything} | {
        extent: metadata(profiles, (extent,))[extent].reset_index(drop=True) for extent in extents
    }


def _learning_rows(learn: np.ndarray, groups: pd.Series, *, at_least: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each group in sorted order and its rows to learn on; InputError on a group with too few."""
    for group in sorted(set(groups)):
        rows = np.flatnonzero(learn & (groups == group).to_numpy())
        if len(rows) < at_least:
            raise InputError(
                f'profiles: "{group}" has {len(rows)} control rows; at least {at_least} are needed to learn from: '
                "learn over all rows instead, or leave that group out"
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
            f'"{group}" to learn from ({int(bad.sum()):,} such features of {len(bad):,}), too small to be squared in '
            "float64; bring it to another unit, or remove it"
        )


def _constant(profiles: AnnData, without: np.ndarray, group: str, recipe: Recipe) -> str:
    first, more = profiles.var_names[int(without.argmax())], int(without.sum()) - 1
    rows = "control rows" if recipe.learnt_on == "controls" else "rows"
    return (
        f'profiles: feature "{first}"{f" (and {more} more of {len(without)})" if more else ""} has no spread in the '
        f'{rows} of "{group}", so it cannot be scaled; have such features left out (--constant-features "left out")'
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
) -> dict[str, np.ndarray]:
    """CORAL matrices: (S_group + I)^(-1/2) (S_all + I)^(1/2), second moments of controls about 0 (METHOD 5)."""
    if recipe.coral == "none":
        return {}
    identity = np.eye(whitened.shape[1])
    to_all = matrix_power(second_moment(whitened[learn]) + identity, 0.5)
    return {
        group: matrix_power(second_moment(whitened[rows]) + identity, -0.5) @ to_all
        for group, rows in _learning_rows(learn, groups[recipe.coral], at_least=1)
    }


def _scaled(numbers: np.ndarray, groups: pd.Series, learnt: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    _check_known(groups, learnt)
    if not learnt:
        return numbers
    scaled = np.empty_like(numbers)
    for group in sorted(set(groups)):
        rows = (groups == group).to_numpy()
        centre, scale = learnt[group]
        with np.errstate(over="ignore"):  # refused by the caller, who knows the feature
            scaled[rows] = (numbers[rows] - centre) / scale
    return scaled


def _rotated(numbers: np.ndarray, groups: pd.Series, learnt: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    _check_known(groups, learnt)
    if not learnt:
        return numbers
    n_components = next(iter(learnt.values()))[1].shape[1]
    rotated = np.empty((len(numbers), n_components))
    for group in sorted(set(groups)):
        rows = (groups == group).to_numpy()
        centre, matrix = learnt[group]
        rotated[rows] = (numbers[rows] - centre) @ matrix
    return rotated


def _check_known(groups: pd.Series, learnt: Mapping[str, Any]) -> None:
    unknown = sorted(set(groups) - set(learnt)) if learnt else []
    if unknown:
        raise InputError(
            f'profiles: the whitening was not learnt on "{unknown[0]}" (known: {", ".join(sorted(learnt))})'
        )
