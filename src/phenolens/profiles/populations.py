"""Profiles of wells as populations of cells: against the controls of the plate, or by what all cells have in common.

The methods that Ljosa et al. 2013 compare with means, for any features. n cells of a well, m control cells or cells of
a sample, Z features, K components.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from phenolens.core.bounds import NotNegativeCount, Seed
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.core.provenance import provenance
from phenolens.profiles.profiles import Wells, wells_of
from phenolens.profiles.validate import constant_features

if TYPE_CHECKING:
    from anndata import AnnData
    from sklearn.decomposition import FactorAnalysis
    from sklearn.mixture import GaussianMixture

Method = Literal["ks", "svm", "mixture", "factors"]
METHODS: tuple[Method, ...] = get_args(Method)
AGAINST_CONTROLS = ("ks", "svm")
LEAST_CONTROLS = 10  # control cells, of other wells of the plate, that a well is compared with
SAMPLE = 50_000  # cells that a mixture or factors are fitted to, an even number of each treatment
N_FACTORS = 50
N_COMPONENTS = 25
EXPLAINED, LEAST_AXES = 0.8, 20  # share of the variance that a mixture is fitted in, and its least number of axes
CELLS_PER_VALUE = 10  # a component's covariance is diagonal with fewer cells than this times its number of values
LEAST_SHARE = 1e-6  # of a well's cells; what is below differs between wells by rounding
REGULARISATION = 1e-6  # of a component's variances, relative to the mean variance


def population_profiles(
    cells: AnnData | Iterable[AnnData], *, method: Method, seed: Seed = 0, min_cells: NotNegativeCount = 1
) -> AnnData:
    """Profile each well by the distribution of its cells (Ljosa et al. 2013).

    Args:
        cells: a table of cells, or parts that each hold whole plates, such as a list or anything that can be read
            twice. Cells with a true Metadata_Is_Noise are left out.
        method: `ks`: of each feature the signed Kolmogorov-Smirnov statistic against the control cells of the plate,
            above 0 where the well's cells are larger. `svm`: the normal of the plane (linear SVM, C = 1) between the
            well's cells and as many control cells of the plate, drawn with replacement. `mixture`: the mean posterior
            probabilities of 25 Gaussians. `factors`: the mean scores of 50 factors. The last two are fitted to at most
            50,000 cells, an even number of each treatment. A control well is not among its own controls.
        seed: of all draws.
        min_cells: wells with fewer cells are left out.

    Returns:
        A row per well, by plate and well, as `well_profiles` makes them.

    Raises:
        InputError: fewer than 10 control cells in other wells of a plate (`ks`, `svm`), fewer cells than components,
            NaN, a plate in two parts.
    """
    from anndata import AnnData

    parts = [cells] if isinstance(cells, AnnData) else cells
    if method not in AGAINST_CONTROLS and iter(parts) is parts:
        raise InputError("cells: a generator can be read only once; give a list of tables, or one table")
    fitted = None
    if method not in AGAINST_CONTROLS:
        sample = np.concatenate(list(even_sample(parts, seed=seed).values()))
        fitted = Mixture.fit(sample, seed=seed) if method == "mixture" else Factors.fit(sample, seed=seed)
    wells, plates, unsettled = Wells(), set[str](), list[str]()
    for part in parts:
        wells.made_from = wells.made_from or provenance(part)
        of_part = list(wells_of(part, wells, noise="left out", non_finite="refused"))
        _check_whole_plates({str(obs["plate"]) for obs, _ in of_part}, plates)
        for obs, block in of_part:
            if fitted is not None:
                summary = fitted.profile
            else:
                controls = partial(_controls_of, obs, of_part, method=method)
                summary = partial(_against, controls, method=method, seed=_seed_of(obs, seed), unsettled=unsettled)
            wells.add(obs, block, {method: summary}, min_cells=min_cells)
        del part, of_part  # before the next one is made
    if unsettled:
        tell(
            f"svm: {len(unsettled):,} of {len(wells.rows):,} planes are not final, since features differ in scale "
            "(--cell-scaling percentiles)"
        )
    names = [f"{name}_{method}" for name in wells.features] if fitted is None else fitted.names
    return wells.table([row.ravel() for row in wells.rows], names, min_cells=min_cells, statistics=method, seed=seed)


def _check_whole_plates(of_part: set[str], seen: set[str]) -> None:
    if twice := sorted(of_part & seen):
        raise InputError(f'cells: plate "{twice[0]}" is in two parts; a part must hold whole plates')
    seen |= of_part


def _seed_of(obs: dict[str, Any], seed: int) -> list[int]:
    """A seed for each well, whatever the order of wells."""
    return [seed, zlib.crc32(f"{obs['plate']}|{obs['well']}".encode())]


def _controls_of(
    obs: dict[str, Any], of_part: list[tuple[dict[str, object], np.ndarray]], *, method: str
) -> np.ndarray:
    """The control cells (m, Z) of the other wells of a well's plate; InputError where there are too few."""
    found = [
        block
        for other, block in of_part
        if other["role"] == "control" and other["plate"] == obs["plate"] and other["well"] != obs["well"]
    ]
    _refuse_few(sum(map(len, found)), obs, method=method)
    return np.concatenate(found)


