"""Sources by address (`s3://`, `gs://`, `https://`), read through fsspec with a bounded local cache.

The cache has two folders. `listing` repeats the names of a source: its tables as they are, and each other file as an
empty file of the same size and time of change, which takes no space. So a reader lists a source by address as it lists
a local one. `content` holds files that were opened; those that were not used for longest are removed first.
"""

import errno
import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from filelock import FileLock

from phenolens.core.counted import counted
from phenolens.core.errors import InputError, one_line
from phenolens.core.files import read_json, sha256, write_json
from phenolens.core.progress import tell
from phenolens.screens.config import TABLES, LayoutConfig

ADDRESS = re.compile(r"^(s3|gs|https?):/+([^/]+)/?(.*)$")  # Path("s3://bucket/a") is written s3:/bucket/a
LIKE_ADDRESS = re.compile(r"^(\w{2,}:|s3/|gs/)")
# What is downloaded when a folder is listed, because readers open it: tables, indexes of instruments, zarr's metadata.
OF_READERS = tuple(".xml .mlf .htd .mrf .wpi .mes .sqlite .db .h5sc .json .zattrs .zgroup .zarray".split()) + TABLES
LISTING, CONTENT, ABOUT = "listing", "content", ".source.json"
IN_USE_S = 60  # a file that was used this recently is not removed from the cache
OF_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # errors of writing here, not of the server
GB = 10**9


def is_address(path: str | Path) -> bool:
    """Whether this is an address and not a path of this machine."""
    return ADDRESS.match(str(path)) is not None


@dataclass(frozen=True)
class _Server:
    """A bucket or web server, and where the cache has it."""

    address: str  # s3://bucket
    listing: Path
    anonymous: bool
    cache_gb: float

    @property
    def content(self) -> Path:
        """The folder of the files that were opened."""
        return self.listing.parents[2] / CONTENT / self.listing.parent.name / self.listing.name

    def named(self, path: Path) -> str:
        """The address of a path in the listing."""
        return f"{self.address}/{path.relative_to(self.listing).as_posix()}".removesuffix("/.")

    def filesystem(self) -> Any:
        """The library's filesystem; InputError where it is not installed."""
        scheme = self.address.partition(":")[0]
        of_scheme: dict[str, dict[str, Any]] = {"s3": {"anon": True}, "gs": {"token": "anon"}}
        options = of_scheme.get(scheme, {}) if self.anonymous else {}
        try:
            import fsspec

            return fsspec.filesystem(scheme, use_listings_cache=False, **options)
        except ImportError:
            install = "pip install gcsfs" if scheme == "gs" else 'pip install "phenolens[cloud]"'
            raise InputError(f"{self.address}: reading it needs more libraries; {install}") from None


def local_source(source: Path, config: LayoutConfig) -> tuple[Path, LayoutConfig]:
    """The listing of a source by address, and the config with its tables on this machine; a path stays as it is.

    Raises:
        InputError: As in `listed`.
    """
    paths = {"table": config.table, "plate_map": config.plate_map, "centres": config.centres}
    for path in map(str, filter(None, (source, *paths.values()))):
        if LIKE_ADDRESS.match(path) and not is_address(path) and not Path(path).exists():
            raise InputError(f"{path}: no such folder or file; an address begins with s3://, gs:// or https://")
    local = {name: listed(str(path), config) for name, path in paths.items() if path is not None and is_address(path)}
    source = listed(str(source), config) if is_address(source) else Path(source)
    return source, replace(config, **local)  # type: ignore[arg-type]


def listed(address: str, config: LayoutConfig, *, of_images: bool = False) -> Path:
    """The listing of everything below an address, as a local folder (or file); tables are downloaded.

    Args:
        address: A folder, or a file.
        config: `anonymous`, `cache` and `cache_gb` say how.
        of_images: A folder that a table names: tables in it are not downloaded, and it may be missing.

    Raises:
        InputError: There is nothing, access is denied, the server does not answer, the library is not installed, or
            the cache cannot be written.
    """
    match = ADDRESS.match(address)
    if match is None or ".." in match[3].split("/"):
        raise InputError(f"{address}: expected an address such as s3://bucket/folder")
    scheme, host, key = match[1], match[2], match[3].strip("/")
    is_web = scheme.startswith("http")
    key = _plain(key) if is_web else key
    cache = config.cache or Path.home() / ".cache" / "phenolens"
    listing = cache.resolve() / LISTING / scheme / host
    server = _Server(f"{scheme}://{host}", listing, config.anonymous, config.cache_gb)
    address = f"{server.address}/{key}"
    filesystem = server.filesystem()
    with _reported(address):
        if is_web:
            root = f"{server.address}/"
            infos = _linked(filesystem, root + key + ("" if Path(key).suffix else "/"))
        else:
            root = f"{host}/"
            infos = filesystem.find(root + key, detail=True)
    found = {name.removeprefix(root): info for name, info in infos.items() if not name.endswith("/")}
    if not found and not of_images:
        raise InputError(f"{address}: there is nothing; correct the address, as s3://bucket/folder")
    about = {"address": server.address, "anonymous": server.anonymous, "cache_gb": server.cache_gb}
    try:
        listing.mkdir(parents=True, exist_ok=True)
        with FileLock(listing.with_name(f"{host}.lock")):  # other commands may share the cache
            write_json(listing / ABOUT, about)
            _server_of.cache_clear()
            _place(server, found, filesystem, key=key, tables=not of_images)
    except OSError as error:
        raise InputError(f"--cache {cache}: cannot be written ({one_line(error)}); name another folder") from error
    _used.add(server)
    return listing / key


