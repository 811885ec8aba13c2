"""Unpack the archive of a plate's images: all of them, each as it was packed, or nothing.

An archive from elsewhere is not trusted: one path in it that leaves the folder and nothing of it is unpacked.
"""

import errno
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from threading import Event

from phenolens.errors import InputError, Interrupted
from phenolens.files import write_json
from phenolens.screen.image_files import IMAGE_SUFFIXES

CHUNK_BYTES = 1024 * 1024
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
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith(".") or member.is_dir():
            continue
        if path.name.lower() in lower_case:
            raise InputError(f'{archive}: holds "{path.name}" twice, expected one; nothing of it was unpacked')
        images[path.name] = member
        lower_case.add(path.name.lower())
    if not images:
        raise InputError(f"{archive}: holds no image ({' or '.join(IMAGE_SUFFIXES)}); nothing of it was unpacked")
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
        while chunk := source.read(CHUNK_BYTES):
            if stop.is_set():
                raise Interrupted(f"{opened.filename}: stopped")
            file.write(chunk)
        if path:
            file.flush()
            os.fsync(file.fileno())