def _refuse_few(n_controls: int, obs: Mapping[Any, Any], *, method: str) -> None:
    """InputError where a well has too few control cells of other wells of its plate."""
    if n_controls < LEAST_CONTROLS:
        raise InputError(
            f'cells: plate "{obs["plate"]}" has {counted(n_controls, "control cell")} outside well "{obs["well"]}"; '
            f"--methods {method} needs {LEAST_CONTROLS} or more: crop without that plate (--plates), or use --methods "
            "mixture factors, which need none"
        )


def check_controls(cells: pd.DataFrame, methods: Iterable[str], *, min_cells: int) -> None:
    """InputError where `population_profiles` would raise it for the cells of a study: plate, well, role, a row each."""
    against = [method for method in methods if method in AGAINST_CONTROLS]
    sizes = cells.groupby(["plate", "well", "role"], sort=True).size().rename("n").reset_index()
    of_plate = sizes[sizes["role"] == "control"].groupby("plate")["n"].sum()
    for obs in sizes[sizes["n"] >= min_cells].to_dict("records") if against else []:
        own = obs["n"] if obs["role"] == "control" else 0
        _refuse_few(int(of_plate.get(obs["plate"], 0)) - own, obs, method=against[0])


def _against(
    controls: Callable[[], np.ndarray], block: np.ndarray, *, method: str, seed: list[int], unsettled: list[str]
) -> np.ndarray:
    """The profile (Z,) of a well's cells (n, Z) against its controls."""
    if method == "ks":
        return signed_ks(block, controls())
    normal, settled = svm_normal(block, controls(), seed=seed)
    unsettled += [] if settled else [str(seed)]
    return normal


