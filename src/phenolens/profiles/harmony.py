"""Bring the batches of a screen together by Harmony: rows of the same kind are moved onto each other.

N rows (wells), Z features, B batches (or plates). Korsunsky et al. 2019, computed by the library harmony-pytorch; it
needs PyTorch, which is loaded when `harmonise` is called and not before.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.provenance import KEY, provenance, provenance_text
from phenolens.profiles.profiles import JOINED_BY, METADATA, metadata
from phenolens.profiles.validate import feature_matrix

if TYPE_CHECKING:
    from anndata import AnnData

# The library's own defaults, given by name so that another version of it does not change them.
SETTINGS: dict[str, Any] = {
    "max_iter_harmony": 10,
    "max_iter_clustering": 200,
    "tol_harmony": 1e-4,
    "tol_clustering": 1e-5,
    "ridge_lambda": 1.0,  # rows' worth of no shift, in each cluster of each batch
    "sigma": 0.1,  # softness of the clusters
    "block_proportion": 0.05,
    "theta": 2.0,  # how strongly a cluster is to hold all batches
    "tau": 0,
    "correction_method": "fast",
}
ROWS_A_CLUSTER, MOST_CLUSTERS = 30, 100  # the library's own rule
# With one cluster the library gives rows that point away from it a weight of zero, and leaves them where they are.
FEWEST_ROWS = 2 * ROWS_A_CLUSTER
SEVERAL = {"batch": "batches", "plate": "plates"}


@dataclass(frozen=True)
class BatchCertificate:
    """What bringing the batches together did to the controls, which should lie at one place in all of them."""

    over: str  # batch or plate
    n_batches: int  # or plates
    n_rows: int
    n_controls: int
    n_clusters: int
    share_before: float | None  # of the controls' variance that lies between batches: R² summed over features, 0..1
    share_after: float | None  # None: fewer than two batches have controls, or the controls do not vary
    share_by_chance: float | None  # expected of controls that know nothing of batches: (batches - 1) / (controls - 1)
    remarks: tuple[str, ...]  # what cannot be seen or should be doubted, in plain words

    def __str__(self) -> str:
        """The certificate as one line."""
        several = SEVERAL[self.over]
        line = f"{self.n_rows} rows of {self.n_batches} {several} in {self.n_clusters} clusters"
        if self.share_before is not None:
            line += (
                f"; of the variance of {self.n_controls} controls {self.share_before:.1%} lay between "
                f"{several} and {self.share_after:.1%} does now (by chance alone: {self.share_by_chance:.1%})"
            )
        return "; ".join((line, *self.remarks))


def harmonise(profiles: AnnData, *, over: Literal["batch", "plate"] = "batch", seed: int = 0) -> AnnData:
    """The profiles with their batches (or plates) brought together: a new table of the same rows, obs and features.

    Rows are clustered softly by angle about 0, so whiten first; within a cluster each batch is moved to where the
    cluster is. All rows are learnt from, treated ones too: nothing is learnt that could be applied to other rows, and
    one row more or less changes all of them. It may remove real effects: what a treatment that was given in one batch
    only does to cells cannot be told from what that batch does. Batches that share no cluster are left apart. The
    certificate (`certificate_of`) says how near the controls came.

    The same seed gives the same bytes on one machine, whatever the order of rows (they are taken by name) and the
    number of threads; X is computed in single precision. InputError on NaN, on one batch alone, on a row with no batch
    or with several, on two rows of one name, on fewer than 60 rows, and where harmony-pytorch is not installed.
    """
    from anndata import AnnData

    numbers = feature_matrix(profiles)
    obs = metadata(profiles, (over, "role", "treatment"))
    _check_rows(obs, over)
    order = np.argsort(profiles.obs_names.to_numpy(dtype=object), kind="stable")
    n_clusters = min(MOST_CLUSTERS, len(obs) // ROWS_A_CLUSTER)
    moved = np.empty_like(numbers)
    moved[order], library = _moved(numbers[order], obs[over].to_numpy()[order], n_clusters, seed=seed)
    certificate = _certificate(numbers, moved, obs, over, n_clusters)
    together = AnnData(moved, obs=profiles.obs.copy(), var=profiles.var.copy())
    together.uns[KEY] = provenance_text(
        "harmony",
        made_from=provenance(profiles),
        library=library,
        over=over,
        seed=seed,
        settings=SETTINGS | {"n_clusters": n_clusters},
        certificate=asdict(certificate),
    )
    return together


def certificate_of(profiles: AnnData) -> BatchCertificate:
    """The certificate of the table that `harmonise` made, from it or from anything made of it."""
    made = provenance(profiles)
    while made and made.get("step") != "harmony":
        made = made.get("made_from", {})
    if not made:
        raise InputError("profiles: neither these nor what they were made from went through harmonise; call it first")
    return BatchCertificate(**made["certificate"] | {"remarks": tuple(made["certificate"]["remarks"])})


def _check_rows(obs: pd.DataFrame, over: str) -> None:
    groups, column = obs[over], METADATA[over]
    twice = obs.index.duplicated()
    if twice.any():
        raise InputError(
            f'profiles: row "{obs.index[twice][0]}" is there twice; expected one name a row: obs_names_make_unique()'
        )
    nowhere, joined = (groups == "").to_numpy(), groups.str.contains(JOINED_BY, regex=False).to_numpy()
    if nowhere.any():
        raise InputError(
            f'profiles: row "{obs.index[nowhere][0]}" has no {column} ({nowhere.sum()} such rows); expected a name: '
            "fill it in, or leave those rows out"
        )
    if joined.any():
        raise InputError(
            f'profiles: row "{obs.index[joined][0]}" has {column} "{groups[joined].iloc[0]}", which is several; '
            "expected one: harmonise wells, then make treatments of them"
        )
    if groups.nunique() == 1:
        raise InputError(
            f'profiles: all {len(obs)} rows have {column} "{groups.iloc[0]}"; expected at least two to bring together: '
            "leave harmony out"
        )
    if len(obs) < FEWEST_ROWS:
        raise InputError(
            f"profiles: {len(obs)} rows; expected at least {FEWEST_ROWS}, since Harmony makes a cluster of "
            f"{ROWS_A_CLUSTER} rows and needs two: give more wells, or leave harmony out"
        )


def _moved(numbers: np.ndarray, groups: np.ndarray, n_clusters: int, *, seed: int) -> tuple[np.ndarray, str]:
    """The rows (N, Z) as Harmony moves them, and the library with its version."""
    try:
        from harmony import harmonize

        library = f"harmony-pytorch {version('harmony-pytorch')}"
    except ImportError:
        raise InputError(
            'harmony-pytorch is not installed; harmonise needs: pip install "phenolens[harmony]"'
        ) from None
    unit = np.abs(numbers).max() or 1.0  # single precision ends at 1e38, and the library's lengths at 1e-12
    with _globals_as_they_were(), warnings.catch_warnings():
        # rows that are alike: some clusters then lie at one place, which does no harm
        warnings.filterwarnings("ignore", message="Number of distinct clusters", category=UserWarning)
        moved = harmonize(
            numbers / unit,
            pd.DataFrame({"group": groups}),
            "group",
            n_clusters=n_clusters,
            random_state=seed,
            n_jobs=1,  # threads add up in another order each time
            use_gpu=False,
            verbose=False,
            **SETTINGS,
        )
    return moved.astype(np.float64) * unit, library


@contextmanager
def _globals_as_they_were() -> Iterator[None]:
    """Put back what the library sets for the whole process: PyTorch's threads and numpy's old random numbers."""
    import torch

    threads, randomness = torch.get_num_threads(), np.random.get_state()  # noqa: NPY002  # the library draws from these
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        np.random.set_state(randomness)  # noqa: NPY002


def _certificate(
    before: np.ndarray, after: np.ndarray, obs: pd.DataFrame, over: str, n_clusters: int
) -> BatchCertificate:
    control = (obs["role"] == "control").to_numpy()
    groups = obs[over][control].to_numpy()
    share_before, share_after = (_share_between(numbers[control], groups) for numbers in (before, after))
    by_chance = None if share_before is None else (len(set(groups)) - 1) / (len(groups) - 1)
    return BatchCertificate(
        over=over,
        n_batches=int(obs[over].nunique()),
        n_rows=len(obs),
        n_controls=int(control.sum()),
        n_clusters=n_clusters,
        share_before=share_before,
        share_after=share_after,
        share_by_chance=by_chance,
        remarks=_remarks(obs, over, n_clusters, share_before, share_after),
    )


def _share_between(controls: np.ndarray, groups: np.ndarray) -> float | None:
    """R²: the sum of squares of the groups' means over that of all controls (n, Z), both about the controls' mean."""
    centred = controls - controls.mean(axis=0) if len(controls) else controls
    total = np.square(centred).sum()
    names = sorted(set(groups))
    if len(names) < 2 or total == 0:
        return None
    between = sum((groups == name).sum() * np.square(centred[groups == name].mean(axis=0)).sum() for name in names)
    return float(between / total)


def _remarks(
    obs: pd.DataFrame, over: str, n_clusters: int, share_before: float | None, share_after: float | None
) -> tuple[str, ...]:
    remarks, several = [], SEVERAL[over]
    n_rows = obs[over].value_counts()
    without = sorted(set(obs[over]) - set(obs[over][obs["role"] == "control"]))
    if without:
        remarks.append(
            f'{len(without)} of {len(n_rows)} {several} have no controls ("{without[0]}" first): what was done to them '
            "cannot be seen in the controls' share"
        )
    if share_before is not None and share_after is not None and share_after > 0.9 * share_before:
        remarks.append(f"the controls of the {several} came hardly nearer to each other")
    few = n_rows[n_rows < n_clusters].sort_index()
    if len(few):
        remarks.append(
            f'{len(few)} of {len(n_rows)} {several} have fewer rows than there are clusters ("{few.index[0]}": '
            f"{few.iloc[0]} of {n_clusters}): their shift is held back"
        )
    treated = obs[obs["role"] == "treated"]
    one_only = treated.groupby("treatment")[over].nunique() == 1
    if one_only.any():
        remarks.append(
            f"{one_only.sum()} of {len(one_only)} treatments are in one {over} only: what they do to cells may have "
            f"been removed as if the {over} did it"
        )
    return tuple(remarks)
