"""Download BBBC021 as `read_bbbc021` reads it: the tables, and a folder of images a plate.

Caie et al. 2010 made the images; the Broad Bioimage Benchmark Collection (Ljosa et al. 2012) has them. It publishes no
checksums, so lengths are held against the server's and members of archives against their CRC-32.

What has arrived waits as `.<name>.partial`, and beside it which state of the server's file it is the beginning of.
After a cut connection or a kill a range request asks for the rest (RFC 9110, sections 13 and 14); a file that has
changed on the server since is begun anew. The file takes its name when all of it is there.

An archive from elsewhere is not trusted: one path in it that leaves the folder and nothing of it is unpacked.
"""

import contextlib
import errno
import http.client
import os
import re
import shutil
import ssl
import stat
import struct
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue
from threading import Event
from typing import IO, TypeVar
from urllib.parse import urlsplit

from phenolens import __version__
from phenolens.core.errors import InputError, Interrupted, RunError, at_least, at_most
from phenolens.core.files import alone, read_json, write_json
from phenolens.core.progress import tell, track
from phenolens.screens.bbbc021 import FILE_COLUMNS, IMAGE_COLUMNS, IMAGE_TABLE, LABEL_COLUMNS, LABEL_TABLE, batch_of
from phenolens.screens.csv_table import read_csv
from phenolens.screens.image_files import TIFF_SUFFIXES

Result = TypeVar("Result")

CHUNK_BYTES = 256 * 1024
LONGEST_WAIT_S = 120.0
WAIT_AND_TRY_AGAIN = (408, 425, 429)  # and every 5xx
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Patience:
    """How long a server is borne with."""

    tries: int = 7  # of one file without a single new byte, before it is given up
    first_wait_s: float = 1.0  # before the second try; each wait is twice the one before
    timeout_s: float = 30.0  # of a connection that is silent


@dataclass(frozen=True)
class Version:
    """One state of a file on a server."""

    length: int  # bytes
    mark: str  # its strong ETag, or else its Last-Modified; empty when the server gives neither


class _Cut(Exception):
    """This try came to nothing, another may; `wait_s` is the wait that the server asks for."""

    def __init__(self, what: str, *, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _NoSuchRange(_Cut):
    """The server's file is shorter than what has arrived."""


class _OnlyWeb(urllib.request.HTTPRedirectHandler):
    """Follows a redirection to another address of the web, but never from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise InputError(f"{req.full_url}: leads to {newurl}, expected {' or '.join(allowed)}; see --mirror")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def look(url: str, *, patience: Patience, stop: Event) -> Version:
    """Length and state of a file on the server, from a HEAD request.

    Raises InputError when the server does not have it or does not say its length, RunError when it cannot be asked.
    """

    def attempt() -> Version:
        with _open(url, method="HEAD", timeout_s=patience.timeout_s) as response:
            return _version(response, url)

    return _patiently(attempt, lambda: 0, url=url, patience=patience, stop=stop)


def download(
    url: str,
    path: Path,
    *,
    patience: Patience,
    stop: Event,
    arrived: Callable[[int], None] = lambda _: None,
    check: Callable[[Path], None] = lambda _: None,
) -> None:
    """Download `url` to `path`, going on from what arrived in an earlier try of this or another process.

    `arrived` is told the bytes that are on disk, as they grow. `check` gets the whole file before it takes its name;
    what it raises is passed on and the file is thrown away. Raises InputError when the server does not have the file or
    does not say its length, RunError when `patience` is at its end, Interrupted when `stop` is set; the last two keep
    what has arrived.
    """
    partial = _Partial(path)

    def attempt() -> None:
        _receive(url, partial, timeout_s=patience.timeout_s, stop=stop, arrived=arrived)

    _patiently(attempt, partial.size, url=url, patience=patience, stop=stop)
    try:
        check(partial.path)
    except BaseException:
        partial.forget()
        raise
    partial.path.replace(path)
    partial.forget()


def partial_bytes(path: Path) -> int:
    """How much of `path` has arrived in tries that did not come to their end."""
    return _Partial(path).size()


def sweep(path: Path) -> None:
    """Take away what a kill left beside a `path` that had just taken its name."""
    if path.exists():
        _Partial(path).forget()


class _Partial:
    """What has arrived of a file, and which state of the server's file it is the beginning of."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f".{path.name}.partial")
        self._version = path.with_name(f".{path.name}.partial.json")

    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, url: str) -> Version | None:
        """What the bytes are the beginning of; None when there are none or they cannot be gone on from."""
        if not self.size():
            return None
        try:
            kept = read_json(self._version, mend="")
            version = Version(int(kept["length"]), str(kept["mark"]))
            fits = kept["url"] == url and version.mark and self.size() <= version.length
        except (InputError, KeyError, TypeError, ValueError):
            return None
        return version if fits else None

    def begin(self, url: str, version: Version) -> None:
        """Forget what has arrived and say what will."""
        self.forget()  # first, so that old bytes never stand beside a new version
        write_json(self._version, {"url": url, **asdict(version)})

    def forget(self) -> None:
        """Leave nothing."""
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


