"""Download BBBC021 in the layout that `read_bbbc021` reads: the tables, and one folder of images per plate.

Images: Caie et al. 2010; server: Broad Bioimage Benchmark Collection (Ljosa et al. 2012). It publishes no checksums:
a file must have the length that the server states, and every image the CRC-32 of its archive.
"""

import contextlib
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Annotated, Any
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from phenolens import __version__
from phenolens.core.bounds import Bounded, Bounds, Count
from phenolens.core.errors import InputError, Interrupted
from phenolens.core.files import alone
from phenolens.core.progress import tell, track
from phenolens.screens.bbbc021 import FILE_COLUMNS, IMAGE_COLUMNS, IMAGE_TABLE, LABEL_COLUMNS, LABEL_TABLE, batch_of
from phenolens.screens.csv_table import read_csv
from phenolens.screens.file_listing import in_hidden
from phenolens.screens.image_files import IMAGE_SUFFIXES

ADDRESS = "https://data.broadinstitute.org/bbbc/BBBC021"
TABLES = {IMAGE_TABLE: IMAGE_COLUMNS, LABEL_TABLE: tuple(LABEL_COLUMNS), "BBBC021_v1_compound.csv": ("compound",)}
SOURCE = (
    "BBBC021v1: images of Caie et al., Molecular Cancer Therapeutics 2010, from the Broad Bioimage Benchmark "
    "Collection (Ljosa et al., Nature Methods 2012): cite both. The licence of the images is unclear: do not "
    "redistribute them without asking."
)
UNPACKED_PER_PACKED_BYTE = 2.5  # a plate's 720 images of 2.6 MB are packed into about 0.8 GB
CHUNK_BYTES = 64 * 1024
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers after which the server is asked again
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)


@dataclass(frozen=True)
class FetchConfig(Bounded):
    """Which plates of BBBC021 to download, and how."""

    plates: tuple[str, ...] = ()  # such as Week1_22123; all when none is named
    mirror: str = ADDRESS  # address of the folder that holds the tables and archives, http or https
    parallel: Annotated[int, Bounds(ge=1, le=16)] = 2  # plates downloaded and unpacked at the same time
    keep_archives: bool = False  # keep each zip next to its plate's folder
    tries: Count = 5  # attempts to download a file
    timeout_s: Annotated[float, Bounds(ge=0.01)] = 30.0  # seconds that a connection may be silent

    def __post_init__(self) -> None:
        """Validates the settings."""
        super().__post_init__()
        address = urlsplit(self.mirror)
        if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment:
            raise InputError(f'--mirror "{self.mirror}": expected an address such as {ADDRESS}')


def fetch_bbbc021(out: Path, config: FetchConfig) -> dict[str, Path]:
    """Download the tables and the chosen plates into `out`.

    A plate's folder appears when all its images are unpacked; a plate whose folder exists is not downloaded again.
    When one plate fails, the others are still downloaded.

    Returns:
        The folder of each chosen plate.

    Raises:
        InputError: a plate is unknown, the server cannot be reached or lacks a file, an archive is damaged or unsafe,
            or the disk is too small.
    """
    tell(SOURCE)
    partial = out / ".fetch.partial"
    with alone(out / ".fetch.lock", doing="fetching"):
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        server = _Server(config, partial)
        try:
            for name, columns in TABLES.items():
                if not _table(out, name).is_file():
                    _fetch_table(server, out / name, columns)
            images = images_of_plates(_table(out, IMAGE_TABLE))
            plates = chosen_plates(config.plates, images)
            if missing := [plate for plate in plates if not _folder(out, plate).is_dir()]:
                _fetch_plates(server, out, missing, config)
        finally:
            with contextlib.suppress(OSError):
                partial.rmdir()
    folders = {plate: _folder(out, plate) for plate in plates}
    for plate, folder in folders.items():
        if n_missing := len(images[plate] - {path.name for path in folder.iterdir()}):
            tell(f"{folder}: lacks {n_missing:,} of {len(images[plate]):,} images that {IMAGE_TABLE} lists")
    return folders


def images_of_plates(image_table: Path) -> dict[str, set[str]]:
    """The names of each plate's image files, from the image table."""
    table = read_csv(image_table, columns=IMAGE_COLUMNS)
    names = table.groupby(table["Image_Metadata_Plate_DAPI"].astype(str))[list(FILE_COLUMNS)]
    images = {str(plate): set(files.to_numpy().astype(str).ravel()) for plate, files in names}
    for plate in images:
        batch_of(plate, source=image_table.name)  # raises for a name that could be a path
    return images


def chosen_plates(named: Iterable[str], known: Iterable[str]) -> list[str]:
    """The named plates, or all known ones if none is named; InputError, with the nearest name, on an unknown plate."""
    every = sorted(known)
    for plate in named:
        if plate not in every:
            near = get_close_matches(plate, every, n=1, cutoff=0.0)
            raise InputError(f'--plates "{plate}": the image table has no such plate; the nearest is "{near[0]}"')
    return sorted(set(named)) or every


