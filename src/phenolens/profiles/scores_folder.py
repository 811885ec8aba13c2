"""The folder of a table's scores: held by one process, put in place whole, never in place of somebody's own files.

Beside `out` lie, while it is written: `.out.lock` (held), `.out.partial` (the new), `.out.old`, `.out.gone` (older).
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from phenolens.core.errors import InputError, Interrupted
from phenolens.core.files import alone, read_json

FORMAT = "phenolens scores 1"
ABOUT = "about.json"
OF_THE_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini")  # what a file browser leaves in a folder that was looked at


@contextmanager
def score_folder(out: Path, *, source: Path) -> Iterator[Path]:
    """Hold `out` for one evaluation of the table `source`: its real path, checked and put right before any computing.

    InputError where it may not be replaced, cannot be written, or is another process's. What a killed process left
    half-way is put right first; folders that were made for it go again when nothing was kept in them. Interrupted
    where it was stopped with the new scores in place already.
    """
    folder = _place(out, source)
    lock = beside(folder, "lock")
    began_with: int | None = None
    try:
        with ExitStack() as held:
            held.callback(_remove_empty, [parent for parent in folder.parents if not parent.exists()])
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone(lock, doing=f"scoring into {folder.name}"))
                held.callback(lock.unlink, missing_ok=True)
                settle(folder)
            except OSError as error:
                raise InputError(f"--out {out}: cannot be written ({error.strerror}); name another folder") from error
            held.callback(settle, folder)
            check_folder(folder)
            began_with = _inode(folder)
            yield folder
    except KeyboardInterrupt:
        if began_with is None or _inode(folder) == began_with:
            raise
        raise Interrupted(f"stopped; the new scores are in {folder} already") from None


def check_folder(out: Path) -> None:
    """InputError unless scores can be kept in `out`: a new or empty folder, or one with nothing but older scores."""
    if not out.exists():
        return
    there = sorted(path.name for path in out.iterdir() if path.name not in OF_THE_SYSTEM) if out.is_dir() else [""]
    if not there:
        return
    ours = _files_of(out)
    if not ours:
        raise InputError(f"--out {out}: is there and holds no scores of phenolens; name a new or empty folder")
    others = [name for name in there if name not in ours or not (out / name).is_file()]
    if others:
        more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
        raise InputError(
            f'--out {out}: holds "{others[0]}"{more} beside older scores, which `phenolens evaluate` did not write and '
            "would delete; move it elsewhere, or name another folder"
        )
    if not os.access(out, os.W_OK):
        raise InputError(f"--out {out}: its older scores cannot be replaced (Permission denied); name another folder")


def settle(out: Path) -> None:
    """Put right what a killed process left beside `out`: older scores come back unless newer ones are in place."""
    old, gone = beside(out, "old"), beside(out, "gone")
    for leftover in (gone, beside(out, "partial")):
        shutil.rmtree(leftover, ignore_errors=True)
    if not old.exists():
        return
    if _files_of(out):
        old.rename(gone)  # under its own name it is whole at any moment
        shutil.rmtree(gone, ignore_errors=True)
    elif not out.exists() or not any(out.iterdir()):
        old.replace(out)


def put_in_place(out: Path) -> None:
    """Let `.out.partial` take the name `out`; older scores are moved aside before and removed after.

    InputError where somebody's own files have come into `out` meanwhile.
    """
    check_folder(out)
    if out.exists():
        out.rename(beside(out, "old"))
    beside(out, "partial").rename(out)
    settle(out)


def beside(out: Path, what: str) -> Path:
    """Where `what` of the folder lies: hidden, beside it, on the same disk."""
    return out.with_name(f".{out.name}.{what}")


def _place(out: Path, source: Path) -> Path:
    """The real path of `out`; InputError where a folder cannot or should not be put in place of it."""
    try:
        folder = out.resolve()
    except (OSError, RuntimeError) as error:
        raise InputError(f"--out {out}: leads nowhere ({error}); name another folder") from error
    if Path.cwd().is_relative_to(folder):
        raise InputError(
            f"--out {out}: is or holds the folder you are in, and scores are put in place as a whole folder; name a "
            "new one, such as --out scores"
        )
    if source.resolve().is_relative_to(folder):
        raise InputError(f"--out {out}: holds the table itself, which would be replaced; name another folder")
    if os.path.ismount(folder):
        raise InputError(f"--out {out}: a disk is mounted there, which cannot be replaced; name a folder in it")
    return folder


def _inode(out: Path) -> int:
    """Which folder stands under the name; -1 for none."""
    return out.stat().st_ino if out.exists() else -1


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove these folders, innermost first, as far as they are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _files_of(out: Path) -> frozenset[str]:
    """The files that an evaluation wrote into `out`, as its about.json lists them; none where it is not ours."""
    try:
        content = read_json(out / ABOUT, mend="")
    except (InputError, OSError):
        return frozenset()
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return frozenset()
    files = content.get("files")
    return frozenset(map(str, files)) if isinstance(files, list) else frozenset([ABOUT])
