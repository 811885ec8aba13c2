"""`phenolens assess`: the blinded test, in which people judge whether cells are real or reconstructed."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tyro.conf import Positional

from phenolens.blinded_test.compute import AssessmentConfig, assessments, results, set_up, summary_row, write_results
from phenolens.blinded_test.database import MAX_ASSESSORS, AssessmentFile, shown_code
from phenolens.blinded_test.design import power
from phenolens.blinded_test.statistics import Interval
from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.study import Study
from phenolens.web.server import HOST, is_loopback, serve

if TYPE_CHECKING:
    from fastapi import FastAPI

MIN_TOKEN_CHARACTERS = 16


@dataclass(frozen=True)
class Flags:
    """What `phenolens assess` takes."""

    study: Positional[Path]  # the study's folder; only its assessments/ is written
    assessors: tuple[str, ...] = ()  # set up a test for these names, or for a number of assessors
    run: str | None = None  # whose reconstructions are shown; default: the first VAE+, else VAE, else AE
    n: int = 50  # pictures of each kind, real and synthetic
    channels: tuple[str, ...] = ()  # shown in colour, a single one in grey; default: all
    seed: int = 0  # selects the cells
    each_channel: bool = False  # also show each channel alone, in grey: which of them gives a model away?
    show_score: bool = False  # show assessors at the end how many of their answers were correct
    name: str = ""  # of the test; default: made of the run, channels, n and seed
    results: bool = False  # print the results, write them as CSV, and serve nothing
    host: str = HOST  # for other machines: an address of this machine, or 0.0.0.0 for all of them
    port: int = 8000  # 0: any free one
    token: str = ""  # the owner's, at least 16 characters; default: a new one each time


def act(flags: Flags) -> None:
    """Set up a test if assessors are named, then serve until Ctrl+C; or print the results."""
    study = Study.open(flags.study)
    if flags.results:
        _print_results(study, flags.name)
        return
    token = checked_token(flags.token)
    if flags.assessors:
        config = AssessmentConfig(flags.run, flags.n, flags.channels, flags.seed, flags.show_score, flags.each_channel)
        _announce(set_up(study, config, named(flags.assessors), name=flags.name), flags.n)
    elif not assessments(study):
        raise InputError(f"{study.folder}: no assessment is set up; name assessors, such as --assessors anna ben")
    loopback = is_loopback(flags.host)

    def app() -> "FastAPI":
        from phenolens.web.base import HOSTS
        from phenolens.web.blinded_test import create_app

        return create_app(study, token=token, hosts=HOSTS if loopback else ("*",))

    serve(
        app,
        port=flags.port,
        host=flags.host,
        verb="assess",
        message=lambda at: "\n".join(_addresses(study, at, token, loopback=loopback)),
    )


def named(assessors: tuple[str, ...]) -> list[str]:
    """The names given, or for one number that many numbered names; InputError for a number out of range."""
    if len(assessors) != 1 or not assessors[0].isascii() or not assessors[0].isdigit():
        return list(assessors)
    number = int(assessors[0][:9])
    if not 1 <= number <= MAX_ASSESSORS:
        raise InputError(f"--assessors {assessors[0]}: expected 1 to {MAX_ASSESSORS}, or names")
    return [f"assessor {place}" for place in range(1, number + 1)]


def checked_token(given: str) -> str:
    """The owner's token; a new one of 192 random bits when none is given."""
    if given and (len(given) < MIN_TOKEN_CHARACTERS or not given.isascii() or not given.isprintable()):
        raise InputError(f"--token: expected at least {MIN_TOKEN_CHARACTERS} ASCII characters")
    return given or secrets.token_urlsafe(24)


def _announce(file: AssessmentFile, n: int) -> None:
    """Say what a test with n pictures of each kind can show."""
    can_show, about = power(n), file.about()
    message = (
        f"{file.name}: {n} real and {n} synthetic cells; one assessor's pass rate will be known to about "
        f"{100 * can_show.half_width:.0f} points, and a d' of {can_show.detectable_d:.1f} differs from guessing"
    )
    if about["each_channel"]:
        n_views = len(about["channels"]) + 1
        points = 100 * power(n // n_views).half_width
        message += f"; the pass rate of each of {n_views} views (all channels, or one) to about {points:.0f} points"
    tell(message)


def _addresses(study: Study, at: str, token: str, *, loopback: bool) -> list[str]:
    """Who opens which address."""
    lines = [
        f"{file.name}, {person.name}: {at}begin/{shown_code(person.code)} "
        f"({person.n_answers} of {file.n_pictures()} answered)"
        for file in assessments(study).values()
        for person in file.assessors()
    ]
    if not loopback:
        lines.append("other machines can reach this without encryption: use it in a network that you trust")
    return [*lines, f"the owner (codes, results): {at}owner?token={token}", "Ctrl+C stops it; answers are kept"]


def _print_results(study: Study, name: str) -> None:
    found = assessments(study)
    if name and name not in found:
        raise InputError(
            f'{study.assessments_folder}: no assessment "{name}" (there are: {", ".join(found) or "none"})'
        )
    if not found:
        raise InputError(f"{study.folder}: no assessment; start with `phenolens assess {study.folder} --assessors 3`")
    for file in [found[name]] if name else found.values():
        print("\n".join(_result_lines(file)))
        for path in write_results(file):
            print(path)


def _result_lines(file: AssessmentFile) -> list[str]:
    found, about = results(file), file.about()
    title = (
        f"{file.name}: {about['title']}, {about['n']} real and {about['n']} synthetic cells, "
        f"{found.n_finished} of {found.n_assessors} assessors finished"
    )
    if not found.n_finished:
        return [title, "  no results until an assessor has judged all pictures"]
    rates = {"synthetic passed as real": found.passed, "real called synthetic": found.false_alarms}
    numbers = {"d'": found.d_prime, "bias c": found.criterion, "Fleiss' kappa": found.kappa}
    lines = [f"  {label:26}{_percent(rate)}" for label, rate in rates.items() if rate is not None]
    lines += [f"  {label:26}{_number(number)}" for label, number in numbers.items() if number is not None]
    if about["each_channel"]:
        for row in found.shown.to_dict("records"):
            passed, alarms = (
                Interval(*(row[f"{rate}{end}"] for end in ("", "_low", "_high"))) for rate in ("passed", "false_alarms")
            )
            lines.append(f"  shown {row['shown']}: passed as real {_percent(passed)}, false alarms {_percent(alarms)}")
    seconds = summary_row(file, found)["seconds"]
    return [title, *lines, f"  {'median seconds a picture':26}{'-' if pd.isna(seconds) else f'{seconds:.1f}'}"]


def _percent(share: Interval) -> str:
    return f"{100 * share.value:.1f} % (95 % interval {100 * share.low:.1f} to {100 * share.high:.1f})"


def _number(number: Interval) -> str:
    return f"{number.value:.2f} (95 % interval {number.low:.2f} to {number.high:.2f})"
