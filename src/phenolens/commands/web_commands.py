"""Commands that serve pages: explore, assess."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tyro.conf import Positional

from phenolens import pipeline
from phenolens.blinded_test.config import AssessmentConfig
from phenolens.commands.paths import AnyPath
from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.keywords import keyword_settings
from phenolens.core.progress import tell
from phenolens.study import Study
from phenolens.web.server import HOST, is_loopback, serve

if TYPE_CHECKING:
    from phenolens.blinded_test.database import AssessmentFile

MIN_TOKEN_CHARACTERS = 16


@keyword_settings
def explore(study: Positional[AnyPath], *, source: AnyPath | None = None, port: int = 8000, open: bool = False) -> None:
    """Show a study in the browser, on this machine, until Ctrl+C (in a notebook: until the kernel is interrupted).

    Args:
        study: The study, or its folder; nothing in it is changed.
        source: Folder with the images that its crops were cut from, to show cells in their fields.
        port: Port on this machine, 0 to 65535; 0: any free port. The address is printed.
        open: Open the browser at that address.

    Raises:
        InputError: There is no study, the port cannot be used, or the extra `web` is not installed.
    """
    opened = Study.open(study)
    images = None if source is None else Path(source)
    if images is not None:
        pipeline.check_source(images)

    def app() -> Any:
        from phenolens.web.app import create_app, prepare

        created = create_app(opened, source=images)
        prepare(created)
        return created

    def message(at: str) -> str:
        return f"open {at} in a browser; Ctrl+C stops it"

    serve(app, port=port, verb="explore", message=message, opened=open)


@keyword_settings
def assess(
    study: Positional[AnyPath],
    *,
    assessors: tuple[str, ...] = (),
    test: AssessmentConfig = AssessmentConfig(),
    name: str = "",
    results: bool = False,
    host: str = HOST,
    port: int = 8000,
    token: str = "",
) -> pd.DataFrame | None:
    """Run a blinded test: people judge whether cells are real or reconstructed.

    A test is set up when assessors are named; then its pages are served until Ctrl+C.

    Args:
        study: The study, or its folder; only its assessments/ is written.
        assessors: Set up a test for these names, or for this number of assessors.
        test: Which pictures are shown: `run="vaeplus-seed0", n=50`.
        name: Name of the test; default: made from the run, channels, n and seed.
        results: Write the results as CSV files instead of serving the test.
        host: Address to serve on; one of this machine's, or 0.0.0.0 for all of them, lets other machines in.
        port: Port on this machine; 0: any free port.
        token: The owner's password, at least 16 characters; default: a new one each time.

    Returns:
        With `results`, a row per test: how often reconstructions passed as real, with intervals; `attrs["files"]` has
        the files. Otherwise None.

    Raises:
        InputError: There is no such test, run or channel, the port cannot be used, or the extra `web` is not installed.
    """
    opened = Study.open(study)

    from phenolens.blinded_test.compute import assessments, set_up

    if results:
        return _results(opened, name)
    token = checked_token(token)
    if assessors:
        _announce(set_up(opened, test, named(assessors), name=name), test.n)
    elif not assessments(opened):
        raise InputError(f"{opened.folder}: no assessment is set up; name assessors, such as --assessors anna ben")
    loopback = is_loopback(host)

    def app() -> Any:
        from phenolens.web.base import HOSTS
        from phenolens.web.blinded_test import create_app

        return create_app(opened, token=token, hosts=HOSTS if loopback else ("*",))

    def message(at: str) -> str:
        return "\n".join(_addresses(opened, at, token, loopback=loopback))

    serve(app, port=port, host=host, verb="assess", message=message)
    return None


def named(assessors: tuple[str, ...]) -> list[str]:
    """The names given, or for one number that many numbered names; InputError for a number out of range."""
    from phenolens.blinded_test.database import MAX_ASSESSORS

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


def _announce(file: "AssessmentFile", n: int) -> None:
    """Say what a test with n pictures of each kind can show."""
    from phenolens.blinded_test.statistics import power

    (half_width, detectable_d), about = power(n), file.about()
    message = (
        f"{file.name}: {n} real and {counted(n, 'synthetic cell')}; one assessor's pass rate will be known to about "
        f"{100 * half_width:.0f} points, and a d' of {detectable_d:.1f} differs from guessing"
    )
    if about["each_channel"]:
        n_views = len(about["channels"]) + 1
        points = 100 * power(n // n_views)[0]
        message += f"; the pass rate of each of {n_views} views (all channels, or one) to about {points:.0f} points"
    tell(message)


def _addresses(study: Study, at: str, token: str, *, loopback: bool) -> list[str]:
    """Who opens which address."""
    from phenolens.blinded_test.compute import assessments
    from phenolens.blinded_test.database import shown_code

    lines = [
        f"{file.name}, {person.name}: {at}begin/{shown_code(person.code)} "
        f"({person.n_answers} of {file.n_pictures()} answered)"
        for file in assessments(study).values()
        for person in file.assessors()
    ]
    if not loopback:
        lines.append("other machines can reach this without encryption: use it in a network that you trust")
    return [*lines, f"the owner (codes, results): {at}owner?token={token}", "Ctrl+C stops it; answers are kept"]


def _results(study: Study, name: str) -> pd.DataFrame:
    """The summary of this test, or of all; their results are written as CSV files."""
    from phenolens.blinded_test.compute import assessments, summary, write_results

    found = assessments(study)
    if name and name not in found:
        raise InputError(
            f'{study.assessments_folder}: no assessment "{name}" (there are: {", ".join(found) or "none"})'
        )
    if not found:
        raise InputError(f"{study.folder}: no assessment; start with `phenolens assess {study.quoted} --assessors 3`")
    shown = [found[name]] if name else list(found.values())
    table = summary(shown)
    table.attrs["files"] = {file.name: write_results(file) for file in shown}
    return table
