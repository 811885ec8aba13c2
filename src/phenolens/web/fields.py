"""Fields of view as the cell's page shows them: read from the source that `phenolens explore --source` names.

C channels, H x W pixels of a field. Nothing is kept of the source in the study, so its folder is named anew.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from phenolens.core.colours import Contrast
from phenolens.core.errors import InputError
from phenolens.crops.config import CropConfig
from phenolens.crops.source import Source, cut, open_source
from phenolens.crops.store import CropStore
from phenolens.screens.config import LayoutConfig
from phenolens.screens.layouts import layout_named
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import FIELD, where_of
from phenolens.study import Study
from phenolens.web.base import Cached
from phenolens.web.study_view import StudyCells

OPEN_FIELDS = 4  # kept in memory: 12 MB each for three channels of 2 megapixels
DARKEST, BRIGHTEST = 2, 99.8  # percentiles of a channel in the field, shown as black and at full brightness
Settings = TypeVar("Settings", CropConfig, LayoutConfig)


@dataclass(frozen=True)
class Field:
    """A cell's field, scaled, with the contrast that it is shown in."""

    pixels: np.ndarray  # (C, H, W) float32, each channel divided by its BRIGHTEST percentile
    contrast: Contrast

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[1], self.pixels.shape[2]


class Fields:
    """The fields of a study, read when a page asks for one."""

    def __init__(self, study: Study, source: Path | None) -> None:
        self._study, self._source = study, source
        self._sources, self._fields = Cached[Source](1), Cached[Field](OPEN_FIELDS)

    def of(self, cells: StudyCells, row: int) -> Field:
        """The field of a cell.

        Raises:
            InputError: no source is named, it cannot be read, or it does not hold the pixels of the cell's crop.
        """
        if self._source is None:
            raise InputError(
                f"its images are needed: start phenolens explore {self._study.quoted} --source with their folder"
            )
        store, cell = cells.store, cells.catalogue.cells.iloc[row]
        return self._fields.get((store.identity, cell["cell_id"]), lambda: self._read(cells, row))

    def _read(self, cells: StudyCells, row: int) -> Field:
        store, cell = cells.store, cells.catalogue.cells.iloc[row]
        assert self._source is not None
        source = self._sources.get(store.identity, lambda: _opened(self._source, store))
        table = source.screen.table
        found = table[(table[[*FIELD]] == cell[[*FIELD]].to_numpy()).all(axis=1)]
        if found.empty:
            raise InputError(f"{self._source}: no field of {where_of(cell)}")
        field = found.iloc[0]
        pixels = read_field(source.screen.files(field), where=where_of(field))
        if store.about["config"]["illumination"] == "as it is":
            y, x = np.array([cell["y"]], float), np.array([cell["x"]], float)
            inside = all(store.crop_px <= side for side in pixels.shape[1:])
            if not inside or not np.array_equal(cut(pixels, y, x, store.crop_px)[0], store.take([row])[0]):
                raise InputError(f"{self._source}: {where_of(cell)} does not hold the pixels of this cell's crop")
        low, high = np.percentile(pixels, [DARKEST, BRIGHTEST], axis=(1, 2))
        high = np.maximum(high, low + 1)
        scaled = (pixels / high[:, None, None]).astype(np.float32)
        own = Contrast(store.channels, cells.contrast.colours, low / high, np.ones(len(high)))
        return Field(scaled, own)


def _opened(path: Path | None, store: CropStore) -> Source:
    """The source of a store's crops, read with the same settings."""
    assert path is not None
    about, layout = store.about, store.about["source"]["layout"]
    if not layout_named(layout).has_fields:
        raise InputError(f"{path}: holds finished crops and no fields")
    selection = _rebuilt(CropConfig, about["config"]).selection()
    reading = _rebuilt(LayoutConfig, about["source"].get("reading", {}))
    return open_source(path, layout=layout, config=reading, selection=selection, cells="found", all_headers=False)


def _rebuilt(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Settings from the JSON that they were written as."""
    paths = {field.name for field in fields(kind) if "Path" in str(field.type)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else Path(value) if name in paths and value else value
        for name, value in values.items()
    }
    return kind(**given)