def _linked(filesystem: Any, address: str) -> dict[str, Mapping[str, Any]]:
    """The files below a page, or the file itself; the library's own search passes over pages that fail."""
    found: dict[str, Mapping[str, Any]] = {}
    folders = [address]
    while folders:
        folder = folders.pop()
        try:
            infos = filesystem.ls(folder, detail=True)
        except FileNotFoundError:
            if folder == address:
                return {}
            raise
        names = {_plain(info["name"]): info for info in infos if "?" not in info["name"]}  # ?: the same page, sorted
        below = {name: info for name, info in names.items() if name.startswith(_plain(folder))}  # not its parent
        folders += [info["name"] for info in below.values() if info["type"] == "directory" and info["name"] != folder]
        found |= {name: info for name, info in below.items() if info["type"] != "directory"}
    return found or ({} if address.endswith("/") else {address: {}})


def _plain(link: str) -> str:
    """A link as a name, with blanks for %20; not where a sign would mean something else in an address."""
    return link if re.search("%(23|25|2F|3F)", link, flags=re.IGNORECASE) else unquote(link)


def _place(server: _Server, found: Mapping[str, Mapping[str, Any]], filesystem: Any, *, key: str, tables: bool) -> None:
    """Bring the listing below `key` to what was found; content that changed is removed."""
    before = server.listing / key
    for path in before.rglob("*") if before.is_dir() else ():
        within = path.relative_to(server.listing)
        if path.is_file() and within.as_posix() not in found and path.name != ABOUT:
            path.unlink()
            (server.content / within).unlink(missing_ok=True)
    due: list[tuple[Path, int]] = []
    for name, info in found.items():
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"{server.address}/{name}: a name that begins with / or has .. cannot be read; rename it")
        path, is_table = server.listing / name, name.lower().endswith(OF_READERS)
        size, changed_ns = int(info.get("size") or 1), _changed_ns(info)
        state = (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
        if state == (size, changed_ns) or (state and is_table and not tables):
            continue
        (server.content / name).unlink(missing_ok=True)
        if is_table and tables:
            due.append((path, changed_ns))
            continue
        changed_ns += is_table  # so that it is due as soon as it is read as a table
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size if info.get("size") is None else int(info["size"]))
        os.utime(path, ns=(changed_ns, changed_ns))
    if due:
        tell(f"{server.address}/{key}: downloading {counted(len(due), 'table')} of {counted(len(found), 'file')}")
        _download(server, [(path, path) for path, _ in due], filesystem)
    for path, changed_ns in due:
        os.utime(path, ns=(changed_ns, changed_ns))


def _changed_ns(info: Mapping[str, Any]) -> int:
    """The time of change, with the part of a second made from the content's tag; 0 where the server says none."""
    changed, tag = info.get("LastModified") or info.get("mtime"), info.get("ETag") or info.get("etag") or ""
    if not isinstance(changed, datetime):
        return 0
    return (int(changed.timestamp()) - 1) * 10**9 + zlib.crc32(str(tag).encode()) % 10**9


@lru_cache(maxsize=4096)
def _server_of(folder: Path) -> _Server | None:
    if LISTING not in folder.parts:
        return None
    for parent in (folder, *folder.parents):
        if (parent / ABOUT).is_file():
            return _Server(listing=parent, **read_json(parent / ABOUT, remedy="delete the cache"))
    return None


def is_remote(path: Path) -> bool:
    """Whether a path lies in the listing of a source by address."""
    return _server_of(Path(os.path.normpath(path)).parent) is not None


def shown(path: Path) -> str:
    """A path for messages and commands: the address of what lies in a listing."""
    plain = Path(os.path.normpath(path))
    server = _server_of(plain)
    return str(path) if server is None else server.named(plain)


def state_of(path: Path) -> str:
    """Size and tag of a file in a listing, the same when it is written again; of a folder, of all its files."""
    state = path.stat()
    if not path.is_dir():
        return f"{state.st_size} {state.st_mtime_ns % 10**9}"  # as in `_changed_ns`
    return sha256(
        *(f"{file.relative_to(path)} {state_of(file)} " for file in sorted(path.rglob("*")) if file.is_file())
    )