def signed_ks(cells: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """The difference F_controls - F_cells (Z,) where it is largest by amount: above 0 where cells are larger.

    F are the empirical distribution functions of cells (n, Z) and controls (m, Z).
    """
    both = np.concatenate([controls, cells])
    order = both.argsort(axis=0, kind="stable")
    step = np.concatenate([np.full(len(controls), 1 / len(controls)), np.full(len(cells), -1 / len(cells))])
    difference = step[order].cumsum(axis=0)
    ordered = np.take_along_axis(both, order, axis=0)
    difference[:-1][ordered[1:] == ordered[:-1]] = 0  # within a tie no function has its value yet
    largest = np.abs(difference).argmax(axis=0)
    return np.take_along_axis(difference, largest[None], axis=0)[0]


def svm_normal(cells: np.ndarray, controls: np.ndarray, *, seed: int | list[int]) -> tuple[np.ndarray, bool]:
    """The normal (Z,) of the plane between cells (n, Z) and n of the controls (m, Z), and whether it is final."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    drawn = controls[np.random.default_rng(seed).integers(len(controls), size=len(cells))]
    is_cell = np.repeat([1, 0], len(cells))
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", ConvergenceWarning)
        machine = LinearSVC(C=1.0, dual=False).fit(np.concatenate([cells, drawn]), is_cell)
    return machine.coef_[0], not any(issubclass(one.category, ConvergenceWarning) for one in raised)


@dataclass(frozen=True)
class Mixture:
    """Gaussians in the leading principal components of a sample of cells."""

    mean: np.ndarray  # (Z,)
    axes: np.ndarray  # (Z, axes), divided by the mean standard deviation along them
    model: GaussianMixture

    @classmethod
    def fit(cls, sample: np.ndarray, *, seed: int) -> Mixture:
        """Fit to cells (m, Z); expectation-maximisation stops after 100 rounds at the latest."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        if len(sample) <= N_COMPONENTS:
            raise InputError(f"cells: {len(sample)} cells; --methods mixture needs more than {N_COMPONENTS}")
        mean = sample.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(sample.T).reshape(len(mean), -1))
        values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
        if not values[0]:
            raise InputError("cells: all cells have the same features; --methods mixture needs differences")
        n_explaining = int(np.searchsorted(values.cumsum(), EXPLAINED * values.sum(), side="right")) + 1
        n_axes = min(max(n_explaining, LEAST_AXES), len(mean))
        axes = vectors[:, :n_axes] / np.sqrt(values[:n_axes].mean())
        few = len(sample) < CELLS_PER_VALUE * n_axes**2
        model = GaussianMixture(
            N_COMPONENTS, covariance_type="diag" if few else "full", reg_covar=REGULARISATION, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((sample - mean) @ axes)
        return cls(mean, axes, model)

    @property
    def names(self) -> list[str]:
        """The K names of the features."""
        return [f"component{k:02d}_mixture" for k in range(self.model.n_components)]

    def profile(self, cells: np.ndarray) -> np.ndarray:
        """The mean posterior probabilities (K,) of cells (n, Z); they sum to 1, but for LEAST_SHARE."""
        shares = self.model.predict_proba((cells - self.mean) @ self.axes).mean(axis=0)
        return np.where(shares < LEAST_SHARE, 0, shares)


@dataclass(frozen=True)
class Factors:
    """Factors by maximum likelihood of a sample of cells."""

    kept: np.ndarray  # (Z,) the features that differ between cells
    mean: np.ndarray  # (features kept,), as is the deviation
    deviation: np.ndarray
    model: FactorAnalysis

    @classmethod
    def fit(cls, sample: np.ndarray, *, seed: int) -> Factors:
        """Fit to cells (m, Z), each feature standardised."""
        from sklearn.decomposition import FactorAnalysis

        kept = ~constant_features(sample)
        n = min(N_FACTORS, int(kept.sum()), len(sample) - 1)
        if n < 1:
            raise InputError(f"cells: {len(sample)} cells without differences; --methods factors needs some")
        mean, deviation = sample[:, kept].mean(axis=0), sample[:, kept].std(axis=0)
        model = FactorAnalysis(n, svd_method="randomized", random_state=seed)
        return cls(kept, mean, deviation, model.fit((sample[:, kept] - mean) / deviation))

    @property
    def names(self) -> list[str]:
        """The names of the features."""
        return [f"factor{k:02d}_factors" for k in range(len(self.model.components_))]

    def profile(self, cells: np.ndarray) -> np.ndarray:
        """The mean of the expected factors of cells (n, Z) given their features."""
        return self.model.transform((cells[:, self.kept] - self.mean) / self.deviation).mean(axis=0)


@dataclass
class _Drawn:
    """Cells of one group with random keys, those with the lowest keys kept."""

    keys: np.ndarray = field(default_factory=lambda: np.empty(0))
    cells: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def add(self, keys: np.ndarray, cells: np.ndarray) -> None:
        self.keys = np.concatenate([self.keys, keys])
        self.cells = np.concatenate([self.cells, cells]) if len(self.cells) else cells

    def keep(self, n: int) -> None:
        if len(self.keys) > n:
            lowest = np.sort(np.argpartition(self.keys, n)[:n])
            self.keys, self.cells = self.keys[lowest], self.cells[lowest]


def even_sample(
    parts: Iterable[AnnData], *, seed: int, controls_of: Literal["plate", "batch"] | None = None
) -> dict[str, np.ndarray]:
    """At most SAMPLE cells: (m, Z) of each treatment, all up to an even share, at random.

    Args:
        parts: tables of cells that each hold whole wells.
        seed: of the draws, which do not depend on the order of parts.
        controls_of: the control cells of each plate or batch instead; else all controls are one treatment.
    """
    drawn: dict[str, _Drawn] = {}
    seen = Wells()
    for part in parts:
        for obs, block in wells_of(part, seen, noise="left out", non_finite="refused"):
            is_control = obs["role"] == "control"
            if controls_of and not is_control:
                continue
            group = str(obs[controls_of]) if controls_of else "control" if is_control else f"treated {obs['treatment']}"
            keys = np.random.default_rng(_seed_of(obs, seed)).random(len(block))
            drawn.setdefault(group, _Drawn()).add(keys, block)
        for kept in drawn.values():
            kept.keep(SAMPLE // len(drawn))
    if not drawn:
        raise InputError(f"cells: there are no {'control ' if controls_of else ''}cells to fit to")
    return {name: drawn[name].cells for name in sorted(drawn)}