def _receive(url: str, partial: _Partial, *, timeout_s: float, stop: Event, arrived: Callable[[int], None]) -> None:
    """One try: ask for what is missing and write it down."""
    begun = partial.version(url)
    n_bytes = partial.size() if begun else 0
    if begun and n_bytes == begun.length:
        return
    # If-Range: the rest when the file is still the same, else all of it. RFC 9110, 13.1.5
    ask = {"Range": f"bytes={n_bytes}-", "If-Range": begun.mark} if begun else {}
    try:
        response = _open(url, method="GET", headers=ask, timeout_s=timeout_s)
    except _NoSuchRange:
        partial.forget()
        raise
    with response:
        version = _version(response, url)
        if response.status == 206 and (begun is None or version != begun or _first_byte(response) != n_bytes):
            partial.forget()
            raise _Cut("the file on the server is another now; begun anew")
        if response.status == 200:
            partial.begin(url, version)
            n_bytes = 0
        with partial.path.open("ab") as file:
            while n_bytes < version.length:
                chunk = _chunk(response)
                if stop.is_set():  # asked between reading and writing: a stopped download writes nothing more
                    raise Interrupted(f"{url}: stopped")
                if not chunk:
                    raise _Cut(f"the connection was cut after {n_bytes:,} of {version.length:,} bytes")
                file.write(chunk[: version.length - n_bytes])
                n_bytes = min(n_bytes + len(chunk), version.length)
                arrived(n_bytes)
            file.flush()
            os.fsync(file.fileno())


def _patiently(
    attempt: Callable[[], Result], n_arrived: Callable[[], int], *, url: str, patience: Patience, stop: Event
) -> Result:
    """Try until it is done or was tried often enough without anything new; waits grow."""
    tries, furthest = 0, n_arrived()
    while True:
        try:
            return attempt()
        except _Cut as cut:
            tries = 1 if n_arrived() > furthest else tries + 1
            furthest = max(furthest, n_arrived())
            if tries >= patience.tries:
                kept = f"; {furthest:,} bytes are kept" if n_arrived() else ""
                raise RunError(
                    f"{url}: {cut}, {tries} times in a row without a new byte{kept}; the same command goes on later"
                ) from cut
            wait_s = min(max(cut.wait_s, patience.first_wait_s * 2 ** (tries - 1)), LONGEST_WAIT_S)
            tell(f"{url.rsplit('/', 1)[-1]}: {cut}; tried again in {wait_s:g} s")
        if stop.wait(wait_s):
            raise Interrupted(f"{url}: stopped")


