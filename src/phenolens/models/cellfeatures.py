"""CellProfiler's features of the nucleus, the cell body and the cytoplasm, measured by cp_measure, never trained.

n crops, C channels, S crop side in px, F features. The features: Singh et al. 2014 and Ljosa et al. 2013; the library:
Muñoz et al. 2025, "cp_measure: API-first feature extraction for image-based profiling workflows".
"""

import re
import warnings
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.models.config import CellFeaturesConfig, ModelConfig
from phenolens.models.interface import Fitted, Input

FULL_SCALE = 65535  # counts that become 1, before `fit` has seen what the images reach
BRIGHTEST = 0.999  # quantile of the crops' maxima that becomes 1
FIT_CROPS = 1000  # crops that are measured to learn which features can be used
MOST_MISSING = 0.05  # share of the objects without a value, above which a feature is left out
LEAST_SPREAD = 1e-6  # relative to the largest value, below which a feature is constant
TILES, GAP_PX = 100, 4  # crops in one image, which costs a fifth of one by one; empty pixels between them
CORRELATIONS = tuple(f"correlation_{name}" for name in ("pearson", "costes", "manders_fold", "rwc"))
OF_CHANNEL = ("intensity", "texture", "granularity", "radial_distribution", "radial_zernikes")
FAMILIES = ("sizeshape", "zernike", "feret", *OF_CHANNEL, *CORRELATIONS)
# Where an object lies, and how it is turned, in the crop: chance.
OF_PLACE = re.compile(r"Location_|Center_|BoundingBoxM|Orientation|EulerNumber")


