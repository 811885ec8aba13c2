"""The command line: parse the flags of a command, call its function, print what comes next."""

import errno
import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from types import FrameType
from typing import Any

from phenolens import __version__
from phenolens.core.errors import InputError, Interrupted, RunError


@dataclass(frozen=True)
class Verb:
    """A command: its line in `phenolens --help`, and where its function is."""

    summary: str
    module: str  # of phenolens.commands
    usage: str = "STUDY"  # what comes before the flags
    tables: tuple[str, ...] | None = None  # of study.toml, that are read; default: the command's own
    required: tuple[str, ...] = ()  # flags that the function can do without
    distributed: bool = False  # whether several processes can share the work

    def function(self, name: str) -> Callable[..., Any]:
        """The function that does it."""
        return getattr(import_module(f"phenolens.commands.{self.module}"), name)


STEPS = ("crop", "train", "profile", "evaluate", "run")
VERBS = {
    "demo": Verb("simulate a small screen and analyse it, in about five minutes", "model_commands", "OUT", ()),
    "run": Verb("all steps from a source folder to a report", "model_commands", tables=STEPS),
    "simulate": Verb("write a simulated screen as a BBBC021 download, with its true answers", "image_commands", "OUT"),
    "fetch": Verb("download BBBC021: tables, labels and the plates you name", "image_commands", "bbbc021 OUT", ()),
    "check": Verb("report content, quality and missing files of a source", "image_commands", "SOURCE"),
    "crop": Verb("cut single-cell crops from fields of view, or take over a crop set", "image_commands"),
    "train": Verb("train a model on the crops", "model_commands", distributed=True),
    "embed": Verb("embed every crop with the trained models", "score_commands", distributed=True),
    "profile": Verb("make profiles of wells and treatments from the embeddings", "score_commands"),
    "evaluate": Verb("score how well treatments match by mechanism (NSC, NSCB)", "score_commands", "SOURCE"),
    "compare": Verb("test which treatments two scores answer differently", "score_commands", "A B", ()),
    "figure": Verb(
        "draw a figure of the paper: reconstructions, interpolation, comparison, assessment",
        "model_commands",
        "FIGURE STUDY",
        (),
        required=("out",),
    ),
    "features": Verb("describe each latent feature of a run, with pictures (a page per run)", "model_commands"),
    "realism": Verb("measure how realistic decoded images are, beside real and blurred cells", "model_commands"),
    "travel": Verb("interpolate a cell towards a treatment: strips, films, tables", "model_commands"),
    "report": Verb("write the report, one page that opens anywhere", "model_commands"),
    "export": Verb("write a study's crops as a file that scPortrait reads (.h5sc)", "image_commands"),
    "explore": Verb("browse a study on this machine: plates, maps, treatments, travels", "web_commands"),
    "assess": Verb("run a blinded test of people: real against reconstructed cells", "web_commands"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it is done, 2 for bad input, 1 when it cannot go on (the loss is not finite), 130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0
    if given[0] == "--version":
        print(f"phenolens {__version__}")
        return 0
    with sigterm_as_ctrl_c():
        try:
            status, message = outcome(given[0], given[1:])
        except KeyboardInterrupt:
            status, message = 130, "stopped; the same command resumes"
    if message:
        rank = os.environ.get("RANK", "0")  # any of several processes that torchrun started may fail
        process = "" if rank == "0" else f"process {rank}: "
        print(f"phenolens {given[0]}: {process}{message}", file=sys.stderr, flush=True)
    return status


def outcome(verb: str, arguments: list[str]) -> tuple[int, str]:
    """Run one command: its exit code, and the message when it failed."""
    try:
        run_verb(verb, arguments)
    except InputError as error:
        return 2, str(error)
    except Interrupted as error:
        return 130, str(error)
    except RunError as error:
        return 1, str(error)
    except OSError as error:
        return 2, _system_message(error)
    return 0, ""


def run_verb(verb: str, arguments: list[str]) -> None:
    """Parse the command's flags, with `study.toml` and `--config FILE` as their defaults, call it and print."""
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"expected one of {', '.join(VERBS)}"
        raise InputError(f'no verb "{verb}"; {hint}')
    entry = VERBS[verb]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not entry.distributed:
        able = " and ".join(name for name, other in VERBS.items() if other.distributed)
        raise InputError(f"works in one process; of all verbs, {able} can be started by torchrun")
    import tyro

    from phenolens.settings import with_file_settings

    function = inspect.unwrap(entry.function(verb))  # its own parameters, settings as dataclasses
    given = tyro.cli(
        _keywords_of(function),
        prog=f"phenolens {verb}",
        description=entry.summary,
        args=with_file_settings(verb, arguments, function, usage=entry.usage, tables=entry.tables),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    for flag in entry.required:
        if not given[flag]:
            raise InputError(f"--{flag}: expected at least one value; see phenolens {verb} --help")
    result = function(**given)
    from phenolens import printing

    show = getattr(printing, f"after_{verb}", None)
    if show is not None:
        show(result, given)


def _keywords_of(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function with the same parameters that returns what it was called with.

    Settings have no default here, so that their flags come from the fields of the dataclass.
    """

    @functools.wraps(function)
    def keywords(**given: Any) -> dict[str, Any]:
        return given

    signature = inspect.signature(function)
    parameters = [
        each.replace(default=inspect.Parameter.empty) if is_dataclass(each.annotation) else each
        for each in signature.parameters.values()
    ]
    keywords.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return keywords


def overview() -> str:
    """What `phenolens --help` prints."""
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()]
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


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """While it is open, SIGTERM stops as Ctrl-C does: nothing stays half-written, and one line is printed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread, where signals cannot be handled
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _system_message(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{where}the disk is full; finished files are kept, nothing is half-written; make room and run it again"
    return f"{where}{error.strerror or error}"


if __name__ == "__main__":
    status = main()
    if "RANK" in os.environ:
        # started by torchrun: leftover threads of gloo sometimes abort a process that ends the usual way
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