def unpack_images(archive: Path, folder: Path) -> None:
    """Write the images of a zip archive into the new `folder`, whatever folders the archive has.

    Raises:
        InputError: the archive is damaged, unsafe or without images. On any error `folder` does not exist.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            images = _images(opened, archive=archive)
            folder.mkdir(parents=True)
            for name, member in images.items():
                with opened.open(member) as source, (folder / name).open("wb") as file:
                    shutil.copyfileobj(source, file, CHUNK_BYTES)  # zipfile checks the CRC-32
                    file.flush()
                    os.fsync(file.fileno())
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, DAMAGED):
            raise InputError(f"{archive}: damaged ({error}); not unpacked") from error
        raise


def problem_of(member: zipfile.ZipInfo) -> str:
    """Why a member of an archive must not be unpacked; empty when it may."""
    name = member.orig_filename  # as stored; zipfile cleans `filename`
    if name.startswith("/") or ".." in name.split("/"):
        return "a path outside the folder"
    if any(character in name for character in "\\:") or not name.isprintable() or not name:
        return "an invalid path"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device, expected a file"
    if member.flag_bits & 0x1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "encrypted or compressed by a method other than deflate"
    return ""


def refuse_downgrade(response: requests.Response, **_: object) -> None:
    """A hook of requests: InputError on a redirect from https to http."""
    target = urljoin(response.url, response.headers.get("Location", ""))
    if response.is_redirect and response.url.startswith("https:") and not target.startswith("https:"):
        raise InputError(f"{response.url}: redirects to {target}, expected https; choose another --mirror")


class _Server:
    """Downloads files into the folder `partial`, with the retries and the time-out of a FetchConfig."""

    def __init__(self, config: FetchConfig, partial: Path) -> None:
        self.stop = Event()  # ends all downloads
        self.n_bytes: dict[str, int] = {}  # arrived, by file name
        self.partial = partial
        # identity: the length of a compressed transfer is not the file's
        headers = {"User-Agent": f"phenolens/{__version__}", "Accept-Encoding": "identity"}
        hooks = {"response": refuse_downgrade}
        self._options: dict[str, Any] = {"timeout": config.timeout_s, "headers": headers, "hooks": hooks}
        self.address = config.mirror.rstrip("/") + "/"
        self._files = pooch.create(partial, self.address, retry_if_failed=config.tries - 1)
        retry = Retry(config.tries - 1, backoff_factor=0.5, status_forcelist=BUSY, raise_on_status=False)
        self._session = requests.Session()
        self._session.mount(self.address, HTTPAdapter(max_retries=retry))

    def length(self, name: str) -> int:
        """Bytes of a file on the server; InputError when the server does not state them."""
        with _input_errors(self.address + name):
            response = self._session.head(self.address + name, allow_redirects=True, **self._options)
            response.raise_for_status()
        length = response.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise InputError(f"{self.address}{name}: the answer has no Content-Length; choose another --mirror")
        return int(length)

    def download(self, name: str, *, length: int) -> Path:
        """The path in `partial` of a file of `length` bytes, downloaded."""

        def attempt(url: str, file: str, _: pooch.Pooch) -> None:
            progress = _Progress(name, self.n_bytes, self.stop)
            progress.reset()
            responses: list[requests.Response] = []
            hooks = {"response": [refuse_downgrade, lambda response, **_: responses.append(response)]}
            try:
                pooch.HTTPDownloader(progress, CHUNK_BYTES, **(self._options | {"hooks": hooks}))(url, file, _)
            finally:
                for response in responses:  # pooch leaves the connection of a failed download open
                    response.close()
            if (n_bytes := Path(file).stat().st_size) != length:
                raise requests.RequestException(f"{n_bytes:,} bytes arrived, expected {length:,}")

        self._files.registry[name] = None  # no checksum is known
        with _input_errors(self.address + name):
            return Path(self._files.fetch(name, downloader=attempt))


@dataclass
class _Progress:
    """Counts the bytes of one file, by the interface of pooch's progress bars; raises when `stop` is set."""

    name: str
    n_bytes: dict[str, int]
    stop: Event
    total: int = 0  # set by pooch

    def update(self, n_bytes: int) -> None:
        if self.stop.is_set():
            raise Interrupted(f"{self.name}: stopped")
        self.n_bytes[self.name] = self.n_bytes.get(self.name, 0) + n_bytes

    def reset(self) -> None:
        self.update(-self.n_bytes.get(self.name, 0))

    def close(self) -> None: ...


@contextlib.contextmanager
def _input_errors(url: str) -> Iterator[None]:
    """InputError, with its reason, when `url` cannot be downloaded."""
    try:
        yield
    except requests.RequestException as error:
        cause: BaseException = error
        while inner := cause.__cause__ or cause.__context__:
            cause = inner
        reason = getattr(cause, "strerror", None) or cause
        raise InputError(f"{url}: not downloaded ({reason}); check --mirror or try again later") from error


