"""The command line: parse the flags of a command, call its function, print what comes next."""

import errno
import inspect
import io
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from phenolens import __version__
from phenolens.arguments import folder_first, with_file_settings
from phenolens.core.bounds import check, expected, flag
from phenolens.core.errors import InputError, Interrupted, RunError
from phenolens.core.keywords import check_flags, setting_types, with_flags
from phenolens.core.progress import duration, silent, tell


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


LIBRARIES = {  # that take long to load
    "pandas": "pandas",
    "torch": "PyTorch",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "scipy": "SciPy",
    "anndata": "anndata",
}
LOOKS = 300  # at what is loading, ten a second; what is loaded later is part of the work
SHELLS = ("bash", "zsh", "fish")
COMPLETED_PATHS = {  # in tyro's scripts: a word that is no flag or choice is a path, of the word itself
    "for completion in completions:": 'for completion in completions or ["__TYRO_COMPLETE_FILES__"]:',
    'compgen -f -- "$cur"': 'compgen -f -- "${COMP_WORDS[COMP_CWORD]}"',
    "complete -F": "complete -o filenames -F",
}
STEPS = ("crop", "train", "profile", "evaluate", "run")
VERBS = {
    "demo": Verb("simulate a small screen and analyse it, in five to ten minutes", "model_commands", "OUT", ()),
    "run": Verb("all steps from a source folder to a report", "model_commands", tables=STEPS),
    "simulate": Verb("write a simulated screen as a BBBC021 download, with its true answers", "image_commands", "OUT"),
    "fetch": Verb("download BBBC021: tables, labels and the plates you name", "image_commands", "bbbc021 OUT", ()),
    "check": Verb("report content, quality and missing files of a source", "image_commands", "SOURCE"),
    "crop": Verb("cut single-cell crops from fields of view, or read a crop set", "image_commands"),
    "measure": Verb("measure size, shape, texture and intensity of every cell", "score_commands"),
    "train": Verb("train a model on the crops", "train_command", distributed=True),
    "embed": Verb("embed every crop with the trained models", "score_commands", distributed=True),
    "profile": Verb("make profiles of wells and treatments from the embeddings", "score_commands"),
    "evaluate": Verb("score how well treatments match by mechanism (NSC, NSCB)", "score_commands", "SOURCE"),
    "benchmark": Verb("train every encoder on the same cells and compare them in one table", "comparison_commands"),
    "compare": Verb("test which treatments two scores answer differently", "score_commands", "A B", ()),
    "figure": Verb(
        "draw a figure of the paper: reconstructions, interpolation, comparison, assessment",
        "model_commands",
        "FIGURE STUDY",
        (),
        required=("out",),
    ),
    "features": Verb("describe each latent feature of a run, with pictures (a page per run)", "model_commands"),
    "realism": Verb("measure how realistic decoded images are, compared with real and blurred cells", "model_commands"),
    "travel": Verb("interpolate a cell towards a treatment: strips, films, tables", "model_commands"),
    "report": Verb("write the report, one page that opens in any browser", "model_commands"),
    "export": Verb("write a study's crops as a file that scPortrait reads (.h5sc)", "image_commands"),
    "explore": Verb("browse a study on this machine: plates, maps, treatments, travels", "web_commands"),
    "assess": Verb("run a blinded test of people: real against reconstructed cells", "web_commands"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; silent where the reader of its output has closed it, as `head` does.

    Returns:
        As `run_command`; 141 where the output was closed.
    """
    try:
        status = run_command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is written nowhere at the end
        return 141
    return status


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it is done, 2 for bad input, 1 when a run fails (the loss is not finite), 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = [word for word in words if word not in ("--quiet", "--verbose")]
    if not given or given[0] in ("-h", "--help"):
        print(overview())
        return 0
    if given[0] == "--version":
        print(f"phenolens {__version__}")
        return 0
    with sigterm_as_ctrl_c(), loading_shown(), silent() if "--quiet" in words else nullcontext():
        try:
            status, message = outcome(given[0], given[1:], verbose="--verbose" in words)
        except KeyboardInterrupt:
            status, message = 130, "stopped; the same command resumes"
    if message:
        rank = os.environ.get("RANK", "0")  # any of several processes that torchrun started may fail
        process = "" if rank == "0" else f"process {rank}: "
        print(f"phenolens {given[0]}: {process}{message}", file=sys.stderr, flush=True)
    return status


def outcome(verb: str, arguments: list[str], *, verbose: bool = False) -> tuple[int, str]:
    """Run one command: its exit code, and the message when it failed."""
    try:
        run_verb(verb, arguments, verbose=verbose)
    except BrokenPipeError:
        raise
    except (InputError, Interrupted, RunError, OSError) as error:
        if verbose:
            traceback.print_exc()
        if isinstance(error, OSError):
            return 2, _system_message(error)
        status = 130 if isinstance(error, Interrupted) else 1 if isinstance(error, RunError) else 2
        return status, f"{error}{flags_of_others(verb, str(error))}"
    return 0, ""


def flags_of_others(verb: str, message: str) -> str:
    """Which commands have the flags that a message advises and the command itself lacks; empty where it has all."""
    advised = dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z-]+", message))
    if verb not in VERBS or not advised:
        return ""
    own = _flags(verb)
    able = {name: [other for other in VERBS if name in _flags(other)] for name in advised if name not in own}
    return "".join(
        f" ({name} is a flag of phenolens {' and '.join(others)})"
        for name, others in able.items()
        if others and not any(f"phenolens {other}" in message for other in others)
    )


def _flags(verb: str) -> set[str]:
    """The flags of a command."""
    names = map(flag, setting_types(inspect.unwrap(VERBS[verb].function(verb))))
    return {form for name in names for form in (name, name.replace("--", "--no-", 1))}


def run_verb(verb: str, arguments: list[str], *, verbose: bool = False) -> None:
    """Parse the command's flags, with `study.toml` and `--config FILE` as their defaults, call it and print."""
    if verb == "completion":
        print(completion(arguments))
        return
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"expected one of {', '.join(VERBS)}"
        raise InputError(f'no verb "{verb}"; {hint}')
    entry = VERBS[verb]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not entry.distributed:
        able = " and ".join(name for name, other in VERBS.items() if other.distributed)
        raise InputError(f"works in one process; of all verbs, {able} can be started by torchrun")
    import tyro

    if os.environ.get("NO_COLOR"):
        tyro._experimental_options["ansi_codes"] = False
    command = entry.function(verb)
    function = inspect.unwrap(command)  # its own parameters, settings as dataclasses
    kinds = setting_types(function)
    arguments = folder_first(arguments, kinds, usage=entry.usage)
    from_files: dict[str, Path] = {}
    if entry.tables != () and arguments and arguments[0] not in ("-h", "--help"):
        known = [name for name, other in VERBS.items() if other.tables != ()]
        tables = entry.tables or (verb,)
        arguments, from_files = with_file_settings(arguments, tables=tables, known=known, kinds=kinds)
    with _named_by_file(from_files), _refusals_in_one_line(verb, arguments, kinds):
        given = tyro.cli(
            _keywords_of(function),
            prog=f"phenolens {verb}",
            description=entry.summary,
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    check_flags(function, given)
    for name in entry.required:
        if not given[name]:
            raise InputError(f"--{name}: expected at least one value; see phenolens {verb} --help")
    began = time.monotonic()
    if verbose:
        print(*(f"{name}: {value}" for name, value in given.items()), sep="\n", file=sys.stderr)
    result = command(**given)
    if verbose:
        print(f"took {duration(time.monotonic() - began)}", file=sys.stderr)
    from phenolens.printing import print_result

    print_result(verb, result, given)


@contextmanager
def _refusals_in_one_line(verb: str, arguments: Sequence[str], kinds: Mapping[str, Any]) -> Iterator[None]:
    """While it is open, flags that tyro refuses are an InputError; what its (private) hook does not offer stays tyro's.

    Args:
        verb: Name of the command.
        arguments: What is parsed.
        kinds: The type of each flag.
    """
    import tyro

    def refuse(event: Any) -> None:
        with suppress(AttributeError, LookupError, TypeError):
            raise InputError(_refusal(event, verb, arguments, kinds))

    hook = getattr(getattr(tyro, "_errors", None), "on_parse_error", None)
    with hook(refuse) if hook else nullcontext():
        yield


@contextmanager
def _named_by_file(from_files: Mapping[str, Path]) -> Iterator[None]:
    """While it is open, an InputError about a flag whose value comes from a file begins with the file's name."""
    try:
        yield
    except InputError as error:
        file = from_files.get(str(error).split(maxsplit=1)[0].rstrip(":"))
        if file is None:
            raise
        raise InputError(f"{file}: {error}") from None


def _refusal(event: Any, verb: str, arguments: Sequence[str], kinds: Mapping[str, Any]) -> str:
    """What tyro refuses, and what is allowed; InputError or AttributeError where there is no such event."""
    see = f"see phenolens {verb} --help"
    for unknown in getattr(event, "tokens", None) or getattr(event, "unrecognized_tokens", None) or ():
        near = get_close_matches(unknown, map(flag, kinds), n=1)
        what = "no such flag" if unknown.startswith("-") else "not expected here"
        return f"{unknown}: {what}; {f'did you mean {near[0]}?' if near else see}"
    if missing := getattr(event, "missing_arguments", None):
        return f"{', '.join(each.arg.lowered.name_or_flags[0] for each in missing)} missing; {see}"
    name = event.argument.lowered.name_or_flags[0]
    if hasattr(event, "choices"):
        check(name, event.value, Literal[event.choices])
    words = [word for given in arguments for word in given.split("=", 1)]
    after = words[len(words) - words[::-1].index(name) :] if name in words else []
    values = " ".join(takewhile(lambda word: not word.startswith("--"), after)) or "without a value"
    return f"{name} {values}: expected {expected(kinds[name.removeprefix('--').replace('-', '_')])}"


def _keywords_of(function: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """A function with the same parameters, documented by flags, that returns what it was called with.

    Settings have no default here, so that their flags come from the fields of the dataclass.
    """

    def keywords(**given: Any) -> dict[str, Any]:
        return given

    signature = inspect.signature(function)
    parameters = [
        each.replace(default=inspect.Parameter.empty) if is_dataclass(each.annotation) else each
        for each in signature.parameters.values()
    ]
    # Without functools.wraps, which tyro would look through for the docstring.
    keywords.__doc__ = with_flags(function.__doc__ or "")
    keywords.__annotations__ = {each.name: each.annotation for each in parameters}
    keywords.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return keywords


def completion(arguments: Sequence[str]) -> str:
    """The script with which a shell completes commands, flags, choices and paths."""
    import tyro

    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise InputError(f"expected one of {', '.join(SHELLS)}")
    functions = {verb: _keywords_of(inspect.unwrap(entry.function(verb))) for verb, entry in VERBS.items()}
    written = io.StringIO()
    with redirect_stdout(written), suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            functions,
            prog="phenolens",
            args=["--tyro-print-completion", *arguments],
            config=(tyro.conf.OmitArgPrefixes,),
        )
    script = written.getvalue().strip()
    for found, better in COMPLETED_PATHS.items():
        script = script.replace(found, better)
    return script


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
            "  --quiet     with any command: print results and errors alone",
            "  --verbose   with any command: also print the settings, the time it took, and where an error arose",
            "",
            f"Completion by the tab key: phenolens completion {'|'.join(SHELLS)}. Begin with: phenolens demo OUT",
        ]
    )


@contextmanager
def loading_shown() -> Iterator[None]:
    """While it is open, say once which libraries are loading after a second, to a person at a terminal."""
    closed = threading.Event()

    def watch() -> None:
        closed.wait(1)
        for _ in range(LOOKS):
            if closed.wait(0.1):
                return
            specs = {name: getattr(module, "__spec__", None) for name, module in [*sys.modules.items()]}
            names = {name.partition(".")[0] for name, spec in specs.items() if getattr(spec, "_initializing", False)}
            loading = [title for name, title in LIBRARIES.items() if name in names]
            if loading:
                tell(f"loading {', '.join(loading)} ...")
                return

    if sys.stderr.isatty():
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        closed.set()


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
