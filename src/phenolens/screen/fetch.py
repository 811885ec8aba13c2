"""Download BBBC021 as `read_bbbc021` reads it: the tables, and a folder of images a plate.

Caie et al. 2010 made the images; the Broad Bioimage Benchmark Collection (Ljosa et al. 2012) has them. It publishes no
checksums, so lengths are held against the server's and members of archives against their CRC-32.
"""

import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from phenolens.errors import InputError, RunError, at_least, at_most
from phenolens.files import alone, read_json
from phenolens.progress import tell, track
from phenolens.screen.bbbc021 import FILE_COLUMNS, IMAGE_COLUMNS, IMAGE_TABLE, LABEL_COLUMNS, LABEL_TABLE, batch_of
from phenolens.screen.csv_table import read_csv
from phenolens.screen.download import Patience, Version, download, look, partial_bytes, sweep
from phenolens.screen.side_by_side import side_by_side
from phenolens.screen.unpack import MARKER, unpack_images

ADDRESS = "https://data.broadinstitute.org/bbbc/BBBC021"
TABLES = {IMAGE_TABLE: IMAGE_COLUMNS, LABEL_TABLE: tuple(LABEL_COLUMNS), "BBBC021_v1_compound.csv": ("compound",)}
UNPACKED_BYTES_A_BYTE = 2.5  # a plate's 720 images of 2.6 MB are packed into about 0.8 GB
SOURCE = (
    "BBBC021v1: images of Caie et al., Molecular Cancer Therapeutics 2010, from the Broad Bioimage Benchmark "
    "Collection (Ljosa et al., Nature Methods 2012): cite both. The licence of the images is unclear: do not "
    "pass them on unasked."
)


@dataclass(frozen=True)
class FetchConfig:
    """What of BBBC021 is downloaded, and how."""

    plates: tuple[str, ...] = ()  # such as Week1_22123; all when none is named
    mirror: str = ADDRESS  # address of the folder that holds the tables and archives, http or https
    parallel: int = 2  # plates downloaded and unpacked side by side
    keep_archives: bool = False  # keep each zip beside its plate's folder
    tries: int = Patience.tries  # of one file without a single new byte, before it is given up
    timeout_s: float = Patience.timeout_s  # seconds that a connection may be silent

    def __post_init__(self) -> None:
        """InputError on an address or a number that cannot be."""
        address = urlsplit(self.mirror)
        if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment:
            raise InputError(f'--mirror "{self.mirror}": expected an address such as {ADDRESS}')
        at_least("--parallel", self.parallel, 1)
        at_most("--parallel", self.parallel, 16)
        at_least("--tries", self.tries, 1)
        at_least("--timeout-s", self.timeout_s, 0.01)

    def url(self, name: str) -> str:
        """The address of a file."""
        return f"{self.mirror.rstrip('/')}/{name}"


def fetch_bbbc021(out: Path, config: FetchConfig, *, first_wait_s: float = Patience.first_wait_s) -> dict[str, Path]:
    """Download the tables and the chosen plates into `out`; the folder of each plate.

    A plate is there when all its images are unpacked, and is then not asked for again; what an earlier try left is gone
    on from. A plate that fails does not stop the others and is told at the end. Raises InputError for an unknown plate,
    a file that the server does not have, a damaged or unsafe archive and a disk that is too small; RunError when the
    server cannot be reached any more.
    """
    patience = Patience(tries=config.tries, first_wait_s=first_wait_s, timeout_s=config.timeout_s)
    tell(SOURCE)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out / ".fetch.lock", doing="fetching"):
        for name, columns in TABLES.items():
            _fetch_table(out, name, columns, config, patience)
        images = images_of_plates(_table(out, IMAGE_TABLE))
        plates = chosen_plates(config.plates, images)
        for plate in plates:
            _sweep_plate(out, plate)
        missing = [plate for plate in plates if not is_there(out, plate, images[plate])]
        if missing:
            _fetch_plates(out, missing, images, config, patience)
        else:
            tell(f"all {len(plates)} plates are there already")
    return {plate: _folder(out, plate) for plate in plates}


def images_of_plates(image_table: Path) -> dict[str, set[str]]:
    """The names of each plate's image files, as the image table has them."""
    table = read_csv(image_table, columns=IMAGE_COLUMNS)
    names = table.groupby(table["Image_Metadata_Plate_DAPI"].astype(str))[list(FILE_COLUMNS)]
    images = {str(plate): set(files.to_numpy().astype(str).ravel()) for plate, files in names}
    for plate in images:
        batch_of(plate, source=image_table.name)  # also: a plate's name is a folder's name, never a path
    return images


def chosen_plates(named: Iterable[str], known: Iterable[str]) -> list[str]:
    """The plates that are named, all when none is; InputError, with the nearest, on one that is not known."""
    every = sorted(known)
    for plate in named:
        if plate not in every:
            near = get_close_matches(plate, every, n=1, cutoff=0.0)
            raise InputError(f'--plates "{plate}": the image table has no such plate; the nearest is "{near[0]}"')
    return sorted(set(named)) or every


