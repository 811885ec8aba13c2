"""From the images of a source, one row each, to a screen: its planes, time points and channels chosen."""

import posixpath
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.screens.config import LayoutConfig, chosen_channels
from phenolens.screens.image_reference import PROJECTIONS, ImageReference, image_reference
from phenolens.screens.plate_map import with_treatments
from phenolens.screens.read_image import channels_in
from phenolens.screens.screen import FIELD, Screen, where_of
from phenolens.screens.well_names import well_key

WELL_TEXT = re.compile(r"[A-Za-z]{1,2}\d{1,3}")


def screen_of_images(
    images: pd.DataFrame,
    *,
    source: Path,
    config: LayoutConfig,
    skip_missing: bool,
    left_out: Mapping[str, int],
    notes: Collection[str],
) -> Screen:
    """The screen of images, each of which is a plane and time point of a channel of a field, or holds all channels.

    Args:
        images: A row per image: plate, well, site, path within `source`; channel, z and t where names have them.
        source: The source folder.
        config: Which plane, time point and channels are taken.
        skip_missing: Leave out, and count, fields without an image of each channel.
        left_out: What is already left out, by what it was.
        notes: What the reader assumed, a sentence each.

    Raises:
        InputError: Several planes or time points, and none is chosen; two images of one field, channel, plane and
            time point; or as with_treatments.
    """
    images = _within_files(images, config)
    images, of_stacks = _stacked(_at_one_time(images, config), config)
    in_names = "channel" in images
    key = [*FIELD, "channel"] if in_names else FIELD
    twice = images.duplicated(key)
    if twice.any():
        again = images[twice].iloc[0]
        first = images[(images[key] == again[key]).all(axis=1)].iloc[0]
        what = f'channel "{again["channel"]}"' if in_names else "the field"
        raise InputError(
            f"{where_of(again)}: {what} has two files, {first['path']} and {again['path']} "
            f"({counted(int(twice.sum()), 'such file')}); {_differing(first['path'], again['path'], config.pattern)}"
        )
    if in_names:
        channels = chosen_channels(sorted(images["channel"].unique()), config.channels, source=str(source))
        names = pd.Series(list(channels.values()), dtype=str)
        alike = names[names.str.casefold().duplicated(keep=False)]
        if len(alike):
            raise InputError(f"{source}: channels {' and '.join(alike)} differ by capitals only; rename their files")
        wide = images.pivot(index=FIELD, columns="channel", values="path")[list(channels.values())]
        fields = wide.set_axis([f"file_{channel}" for channel in channels], axis=1).reset_index()
    else:
        file = source / image_reference(images["path"].dropna().iloc[0]).file
        channels = chosen_channels(channels_in(file), config.channels, source=file.name)
        fields = images[FIELD].reset_index(drop=True)
        references = [image_reference(path) if isinstance(path, str) else None for path in images["path"]]
        for ours, theirs in channels.items():
            fields[f"file_{ours}"] = [
                None if one is None else str(ImageReference(one.file, {**one.choice, "channel": theirs}))
                for one in references
            ]
    return with_treatments(
        fields,
        list(channels),
        source=source,
        config=config,
        skip_missing=skip_missing,
        left_out=left_out,
        notes=(*notes, *of_stacks),
    )


def _differing(first: str, again: str, pattern: str) -> str:
    """What two files of one field say about the pattern: the place where their names differ, and what it may be."""
    one, two = sorted((image_reference(path).file for path in (first, again)), key=lambda file: len(file.parts))
    if pattern and one.name == two.name and len(one.parts) < len(two.parts):
        if not two.is_relative_to(one.parent):
            return (
                f'one name in the folders "{one.parent}" and "{two.parent}": move a copy out of the source, and '
                "folders of plates to one depth"
            )
        return (
            f'the second is in a folder below, "{two.parent.relative_to(one.parent).as_posix()}": move that out of the '
            f'source, or begin --pattern with "{one.parent.name or "{plate}"}/"'
        )
    if one.with_suffix("") == two.with_suffix(""):
        return f"one name with the endings {one.suffix} and {two.suffix}: move one of them out of the source"
    parts = [re.split(r"[/_\-. ()]+", file.as_posix()) for file in (one, two)]
    other = next((texts for texts in zip(*parts) if texts[0] != texts[1]), None)
    if not pattern or other is None:
        return "make the pattern narrower"
    if all(map(WELL_TEXT.fullmatch, other)) and well_key(other[0]) == well_key(other[1]):
        return f'"{other[0]}" and "{other[1]}" are one well: move one of them out of the source, or rename it'
    is_number = all(any(map(str.isdecimal, text)) for text in other)
    places = ("{plate}", "{channel}", "{site}", "{z}", "{t}") if is_number else ("{plate}", "{channel}")
    free = [place for place in places if place not in pattern]
    free += [f"{place} (now at another place)" for place in places if place in pattern]
    return (
        f'their names differ in "{other[0]}" and "{other[1]}": name that place in --pattern, {" or ".join(free)}; or '
        "move copies out of the source"
    )