_used: set[_Server] = set()  # those that this process listed


@contextmanager
def errors_by_address() -> Iterator[None]:
    """While it is open, an InputError names the address of a file, not where the cache has it.

    A damaged image is found when it is downloaded, where its field can no longer be left out.
    """
    try:
        yield
    except InputError as error:
        text = str(error)
        for server in _used:
            if str(server.content) in text:
                text = text.replace("run with --skip-missing", "leave its plate out with --plates")
            for folder in (server.content, server.listing):
                text = text.replace(str(folder), server.address)
        error.args = (text,)
        raise


def local_copies(paths: Iterable[Path], *, named: str) -> list[Path]:
    """The paths; of those in a listing the downloaded files, several at once. A folder stands for all its files.

    Raises:
        InputError: A file is not there any more, access is denied, or the server does not answer; the message begins
            with `named`.
    """
    copies: list[Path] = []
    due: dict[_Server, list[tuple[Path, Path]]] = {}
    for given in map(Path, paths):
        path = Path(os.path.normpath(given))
        server = _server_of(path.parent)
        if server is None:
            copies.append(given)
            continue
        copy = server.content / path.relative_to(server.listing)
        copies.append(copy)
        files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
        for file in files:
            target = server.content / file.relative_to(server.listing)
            try:
                os.utime(target)  # it was used now
            except FileNotFoundError:
                due.setdefault(server, []).append((file, target))
    for server, pairs in due.items():
        try:
            _download(server, pairs, server.filesystem())
        except InputError as error:
            raise InputError(f"{named}: {error}") from error
        _bound(server, sum(target.stat().st_size for _, target in pairs if target.is_file()))
    return copies


def local_copy(path: Path, *, named: str) -> Path:
    """As `local_copies`, of one path."""
    return local_copies([path], named=named)[0]


def _download(server: _Server, pairs: list[tuple[Path, Path]], filesystem: Any) -> None:
    """Download files of the listing, each whole or not at all."""
    partial = [target.with_name(f".{target.name}.{uuid4().hex[:8]}.partial") for _, target in pairs]
    addresses = [server.named(file) for file, _ in pairs]
    for target in partial:
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _reported(
            addresses[0] if len(addresses) == 1 else f"{addresses[0]} to {addresses[-1].rpartition('/')[2]}"
        ):
            try:
                filesystem.get(addresses, [str(path) for path in partial])
            except FileNotFoundError:
                for address in addresses:
                    with _reported(address):  # which of them it is
                        filesystem.info(address)
                raise
        for (file, target), path, address in zip(pairs, partial, addresses, strict=True):
            expected = file.stat().st_size if file != target and file.is_file() else None
            if expected not in (None, 1, path.stat().st_size):
                raise InputError(f"{address}: {path.stat().st_size:,} bytes came of {expected:,}; run it again")
            path.replace(target)
    finally:
        for path in partial:
            path.unlink(missing_ok=True)


_since_bound: dict[Path, int] = {}  # bytes downloaded by this process since the cache's size was last counted


def _bound(server: _Server, n_bytes: int) -> None:
    """Remove the files that were not used for longest while the cache is larger than its bound."""
    most, folder = server.cache_gb * GB, server.listing.parents[2] / CONTENT
    _since_bound[folder] = _since_bound.get(folder, int(most)) + n_bytes
    if _since_bound[folder] < most / 20:
        return
    _since_bound[folder] = 0
    files = []
    for path in folder.rglob("*"):
        try:
            state = path.stat()
        except FileNotFoundError:  # another process removes too
            continue
        if path.is_file():
            files.append((state.st_mtime, state.st_size, path))
    total = sum(size for _, size, _ in files)
    for used, size, path in sorted(files):
        if total <= most or used > time.time() - IN_USE_S:
            break
        path.unlink(missing_ok=True)
        total -= size


@contextmanager
def _reported(address: str) -> Iterator[None]:
    """InputError, in one line, for what the library of a server raises."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{address}: is not there ({_line(error)}); correct the address, or add the file") from error
    except Exception as error:  # each library has its own kinds
        kind = type(error).__name__
        reason = f"{kind}: {_line(error)}"
        if isinstance(error, OSError) and error.errno in OF_DISK:
            raise InputError(
                f"{address}: cannot be kept in the cache ({error.strerror}); make room, or name another with --cache"
            ) from error
        if isinstance(error, PermissionError) or re.search("Credential|Profile|Token", kind):
            raise InputError(
                f"{address}: access is denied ({reason}); give --anonymous for a public source, or credentials "
                "(such as AWS_PROFILE)"
            ) from error
        raise InputError(f"{address}: cannot be read ({reason}); run it again when the server answers") from error


def _line(error: Exception) -> str:
    return one_line(error)[:200]
