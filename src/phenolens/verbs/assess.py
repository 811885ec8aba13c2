"""`phenolens assess`: the blinded test, in which people judge whether cells are real or redrawn."""

import secrets
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tyro.conf import Positional

from phenolens.blinded_test.compute import AssessmentConfig, assessments, results, set_up, summary_row, write_results
from phenolens.blinded_test.database import MOST_ASSESSORS, AssessmentFile, shown_code
from phenolens.blinded_test.design import Interval, power
from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.study import Study
from phenolens.web.base import HOST, is_loopback, serve

if TYPE_CHECKING:
    from fastapi import FastAPI

SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True)
class Flags:
    """What `phenolens assess` takes."""

    study: Positional[Path]  # the study's folder; only its assessments/ is written
    assessors: tuple[str, ...] = ()  # set up for these: names, or a number of them; left out: set up in the page
    run: str | None = None  # whose reconstructions are shown; left out: the first VAE+, else VAE, else AE
    n: int = 50  # pictures of each kind, real and synthetic
    channels: tuple[str, ...] = ()  # shown in colour, a single one in grey; left out: all
    seed: int = 0  # of which cells are shown
    each_channel: bool = False  # some pictures show one channel alone, in grey: which of them gives a model away?
    show_score: bool = False  # tell each assessor at the end how many answers were right
    name: str = ""  # of the assessment; left out: made of the run, channels, n and seed
    results: bool = False  # print what was answered, write it as CSV, and serve nothing
    host: str = HOST  # where others reach it: an address of this machine, or 0.0.0.0 for all of them
    port: int = 8000  # 0: any that is free
    token: str = ""  # the owner's, at least 16 characters; left out: a new one each time


def act(flags: Flags) -> None:
    """Set up what is asked for, then serve until Ctrl+C; or say the results."""
    study = Study.open(flags.study)
    if flags.results:
        _say_results(study, flags.name)
        return
    token = _token(flags.token)
    if flags.assessors:
        config = AssessmentConfig(flags.run, flags.n, flags.channels, flags.seed, flags.show_score, flags.each_channel)
        made = set_up(study, config, named(flags.assessors), name=flags.name)
        shown = power(flags.n)
        tell(
            f"{made.name}: {flags.n} real and {flags.n} synthetic cells; one assessor's pass rate will be known to "
            f"about {100 * shown.half_width:.0f} points, and a d' of {shown.detectable_d:.1f} told from guessing"
            + _of_each_view(made, flags.n)
        )

    def app() -> "FastAPI":
        from phenolens.web.base import HOSTS
        from phenolens.web.blinded_test import create_app

        return create_app(study, token=token, hosts=HOSTS if is_loopback(flags.host) else ("*",))

    serve(
        app,
        port=flags.port,
        host=flags.host,
        verb="assess",
        words=lambda at: "\n".join(_addresses(study, at, token, loopback=is_loopback(flags.host))),
    )


def named(assessors: tuple[str, ...]) -> list[str]:
    """The names given, or for one number that many names; InputError for a number that is too large or 0."""
    if len(assessors) != 1 or not assessors[0].isascii() or not assessors[0].isdigit():
        return list(assessors)
    number = int(assessors[0][:9])
    if not 1 <= number <= MOST_ASSESSORS:
        raise InputError(f"--assessors {assessors[0]}: expected 1 to {MOST_ASSESSORS}, or names")
    return [f"assessor {place}" for place in range(1, number + 1)]


def _of_each_view(made: AssessmentFile, n: int) -> str:
    """What the pictures show that show all channels, or one of them alone: fewer pictures, so less."""
    about = made.about()
    if not about["each_channel"]:
        return ""
    n_views = len(about["channels"]) + 1
    points = 100 * power(n // n_views).half_width
    return f"; the pass rate of each of {n_views} views (all channels, or one) to about {points:.0f} points"


def _token(given: str) -> str:
    if given and (len(given) < SHORTEST_TOKEN or not given.isascii() or not given.isprintable()):
        raise InputError(f"--token: expected at least {SHORTEST_TOKEN} characters of ASCII, such as from a generator")
    return given or secrets.token_urlsafe(24)


def _addresses(study: Study, at: str, token: str, *, loopback: bool) -> list[str]:
    """Who opens which address."""
    lines = []
    for file in assessments(study).values():
        n = file.n_pictures()
        lines += [
            f"{file.name}, {person.name}: {at}begin/{shown_code(person.code)} ({person.n_answers} of {n} answered)"
            for person in file.assessors()
        ]
    if not loopback:
        lines.append("others can reach this, unencrypted: use it in a network that you trust")
    return [*lines, f"the owner (set up, codes, results): {at}owner?token={token}", "Ctrl+C stops it; answers are kept"]


def _say_results(study: Study, name: str) -> None:
    found = assessments(study)
    if name and name not in found:
        raise InputError(f'{study.assessments}: no assessment "{name}" (there are: {", ".join(found) or "none"})')
    if not found:
        raise InputError(
            f"{study.folder}: nothing is assessed; begin with `phenolens assess {study.folder} --assessors 3`"
        )
    for file in [found[name]] if name else found.values():
        print("\n".join(_result_lines(file)))
        for path in write_results(file):
            print(path)


def _result_lines(file: AssessmentFile) -> list[str]:
    found, about = results(file), file.about()
    lines = [
        f"{file.name}: {about['title']}, {about['n']} real and {about['n']} synthetic cells, "
        f"{found.n_finished} of {found.n_assessors} assessors finished"
    ]
    if found.passed is None or found.false_alarms is None:
        return [*lines, "  no results before somebody has judged all pictures"]
    numbers: dict[str, Interval | None] = {"d'": found.d_prime, "bias c": found.criterion, "Fleiss' kappa": found.kappa}
    shares = {"synthetic passed as real": found.passed, "real called synthetic": found.false_alarms}
    lines += [f"  {what:26}{_percent(share)}" for what, share in shares.items()]
    lines += [f"  {what:26}{_number(number)}" for what, number in numbers.items() if number is not None]
    if about["each_channel"]:
        lines += [_row_of_shown(row) for row in found.shown.to_dict("records")]
    seconds = summary_row(file, found)["seconds"]
    return [*lines, f"  {'median seconds a picture':26}{'-' if pd.isna(seconds) else f'{seconds:.1f}'}"]


def _row_of_shown(row: Mapping[Hashable, Any]) -> str:
    """What pictures of these channels show, in a line."""
    passed, alarms = (
        Interval(*(row[f"{of}{end}"] for end in ("", "_low", "_high"))) for of in ("passed", "false_alarms")
    )
    return f"  shown {row['shown']}: passed as real {_percent(passed)}, called synthetic {_percent(alarms)}"


def _percent(share: Interval) -> str:
    return f"{100 * share.value:.1f} % (95 % interval {100 * share.low:.1f} to {100 * share.high:.1f})"


def _number(number: Interval) -> str:
    return f"{number.value:.2f} (95 % interval {number.low:.2f} to {number.high:.2f})"