def is_there(out: Path, plate: str, images: set[str]) -> bool:
    """Whether a plate's images are all unpacked; InputError when some are, which this command never leaves."""
    folder = _folder(out, plate)
    if not folder.exists():
        return False
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    n_missing = len(images - present)
    if n_missing and not (folder / MARKER).is_file():
        raise InputError(
            f"{folder}: {n_missing:,} of {len(images):,} images are not in it, and this command did not make it; "
            "move it away and run it again"
        )
    return True


def archive_name(plate: str) -> str:
    """The file that holds a plate's images on the server."""
    return f"BBBC021_v1_images_{plate}.zip"


def _fetch_table(out: Path, name: str, columns: tuple[str, ...], config: FetchConfig, patience: Patience) -> None:
    if _table(out, name).is_file():
        sweep(out / name)
        return

    def check(path: Path) -> None:
        try:
            read_csv(path, columns=columns)
        except InputError as error:
            said = str(error).removeprefix(f"{path}: ")
            raise InputError(f"{config.url(name)}: {said}; see --mirror") from error

    download(config.url(name), out / name, patience=patience, stop=threading.Event(), check=check)


def _table(out: Path, name: str) -> Path:
    packed = out / f"{name}.gz"
    return packed if packed.is_file() else out / name


def _folder(out: Path, plate: str) -> Path:
    in_its_week = out / batch_of(plate, source="plates") / plate
    return in_its_week if in_its_week.is_dir() else out / plate


def _fetch_plates(
    out: Path, plates: list[str], images: Mapping[str, set[str]], config: FetchConfig, patience: Patience
) -> None:
    """Download and unpack the plates side by side; the first failure is raised when all others are done."""
    failures: dict[str, Exception] = {}
    versions: dict[str, Version] = {}
    stop = threading.Event()
    for plate in track(plates, "sizes asked for", total=len(plates)):
        try:
            versions[plate] = look(config.url(archive_name(plate)), patience=patience, stop=stop)
        except InputError as error:
            failures[plate] = error
    on_disk = {plate: _bytes_on_disk(out, plate, version) for plate, version in versions.items()}
    _check_room(out, versions, on_disk, config)

    def fetch(plate: str) -> None:
        archive = out / archive_name(plate)
        if not _is_whole(archive, versions[plate]):
            url = config.url(archive.name)
            download(url, archive, patience=patience, stop=stop, arrived=lambda n: on_disk.update({plate: n}))
        _unpack(archive, out / plate, images[plate], keep=config.keep_archives, stop=stop)

    total_mb = sum(version.length for version in versions.values()) // 1_000_000
    failures |= side_by_side(fetch, versions, n=config.parallel, stop=stop, n_bytes=on_disk, total_mb=total_mb)
    if failures:
        plate, first = next(iter(failures.items()))
        others = (
            f" ({len(failures)} of {len(plates)} plates failed: {', '.join(failures)})" if len(failures) > 1 else ""
        )
        raise (InputError if isinstance(first, InputError) else RunError)(f"{plate}: {first}{others}") from first


def _unpack(archive: Path, folder: Path, images: set[str], *, keep: bool, stop: threading.Event) -> None:
    try:
        n_images = unpack_images(archive, folder, stop=stop, marker={"archive_is_kept": keep})
    except InputError:
        archive.unlink()  # so that the same command asks for it anew
        raise
    if not keep:
        archive.unlink()
    n_missing = len(images - {path.name for path in folder.iterdir()})
    without = f"; {n_missing:,} images that the image table names are not in the archive" if n_missing else ""
    tell(f"{folder.name}: {n_images:,} images{without}")


def _sweep_plate(out: Path, plate: str) -> None:
    """Take away what a kill left: the beginnings of a whole archive, the archive of an unpacked plate."""
    archive, marker = out / archive_name(plate), _folder(out, plate) / MARKER
    sweep(archive)
    if marker.is_file() and not read_json(marker, mend="delete it and run it again")["archive_is_kept"]:
        archive.unlink(missing_ok=True)


def _is_whole(archive: Path, version: Version) -> bool:
    return archive.is_file() and archive.stat().st_size == version.length


def _bytes_on_disk(out: Path, plate: str, version: Version) -> int:
    archive = out / archive_name(plate)
    return version.length if _is_whole(archive, version) else min(partial_bytes(archive), version.length)


def _check_room(out: Path, versions: Mapping[str, Version], on_disk: Mapping[str, int], config: FetchConfig) -> None:
    """Say what will be downloaded; InputError when archives and images together do not fit on the disk."""
    lengths = [version.length for version in versions.values()]
    missing = sorted((version.length - on_disk[plate] for plate, version in versions.items()), reverse=True)
    unpacked = sum(lengths) * UNPACKED_BYTES_A_BYTE
    archives = sum(missing if config.keep_archives else missing[: config.parallel])  # the others are gone by then
    free = shutil.disk_usage(out).free
    tell(
        f"{len(lengths)} plates: {_gb(sum(missing))} to download of {_gb(sum(lengths))}, "
        f"about {_gb(unpacked)} unpacked; free in {out}: {_gb(free)}"
    )
    if unpacked + archives > free:
        raise InputError(
            f"{out}: needs about {_gb(unpacked + archives)} for images and archives, free are {_gb(free)}; make room, "
            "choose fewer plates with --plates, or another folder"
        )


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