class CellFeatures(Fitted):
    """Size, shape, Zernike moments, intensity, texture and correlation of channels, of each part of the central cell.

    Outlines are found in the crop. What `fit` learns: the brightness that becomes 1, the features to keep, and the
    median that stands where an object is missing.
    """

    Config: ClassVar[type[ModelConfig]] = CellFeaturesConfig
    input: ClassVar[Input] = "raw"

    def __init__(self, channels: int, crop_px: int, config: CellFeaturesConfig) -> None:
        super().__init__()
        self.config = config
        self.scale: Tensor
        self.register_buffer("scale", torch.full((channels,), float(FULL_SCALE)))
        self.take_channels([f"C{i}" for i in range(channels)])

    def take_channels(self, names: Sequence[str]) -> None:
        """Set the channels' names, on which objects and features depend."""
        from phenolens.morphology.features import nuclei_channel  # slow to import, as are the outlines below

        nuclei = self.config.nuclei or nuclei_channel(names)
        if self.config.nuclei and nuclei not in names and list(names) != [f"C{i}" for i in range(len(names))]:
            raise InputError(f'--nuclei "{nuclei}": no such channel; expected one of {", ".join(names)}')
        self.channels, self.nuclei = list(names), names.index(nuclei) if nuclei in names else None
        parts = ["Nuclei", "Cells", "Cytoplasm"] if len(names) > 1 else ["Nuclei"]
        self.objects = ["Cells"] if self.nuclei is None else parts
        square = np.zeros((1, 16, 16), bool)
        square[:, 4:-4, 4:-4] = True
        self.columns, _ = self._measured(np.ones((1, len(names), 16, 16)), dict.fromkeys(self.objects, square))
        self.of_place = np.array([OF_PLACE.match(column) is not None for column in self.columns])
        self.names = [f"{part}_{column.replace('__', '_')}" for part in self.objects for column in self.columns]
        self.kept: Tensor
        self.fill: Tensor
        self.register_buffer("kept", torch.ones(len(self.names), dtype=torch.bool))
        self.register_buffer("fill", torch.zeros(len(self.names)))

    def fit(self, x: Tensor) -> None:
        """Learn from counts (n, C, S, S), of which an even sample is measured."""
        if self.nuclei is None:
            tell(
                f"cellfeatures: no channel of {', '.join(self.channels)} is known to show nuclei (--nuclei), so only "
                "cell bodies are measured"
            )
        brightest = torch.quantile(x.amax((2, 3)).double(), BRIGHTEST, dim=0).float()
        self.scale.copy_(torch.where(brightest > 0, brightest, 1))
        z = self._features(x[:: -(-len(x) // FIT_CROPS)])
        parts = np.stack(np.split(z, len(self.objects), axis=1), axis=1)  # (n, objects, columns)
        found = np.isfinite(parts).any(axis=2, keepdims=True)
        missing = (found & ~np.isfinite(parts)).sum(axis=0) > MOST_MISSING * np.maximum(found.sum(axis=0), 1)
        measured = np.isfinite(z).any(axis=0)
        low, median, high = np.zeros((3, len(self.names)))
        low[measured], median[measured], high[measured] = np.nanquantile(z[:, measured], [0, 0.5, 1], axis=0)
        constant = high - low <= LEAST_SPREAD * np.maximum(abs(low), abs(high))
        kept = ~(missing | self.of_place).ravel() & ~constant
        if not kept.any():
            raise InputError("cellfeatures: no feature differs between these crops; are they empty?")
        self.kept.copy_(torch.from_numpy(kept))
        self.fill.copy_(torch.from_numpy(median))

    def embed(self, x: Tensor) -> Tensor:
        """The features (n, F) of counts (n, C, S, S); the median of the fit where an object was not found."""
        z = torch.from_numpy(self._features(x)).float().to(x.device)
        return torch.where(torch.isfinite(z), z, self.fill)[:, self.kept]

    def feature_names(self) -> list[str]:
        """As Nuclei_Area or Cells_Intensity_MeanIntensity_DNA: object, feature, channels."""
        return [name for name, kept in zip(self.names, self.kept.tolist()) if kept]

    def _features(self, x: Tensor) -> np.ndarray:
        """All features (n, objects * columns), NaN where an object or a value is missing."""
        from phenolens.morphology.segment import outlines

        counts = x.cpu().double().numpy()
        intensity = np.clip(counts / self.scale.cpu().numpy()[:, None, None], 0, 1)
        peak = counts.max(axis=(2, 3), keepdims=True)
        shown = counts / np.where(peak > 0, peak, 1)
        parts = []
        for start in range(0, len(x), TILES):
            part = slice(start, start + TILES)
            others = [i for i in range(len(self.channels)) if i != self.nuclei]
            dna = None if self.nuclei is None else shown[part, self.nuclei]
            found = outlines(dna, shown[part][:, others])
            masks = {"Nuclei": found.nucleus, "Cells": found.body, "Cytoplasm": found.body & ~found.nucleus}
            _, z = self._measured(intensity[part], {name: masks[name] for name in self.objects})
            parts.append(z)
        return np.concatenate(parts)

    def _measured(self, images: np.ndarray, masks: dict[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
        """Columns of an object, and the features (n, objects * columns) of crops (n, C, S, S) with masks (n, S, S).

        Zernike moments are measured crop by crop: whether a pixel on the enclosing circle counts depends, by rounding,
        on where in the image the object is. All else is measured in one image of all crops.
        """
        from cp_measure.featurizer import featurize, make_featurizer_config

        n, objects = len(images), list(masks)
        areas = np.stack([masks[name] for name in objects], axis=1).astype(np.int32)
        if not areas.any():
            return self.columns, np.full((n, len(self.names)), np.nan)
        labelled = areas * np.arange(1, n + 1, dtype=np.int32)[:, None, None, None]
        of_all = {"sizeshape", "intensity", "texture"}
        of_all |= {"radial_distribution"} if self.config.radial else set()
        of_all |= {"correlation_pearson"} if len(self.channels) > 1 else set()
        columns, blocks = [], []
        for pictures, labels, families in (
            (mosaic(images)[None], mosaic(labelled)[None], of_all),
            (images, areas, {"zernike"}),
        ):
            chosen = make_featurizer_config(
                self.channels, objects=objects, **{name: name in families for name in FAMILIES}
            )
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # of means and logarithms of nothing: they become NaN
                numbers, names, rows = featurize(pictures, labels, chosen)
            block = np.full((n, len(objects), len(names)), np.nan)
            for (picture, name, label), values in zip(rows, numbers):
                block[picture + label - 1, objects.index(name)] = np.where(np.isfinite(values), values, np.nan)
            columns += names
            blocks.append(block)
        return columns, np.concatenate(blocks, axis=2).reshape(n, -1)


def mosaic(crops: np.ndarray) -> np.ndarray:
    """Crops (n, K, S, S) as one image (K, height, width), ten in a row, with empty pixels around each."""
    n, kinds, side = crops.shape[:3]
    rows, pitch = -(-n // 10), side + GAP_PX
    tiles = np.zeros((rows * 10, kinds, pitch, pitch), crops.dtype)
    tiles[:n, :, GAP_PX:, GAP_PX:] = crops
    picture = tiles.reshape(rows, 10, kinds, pitch, pitch).transpose(2, 0, 3, 1, 4)
    return np.pad(picture.reshape(kinds, rows * pitch, 10 * pitch), ((0, 0), (0, GAP_PX), (0, GAP_PX)))