def _open(
    url: str, *, method: str, timeout_s: float, headers: Mapping[str, str] | None = None
) -> http.client.HTTPResponse:
    # identity: a compressed transfer could be neither gone on from nor measured
    ours = {"User-Agent": f"phenolens/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
    request = urllib.request.Request(url, method=method, headers=ours)
    try:
        return urllib.request.build_opener(_OnlyWeb).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise _refused(error, url) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InputError(f"{url}: the server's certificate is not trusted ({reason.verify_message})") from error
        raise _Cut(f"the server cannot be reached ({_in_words(reason)})") from error


def _refused(error: urllib.error.HTTPError, url: str) -> Exception:
    answer = f"{error.code} {http.client.responses.get(error.code, '')}".strip()  # not in the server's own words
    if error.code == 416:
        return _NoSuchRange("the file on the server is shorter than what has arrived; begun anew")
    if error.code in WAIT_AND_TRY_AGAIN or error.code >= 500:
        wait = error.headers.get("Retry-After", "")
        return _Cut(f"the server answers {answer}", wait_s=float(wait) if wait.isdecimal() else 0.0)
    if error.code in (404, 410):
        return InputError(f"{url}: the server has no such file ({error.code}); look at the address, or see --mirror")
    return InputError(f"{url}: the server answers {answer}, expected the file; see --mirror")


def _version(response: http.client.HTTPResponse, url: str) -> Version:
    """The state of the whole file that an answer speaks of."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InputError(f"{url}: sent compressed though that was not asked for; choose another --mirror")
    whole = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    length = whole[3] if response.status == 206 and whole else response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise InputError(f"{url}: the server does not say how long the file is; choose another --mirror")
    etag = response.headers.get("ETag", "")
    strong = "" if etag.startswith("W/") else etag  # a weak one says nothing about bytes
    return Version(int(length), strong or response.headers.get("Last-Modified", ""))


def _first_byte(response: http.client.HTTPResponse) -> int:
    part = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(part[1]) if part else -1


def _chunk(response: http.client.HTTPResponse) -> bytes:
    """What has come since, empty at the end, however the connection ended."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return response.read1(CHUNK_BYTES)
    return b""


def _in_words(reason: object) -> str:
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


UNPACK_BYTES = 1024 * 1024
ENCRYPTED = 0x1  # of a member's flag bits
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MARKER = ".fetched.json"
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError)