def _within_files(images: pd.DataFrame, config: LayoutConfig) -> pd.DataFrame:
    """The images with the chosen plane and time point behind their paths, where these are not in the names."""
    chosen = {"z": config.z, "t": "" if config.t is None else str(config.t)}
    inside = {axis: text for axis, text in chosen.items() if text and axis not in images}
    references = map(image_reference, images["path"])
    return images.assign(path=[str(ImageReference(one.file, {**one.choice, **inside})) for one in references])


def _at_one_time(images: pd.DataFrame, config: LayoutConfig) -> pd.DataFrame:
    if "t" not in images:
        return images
    found = sorted(images["t"].unique())
    if config.t is None and len(found) > 1:
        raise InputError(f"{len(found)} time points, {_listed(found)}; choose one with --t")
    if config.t is not None and config.t not in found:
        raise InputError(f"--t {config.t}: no image has this time point (there are: {_listed(found)})")
    return _chosen(images, "t", found[0] if config.t is None else config.t)


def _chosen(images: pd.DataFrame, axis: str, number: int) -> pd.DataFrame:
    """The images of one plane or time point; without a path for each channel of a field that has none."""
    key = [name for name in (*FIELD, "channel", "z") if name in images and name != axis]
    chosen = images[images[axis] == number].drop(columns=axis)
    every = images[key].drop_duplicates()
    lost = every.merge(chosen[key].drop_duplicates(), on=key, how="left", indicator="found").query(
        "found == 'left_only'"
    )
    return pd.concat([chosen, lost.drop(columns="found").assign(path=None)], ignore_index=True)


def _stacked(images: pd.DataFrame, config: LayoutConfig) -> tuple[pd.DataFrame, list[str]]:
    """The images of the chosen plane, or one row per stack whose path names all planes; and notes."""
    if "z" not in images:
        return images, []
    found = sorted(images["z"].unique())
    if not config.z and len(found) > 1:
        raise InputError(
            f"{len(found)} planes, {_listed(found)}; choose one with --z, or --z max (the largest value of each pixel) "
            "or --z brightest (plane)"
        )
    if config.z not in PROJECTIONS:
        if config.z and (not config.z.isdecimal() or int(config.z) not in found):
            raise InputError(
                f'--z "{config.z}": no image has this plane (there are: {_listed(found)}, {" or ".join(PROJECTIONS)})'
            )
        return _chosen(images, "z", int(config.z) if config.z else found[0]), []
    images = images[images["path"].notna()]
    key = [name for name in (*FIELD, "channel") if name in images]
    twice = images.duplicated([*key, "z"])
    if twice.any():
        again = images[twice].iloc[0]
        raise InputError(f"{where_of(again)}: plane {again['z']} has two files, one is {again['path']}")
    ordered = images.sort_values([*key, "z"], kind="stable")
    stacks = ordered.groupby(key, sort=False)["path"]
    paths = stacks.agg(lambda planes: _stack(list(planes), config.z)).reset_index()
    n_planes = stacks.size().to_numpy()
    short = n_planes < n_planes.max()
    if not short.any():
        return paths, []
    first = paths[short].iloc[0]
    return paths, [
        f"{int(short.sum()):,} of {len(paths):,} stacks have fewer than {n_planes.max()} planes; the first: "
        f"{where_of(first)}{', channel ' + first['channel'] if 'channel' in first else ''}"
    ]


def _stack(paths: list[str], how: str) -> str:
    """One reference to the files of a stack."""
    first, *others = (image_reference(path) for path in paths)
    names = "|".join(posixpath.relpath(other.file.as_posix(), first.file.parent.as_posix()) for other in others)
    return str(ImageReference(first.file, {**first.choice, "z": how, **({"with": names} if names else {})}))


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:6])) + (f" ... {numbers[-1]}" if len(numbers) > 6 else "")
