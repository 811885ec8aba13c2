"""How profiles are to be brought to a common scale and whitened: the choices, each with its default."""

from dataclasses import dataclass
from typing import Literal

from phenolens.core.errors import at_least

Extent = Literal["all", "batch", "plate"]


@dataclass(frozen=True)
class Recipe:
    """How profiles are brought to a common scale and whitened; the default is METHOD 5's.

    PCA and ZCA after `scaling="zscore"` are the correlation forms, after `scaling="centre"` the covariance forms.
    """

    scaling: Literal["zscore", "robust", "centre", "none"] = "zscore"  # robust: median and 1.4826 x MAD
    scaled_over: Extent = "all"  # rows that share one centre and one scale
    whitening: Literal["pca", "zca", "none"] = "pca"  # zca is rotated back, so that features keep their names
    whitened_over: Extent = "all"  # rows that share one whitening
    learnt_on: Literal["controls", "everything"] = "controls"
    ridge: float = 1.0  # added to each eigenvalue; fixed beforehand, never chosen on the score
    ridge_unit: Literal["absolute", "relative"] = "absolute"  # relative: times the mean eigenvalue
    estimate: Literal["sample", "ledoit-wolf"] = "sample"  # of the covariance
    n_components: int | None = None  # keep only so many leading directions (truncated); None keeps all
    constant_features: Literal["refused", "left out"] = "refused"  # those without spread among a group's controls
    coral: Literal["none", "batch", "plate"] = "none"  # align the controls of each with all controls (TVN)

    def __post_init__(self) -> None:
        """InputError on a ridge below 0 or without end, and on no component at all."""
        at_least("--ridge", self.ridge, 0)
        at_least("--n-components", 1 if self.n_components is None else self.n_components, 1)

    @property
    def needs_learning(self) -> bool:
        """Whether anything is learnt from rows; otherwise profiles stay as they are."""
        return (self.scaling, self.whitening, self.coral) != ("none", "none", "none")


UNTOUCHED = Recipe(scaling="none", whitening="none")
UNWHITENED = Recipe(whitening="none")
TVN = Recipe(coral="batch")
