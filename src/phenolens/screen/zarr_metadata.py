"""Read what an OME-Zarr folder says of itself: plate, well or image; versions 0.1 to 0.5, zarr 2 and 3.

Only the JSON is read, no array. OME-NGFF specification: in zarr 3 the attributes stand under "ome" in zarr.json.
"""

import json
from pathlib import Path
from typing import Any

from phenolens.errors import InputError


def group_attributes(folder: Path) -> dict[str, Any] | None:
    """The OME attributes of a zarr group; None where the folder is no group. InputError where they are damaged."""
    for name in ("zarr.json", ".zattrs"):
        path = folder / name
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                attributes = content.get("attributes", {}) if name == "zarr.json" else content
                return dict(attributes.get("ome", attributes))
            except (ValueError, AttributeError, TypeError) as error:
                raise InputError(f"{path}: not readable as the attributes of a zarr group ({error})") from error
    return None


def image_attributes(folder: Path, *, named: str) -> dict[str, Any]:
    """The attributes of an image; InputError where the folder holds none."""
    attributes = group_attributes(folder)
    try:
        level = (attributes or {})["multiscales"][0]["datasets"][0]["path"]
    except (KeyError, IndexError, TypeError):
        level = None
    if attributes is None or level is None:
        raise InputError(f"{named} is no OME-Zarr image ({folder}: no multiscales in zarr.json or .zattrs)")
    return attributes


def channels_of(attributes: dict[str, Any]) -> list[str]:
    """The channels' labels, in order; none where the image does not name them."""
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    labels = [str(channel.get("label", "")).strip() for channel in channels or [] if isinstance(channel, dict)]
    return labels if all(labels) else []


def axes_of(attributes: dict[str, Any], n_axes: int) -> str:
    """The axes as letters, such as TCZYX; versions before 0.3 always have these five."""
    axes = attributes["multiscales"][0].get("axes")
    if axes is None:
        return "TCZYX"[-n_axes:]
    return "".join(str(axis["name"] if isinstance(axis, dict) else axis)[:1].upper() for axis in axes)