def unpack_images(archive: Path, folder: Path, *, stop: Event, marker: Mapping[str, object]) -> int:
    """Write each image of a zip archive into the new `folder`, whatever folders the archive has; their number.

    Every member is read to its end against its CRC-32; `folder` takes its name when all are written, with `marker` in
    it as MARKER. Until then it is `.<name>.partial`, removed on an error. Raises InputError for an archive that is
    damaged, unsafe or without an image, OSError when the disk has no room for it, Interrupted when `stop` is set.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            images = _images(opened.infolist(), archive=archive)
            _check_room(sum(image.file_size for image in images.values()), partial.parent)
            partial.mkdir(parents=True)
            names = {image.orig_filename: name for name, image in images.items()}
            for member in opened.infolist():
                if not member.is_dir():
                    name = names.get(member.orig_filename)
                    _read(opened, member, partial / name if name else None, stop=stop)
        write_json(partial / MARKER, {**marker, "archive": archive.name, "n_images": len(images)})
        partial.rename(folder)
    except DAMAGED as error:
        raise InputError(f"{archive}: damaged ({error}); not unpacked") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(images)


def _images(members: list[zipfile.ZipInfo], *, archive: Path) -> dict[str, zipfile.ZipInfo]:
    """The images by file name; InputError when any member, image or not, is not to be trusted."""
    images: dict[str, zipfile.ZipInfo] = {}
    lower_case: set[str] = set()  # some disks hold A.tif and a.tif for one
    for member in members:
        wrong = what_is_wrong(member)
        if wrong:
            raise InputError(f'{archive}: holds "{member.orig_filename!a}", {wrong}; nothing of it was unpacked')
        path = PurePosixPath(member.orig_filename)
        # what macOS adds (__MACOSX/._name.tif) is no image
        if path.suffix.lower() not in TIFF_SUFFIXES or path.name.startswith(".") or member.is_dir():
            continue
        if path.name.lower() in lower_case:
            raise InputError(f'{archive}: holds "{path.name}" twice, expected one; nothing of it was unpacked')
        images[path.name] = member
        lower_case.add(path.name.lower())
    if not images:
        raise InputError(f"{archive}: holds no image ({' or '.join(TIFF_SUFFIXES)}); nothing of it was unpacked")
    return images


def what_is_wrong(member: zipfile.ZipInfo) -> str:
    """Why a member is not to be unpacked, in words; empty when it may."""
    name = member.orig_filename  # as it stands in the archive; `filename` has been mended already
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.startswith("/") or ".." in name.split("/"):
        return "which leads out of the folder"
    if any(character in name for character in "\\:") or not name.isprintable() or not name:
        return "which is no path of folders and a file"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device, expected a file"
    if member.flag_bits & ENCRYPTED or member.compress_type not in READABLE:
        return "encrypted or packed in another way than deflate"
    return ""


def _check_room(n_bytes: int, folder: Path) -> None:
    """A full disk, before it is full: the archive says what it unpacks to, and zipfile reads no more than that."""
    if n_bytes > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _read(opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path | None, *, stop: Event) -> None:
    """Read a member to its end, where zipfile compares its CRC, and write it down where it has a path."""
    with opened.open(member) as source, Path(path or os.devnull).open("wb") as file:
        while chunk := source.read(UNPACK_BYTES):
            if stop.is_set():
                raise Interrupted(f"{opened.filename}: stopped")
            file.write(chunk)
        if path:
            file.flush()
            os.fsync(file.fileno())


BETWEEN_LOOKS_S = 0.05
STOPPING_S = 1.0  # for all downloads to notice that they are stopped; they write nothing from then on


def side_by_side(
    fetch: Callable[[str], None],
    plates: Iterable[str],
    *,
    n: int,
    stop: threading.Event,
    n_bytes: Mapping[str, int],
    total_mb: int,
) -> dict[str, Exception]:
    """Fetch the plates in `n` threads, telling how many of `total_mb` are in `n_bytes`; what was raised, by plate.

    `stop` is set when it ends, however it ends. What is no plate's own failure (a full disk) stops all and is raised.
    """
    waiting: SimpleQueue[str] = SimpleQueue()
    for plate in plates:
        waiting.put(plate)
    failures: dict[str, Exception] = {}
    fatal: list[BaseException] = []

    def work() -> None:
        while not stop.is_set():
            try:
                plate = waiting.get_nowait()
                fetch(plate)
            except (Empty, Interrupted):
                return
            except (InputError, RunError) as error:
                failures[plate] = error
                tell(f"{plate}: failed; the others go on")
            except BaseException as error:
                fatal.append(error)
                stop.set()

    # daemons, so that a silent connection does not hold up Ctrl-C: what is on disk can be gone on from at any moment
    threads = [threading.Thread(target=work, daemon=True) for _ in range(n)]
    try:
        for thread in threads:
            thread.start()
        for _ in track(_arriving(threads, n_bytes), "MB downloaded", total=total_mb, done=_megabytes(n_bytes)):
            pass
    finally:
        stop.set()
        last_moment = time.monotonic() + STOPPING_S
        for thread in threads:
            thread.join(max(0.0, last_moment - time.monotonic()))
    if fatal:
        raise fatal[0]
    return failures


def _arriving(threads: list[threading.Thread], n_bytes: Mapping[str, int]) -> Iterator[int]:
    """An item for each megabyte, as long as a thread is at work."""
    told = _megabytes(n_bytes)
    while any(thread.is_alive() for thread in threads):
        time.sleep(BETWEEN_LOOKS_S)
        while told < _megabytes(n_bytes):
            told += 1
            yield told


def _megabytes(n_bytes: Mapping[str, int]) -> int:
    return sum(list(n_bytes.values())) // 1_000_000


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
    _fetch_check_room(out, versions, on_disk, config)

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


def _fetch_check_room(
    out: Path, versions: Mapping[str, Version], on_disk: Mapping[str, int], config: FetchConfig
) -> None:
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
