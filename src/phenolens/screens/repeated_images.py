"""One image is of one field and one channel: a screen that names one twice is refused."""

from functools import cache
from pathlib import Path

from phenolens.core.errors import InputError
from phenolens.screens.image_files import image_reference
from phenolens.screens.screen import Screen, where_of

COLOURS = {"red": "1", "green": "2", "blue": "3"}


def refuse_repeated_images(screen: Screen) -> Screen:
    """The screen; InputError where two fields, or two channels of a field, name one image.

    Links are followed, and a choice of the first (`#page=1`) is the file without one.
    """

    @cache
    def on_disk(folder: Path) -> Path:
        return (screen.folder / folder).resolve()

    def identity(text: str) -> tuple[str, ...]:
        reference = image_reference(text)
        file = on_disk(reference.file.parent) / reference.file.name
        chosen = {axis: COLOURS.get(value.lower(), value.lstrip("0")) for axis, value in reference.choice.items()}
        return str(file.resolve() if file.is_symlink() else file), *sorted(
            f"{axis}={value}" for axis, value in chosen.items() if value != "1"
        )

    first: dict[tuple[str, ...], tuple[int, str]] = {}
    repeated: list[tuple[tuple[int, str], tuple[int, str], str]] = []
    for channel in screen.channels:
        for row, text in enumerate(screen.table[f"file_{channel}"].astype(str)):
            earlier = first.setdefault(identity(text), (row, channel))
            if earlier != (row, channel):
                repeated.append(((row, channel), earlier, text))
    if repeated:
        (row, channel), (other, its_channel), text = repeated[0]
        also = "" if row == other else f"{where_of(screen.table.iloc[other])}, "
        raise InputError(
            f'{where_of(screen.table.iloc[row])}: channel "{channel}" is the image {text}, which {also}channel '
            f'"{its_channel}" names too ({len(repeated):,} such images); an image is of one field and one channel: '
            "correct the names or the folders"
        )
    return screen
