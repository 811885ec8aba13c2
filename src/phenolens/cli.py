"""The command line: parse, open, call, say what comes next. One verb a step."""

import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from types import FrameType

from phenolens import __version__
from phenolens.core.errors import InputError, Interrupted, RunError

VERBS = {
    "demo": "simulate a small screen and take it from images to a report, in about five minutes",
    "run": "all steps from a source folder to a report",
    "simulate": "write a simulated screen, as a BBBC021 download lies on disk, with its true answers",
    "fetch": "download BBBC021 from its official server: tables, labels and the plates you name",
    "check": "say what a source holds, how good its fields are, what is missing and which command comes next",
    "crop": "cut single-cell crops from fields of view, or take over a crop set",
    "train": "train a model on the crops",
    "embed": "embed every crop with the trained models",
    "profile": "make profiles of wells and treatments from the embeddings",
    "evaluate": "score how well treatments match by mechanism (NSC, NSCB)",
    "compare": "which treatments two scores of the same treatments answer differently, and whether that could be luck",
    "figure": "draw one of the paper's figures: reconstructions, interpolation, comparison, assessment (PNG, SVG, PDF)",
    "features": "say what each latent feature of a run is used for and goes with, with pictures (a page a run)",
    "realism": "measure how real the models' pictures look, beside real and blurred cells",
    "travel": "take a real cell to a treatment: decoded, measured and held against real cells (strips, films, CSV)",
    "report": "write the report with its pictures",
    "export": "write a study's crops as a file that scPortrait reads (.h5sc)",
    "explore": "look at a study in the browser, on this machine",
    "assess": "let people judge blindly whether cells are real or redrawn, and say how often redrawn ones pass",
}


SHARED = ("train", "embed")  # what several processes can do together


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 when it is done, 2 for bad input, 1 when it cannot go on (loss), 130 when stopped."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0
    if given[0] == "--version":
        print(f"phenolens {__version__}")
        return 0
    with sigterm_as_ctrl_c():
        try:
            status, said = outcome(given[0], given[1:])
        except KeyboardInterrupt:
            status, said = 130, "stopped; the same command goes on where it stood"
    if said:
        number = os.environ.get("RANK", "0")  # of several processes that torchrun started, any may fail
        whose = "" if number == "0" else f"process {number}: "
        print(f"phenolens {given[0]}: {whose}{said}", file=sys.stderr, flush=True)
    return status


def outcome(verb: str, arguments: list[str]) -> tuple[int, str]:
    """Run one verb; its exit code, and what is to be said when it did not come to its end."""
    try:
        return run_verb(verb, arguments), ""
    except InputError as error:
        return 2, str(error)
    except Interrupted as error:
        return 130, str(error)
    except RunError as error:
        return 1, str(error)
    except OSError as error:
        return 2, _what_the_system_said(error)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """While it is open, SIGTERM stops as Ctrl-C does: nothing stays half-written, and one line is said."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: signals are somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def overview() -> str:
    """What `phenolens --help` says."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "phenolens: see what a treatment does to a cell",
            "",
            "usage: phenolens VERB ...    (phenolens VERB --help lists its flags)",
            "",
            *lines,
            "",
            "A study's folder is the first argument of each step. Begin with: phenolens demo OUT",
        ]
    )


def _what_the_system_said(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{where}the disk is full; what was whole is kept, nothing is half-written; make room and run it again"
    return f"{where}{error.strerror or error}"


def run_verb(verb: str, arguments: list[str]) -> int:
    """Parse the verb's flags, with the study's `study.toml` and `--config FILE` as their defaults, and do it."""
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"expected one of {', '.join(VERBS)}"
        raise InputError(f'no verb "{verb}"; {hint}')
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and verb not in SHARED:
        raise InputError(f"works in one process; of all verbs, {' and '.join(SHARED)} can be started by torchrun")
    import tyro

    from phenolens.settings import with_file_settings

    module = import_module(f"phenolens.verbs.{verb}")
    flags = tyro.cli(
        module.Flags,
        prog=f"phenolens {verb}",
        description=VERBS[verb],
        args=with_file_settings(verb, arguments, module.Flags),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    module.act(flags)
    return 0


if __name__ == "__main__":
    status = main()
    if "RANK" in os.environ:
        # started by torchrun: threads of gloo that are still there abort a process that ends the usual way now and then
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
