"""The command line: parse the flags of a command, call its function, print what comes next."""

import errno
import inspect
import json
import os
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from phenolens import __version__
from phenolens.core.bounds import check, expected, flag
from phenolens.core.errors import InputError, Interrupted, RunError
from phenolens.core.keywords import check_flags, flags_of, setting_types, unknown_setting, with_flags


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
    "demo": Verb("simulate a small screen and analyse it, in five to ten minutes", "model_commands", "OUT", ()),
    "run": Verb("all steps from a source folder to a report", "model_commands", tables=STEPS),
    "simulate": Verb("write a simulated screen as a BBBC021 download, with its true answers", "image_commands", "OUT"),
    "fetch": Verb("download BBBC021: tables, labels and the plates you name", "image_commands", "bbbc021 OUT", ()),
    "check": Verb("report content, quality and missing files of a source", "image_commands", "SOURCE"),
    "crop": Verb("cut single-cell crops from fields of view, or read a crop set", "image_commands"),
    "train": Verb("train a model on the crops", "model_commands", distributed=True),
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
    except BrokenPipeError:
        raise
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

    function = inspect.unwrap(entry.function(verb))  # its own parameters, settings as dataclasses
    arguments, from_files = with_file_settings(verb, arguments, function)
    with _named_by_file(from_files), _refusals_in_one_line(verb, arguments, setting_types(function)):
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
    result = function(**given)
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


def with_file_settings(
    verb: str, arguments: list[str], function: Callable[..., Any]
) -> tuple[list[str], dict[str, Path]]:
    """The command's arguments, with settings from files before the flags given by hand, which win.

    `study.toml` in the study's folder has a table per step with the names of the flags; `--config FILE` takes the
    `config.json` of a run as it is.

    Args:
        verb: Name of the command.
        arguments: What was given by hand; the folder comes first.
        function: What the command calls; its settings are the flags.

    Returns:
        The arguments, and which file each flag that is not given by hand comes from.

    Raises:
        InputError: A setting is unknown, or flags come before the folder, whose `study.toml` would be missed.
    """
    usage, tables = VERBS[verb].usage, VERBS[verb].tables
    if not arguments or arguments[0] in ("-h", "--help"):
        return arguments, {}
    if arguments[0].startswith("-"):
        raise InputError(f"{arguments[0]}: {usage} comes first, then the flags: phenolens {verb} {usage} ...")
    if tables == ():
        return arguments, {}
    kinds, folder = setting_types(function), arguments[0]
    split = ("--config=", "--model=")
    by_hand = [part for word in arguments[1:] for part in (word.split("=", 1) if word.startswith(split) else [word])]
    settings: list[str] = []
    files: dict[str, Path] = {}
    toml = Path(folder) / "study.toml"
    if toml.is_file():
        model = by_hand[by_hand.index("--model") + 1] if "--model" in by_hand[:-1] else None
        settings += _toml_arguments(toml, tables or (verb,), kinds, model=model)
        files |= dict.fromkeys((word for word in settings if word.startswith("--")), toml)
    if "--config" in by_hand:
        position = by_hand.index("--config")
        if position + 1 == len(by_hand):
            raise InputError("--config: expected a file, such as the config.json of a run")
        config = Path(by_hand[position + 1])
        of_config = _json_arguments(config, kinds)
        settings += of_config
        files |= dict.fromkeys((word for word in of_config if word.startswith("--")), config)
        by_hand = by_hand[:position] + by_hand[position + 2 :]
    given = {word.split("=", 1)[0] for word in by_hand}
    return [folder, *settings, *by_hand], {name: file for name, file in files.items() if name not in given}


def _toml_arguments(path: Path, tables: tuple[str, ...], kinds: Mapping[str, Any], *, model: str | None) -> list[str]:
    """What the tables say; a setting of another model than the one to train is left out."""
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not readable as TOML ({error})") from error
    known = [verb for verb, entry in VERBS.items() if entry.tables != ()]
    for table, content in settings.items():
        if table not in known or not isinstance(content, dict):
            raise InputError(f"{path}: no table of settings [{table}]; expected one of {', '.join(known)}")
    merged = {key: value for table in tables for key, value in settings.get(table, {}).items()}
    if "train" in tables and merged:
        from phenolens.models import MODELS
        from phenolens.training.checkpoint import own_settings
        from phenolens.training.config import RecommendedTraining, TrainConfig

        default = RecommendedTraining if tables == STEPS else TrainConfig
        model = model or str(merged.get("model", default.model))
        merged = own_settings(model, merged) if model in MODELS else merged
    return _as_arguments(merged, kinds, source=path)


def _json_arguments(path: Path, kinds: Mapping[str, Any]) -> list[str]:
    from phenolens.training.checkpoint import own_settings

    try:
        config = json.loads(path.read_text())["config"]
        network = own_settings(config["model"], config.get("network", {}))
        flat = {key: value for key, value in config.items() if key != "network"} | network
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--config {path}: not the config.json of a run ({error})") from error
    return _as_arguments(flat, kinds, source=path)


def _as_arguments(settings: Mapping[str, Any], kinds: Mapping[str, Any], *, source: Path) -> list[str]:
    for key, value in settings.items():
        if key not in kinds:
            raise InputError(f"{source}: {unknown_setting(key, kinds)}")
        if isinstance(value, bool) != (kinds[key] is bool):
            wanted = "true or false" if kinds[key] is bool else "a value, not true or false"
            raise InputError(f'{source}: setting "{key}" is {value!r}; expected {wanted}')
    return flags_of(settings, {})


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