def _fetch_table(server: _Server, path: Path, columns: tuple[str, ...]) -> None:
    arrived = server.download(path.name, length=server.length(path.name))
    try:
        read_csv(arrived, columns=columns)
    except InputError as error:
        arrived.unlink()
        found = str(error).removeprefix(f"{arrived}: ")
        raise InputError(f"{server.address}{path.name}: {found}; check --mirror") from error
    arrived.replace(path)


def _fetch_plates(server: _Server, out: Path, plates: list[str], config: FetchConfig) -> None:
    """Download and unpack the plates in parallel; raises the first failure when the others are done."""
    lengths: dict[str, int] = {}
    failures: dict[str, InputError] = {}
    for plate in track(plates, "sizes of archives", total=len(plates)):
        try:
            lengths[plate] = server.length(_archive_name(plate))
        except InputError as error:
            if isinstance(error.__cause__, requests.ConnectionError):  # no file can be downloaded
                raise
            failures[plate] = error
    _check_room(out, lengths, config)

    def fetch(plate: str) -> None:
        try:
            _fetch_plate(server, out, plate, length=lengths[plate], keep_archive=config.keep_archives)
        except InputError as error:
            tell(f"{plate}: failed; the other plates continue")
            failures[plate] = error
        except Interrupted:
            return
        except Exception:  # not of this plate alone, such as a full disk
            server.stop.set()
            raise

    with ThreadPool(config.parallel) as pool:  # its threads are daemons: a silent connection does not delay Ctrl-C
        done = pool.map_async(fetch, lengths, chunksize=1)
        try:
            total_mb = sum(lengths.values()) // 1_000_000
            for _ in track(_megabytes(server.n_bytes, until=done), "MB downloaded", total=total_mb):
                pass
            done.get()
        finally:
            server.stop.set()
            done.wait(1.0)  # for the threads to remove unfinished files; the next run removes the rest
    if failures:
        plate, first = next(iter(failures.items()))
        others = f" (failed: {', '.join(failures)})" if len(failures) > 1 else ""
        raise InputError(f"{plate}: {first}{others}") from first


def _fetch_plate(server: _Server, out: Path, plate: str, *, length: int, keep_archive: bool) -> None:
    archive, unpacked = out / _archive_name(plate), server.partial / plate
    if not (archive.is_file() and archive.stat().st_size == length):
        server.download(archive.name, length=length).replace(archive)
    try:
        unpack_images(archive, unpacked)
    except InputError:
        archive.unlink()
        raise
    if not keep_archive:
        archive.unlink()  # before the plate counts as done, so that a kill cannot leave it for ever
    unpacked.rename(out / plate)


def _megabytes(n_bytes: Mapping[str, int], *, until: AsyncResult) -> Iterator[int]:
    """One item per megabyte that has arrived."""
    shown = 0
    while not until.ready():
        until.wait(0.05)
        while shown < sum(list(n_bytes.values())) // 1_000_000:
            shown += 1
            yield shown


def _check_room(out: Path, lengths: Mapping[str, int], config: FetchConfig) -> None:
    """Report the size of the download; InputError when archives and images do not fit on the disk."""
    packed, free = sum(lengths.values()), shutil.disk_usage(out).free
    at_once = sorted(lengths.values(), reverse=True)[: None if config.keep_archives else config.parallel]
    needed = packed * UNPACKED_PER_PACKED_BYTE + sum(at_once)
    sizes = f"{len(lengths)} plates of {packed / 1e9:.2f} GB need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
    if needed > free:
        raise InputError(f"{out}: {sizes}; make room, choose fewer plates with --plates, or another folder")
    tell(sizes)


def _images(opened: zipfile.ZipFile, *, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """The images by file name; InputError when any member is unsafe."""
    images: dict[str, zipfile.ZipInfo] = {}
    for member in opened.infolist():
        if problem := problem_of(member):
            raise InputError(f'{archive}: holds "{member.orig_filename!a}", {problem}; nothing was unpacked')
        path = PurePosixPath(member.filename)
        # macOS adds files such as __MACOSX/._name.tif
        if path.suffix.lower() not in IMAGE_SUFFIXES or in_hidden(Path(path)) or member.is_dir():
            continue
        if path.name.lower() in map(str.lower, images):  # some file systems ignore case
            raise InputError(f'{archive}: holds "{path.name}" twice, expected once; nothing was unpacked')
        images[path.name] = member
    if not images:
        raise InputError(f"{archive}: holds no image ({' or '.join(IMAGE_SUFFIXES)}); nothing was unpacked")
    return images


def _archive_name(plate: str) -> str:
    return f"BBBC021_v1_images_{plate}.zip"


def _table(out: Path, name: str) -> Path:
    packed = out / f"{name}.gz"
    return packed if packed.is_file() else out / name


def _folder(out: Path, plate: str) -> Path:
    in_its_week = out / batch_of(plate, source="plates") / plate
    return in_its_week if in_its_week.is_dir() else out / plate
