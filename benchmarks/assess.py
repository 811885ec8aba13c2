"""Many assessors at once against `phenolens assess`, each clicking as fast as the server answers, for a minute.

    python benchmarks/assess.py                        # 50 assessors, 60 seconds
    python benchmarks/assess.py --kill-after 30        # the server is killed with SIGKILL meanwhile and started again

Every answer that was confirmed must be in the file at the end. The pictures are noise of the paper's size; a study is
made for the purpose and deleted. One process asks, so that the two share the machine.
"""

import asyncio
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import imagecodecs
import numpy as np
import tyro

from phenolens.blinded_test.database import AssessmentFile, Picture
from phenolens.core.progress import tell
from phenolens.study import Study

CROP_PX = 68
TOKEN = "a-token-of-the-benchmark"
TRIES = 200  # of a request while the server is away


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    assessors: int = 50  # at once
    seconds: float = 60.0  # for which they click
    n: int = 500  # pictures of each kind; who has judged all stops
    pause: float = 0.0  # seconds for which an assessor looks at each cell
    kill_after: float = 0.0  # seconds after which the server is killed and started again; 0: never


@dataclass
class Seen:
    """What all assessors saw together."""

    confirmed: set[tuple[str, str]] = field(default_factory=set)  # (assessor, picture)
    page_seconds: list[float] = field(default_factory=list)  # of page and picture
    answer_seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    retried: int = 0  # requests sent again because the server was away


def main(flags: Flags) -> None:
    """Serve, click, kill if asked, and hold what was confirmed against the file."""
    with tempfile.TemporaryDirectory() as folder:
        study = Study.create(Path(folder) / "study")
        file = made(study, flags)
        server, port = served(study, 0)
        try:
            seen = asyncio.run(all_clicking(flags, file, study, server, port))
        finally:
            for process in (server, *study_servers):
                process.kill()
                process.communicate()
        print(told(flags, file, seen))
        if seen.errors or not seen.confirmed <= kept(file):
            sys.exit(1)


study_servers: list[subprocess.Popen[str]] = []  # those started again


def made(study: Study, flags: Flags) -> AssessmentFile:
    """An assessment of noise."""
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (2 * flags.n, CROP_PX, CROP_PX, 3), dtype=np.uint8)
    pictures = [
        Picture(bytes(imagecodecs.png_encode(picture, level=0)), number % 2 == 1, f"cell-{number}", "noise", "", "all")
        for number, picture in enumerate(pixels)
    ]
    about = dict(run="noise", model="noise", title="noise", n=flags.n, seed=0, channels=["noise"], crop_px=CROP_PX)
    about |= {"show_score": False, "each_channel": False}
    file = AssessmentFile.create(study.assessments_folder / "benchmark.sqlite", pictures, about)
    file.add_assessors([f"assessor {number}" for number in range(flags.assessors)])
    return file


def served(study: Study, port: int) -> tuple[subprocess.Popen[str], int]:
    """`phenolens assess` in a process of its own, and its port."""
    command = [sys.executable, "-m", "phenolens.cli", "assess", str(study.folder), "--port", str(port)]
    process = subprocess.Popen([*command, "--token", TOKEN], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"127\.0\.0\.1:(\d+)/owner", line):
            return process, int(found[1])
    raise SystemExit("the server did not begin")


async def all_clicking(
    flags: Flags, file: AssessmentFile, study: Study, server: subprocess.Popen[str], port: int
) -> Seen:
    """All assessors, until the time is over."""
    seen, until = Seen(), time.monotonic() + flags.seconds
    work = [clicking(person.name, person.code, port, until, flags, seen) for person in file.assessors()]
    if flags.kill_after:
        work.append(killing(flags, study, server, port))
    await asyncio.gather(*work)
    return seen


async def killing(flags: Flags, study: Study, server: subprocess.Popen[str], port: int) -> None:
    """Kill the server when it is time, and start it again on its port."""
    await asyncio.sleep(flags.kill_after)
    server.send_signal(signal.SIGKILL)
    server.wait()
    tell("killed; starting it again")
    again, _ = await asyncio.to_thread(served, study, port)
    study_servers.append(again)


async def clicking(name: str, code: str, port: int, until: float, flags: Flags, seen: Seen) -> None:
    """One assessor: page, picture, answer, over and over."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        async def ask(method: str, path: str, form: dict[str, str] | None = None) -> httpx.Response:
            for _ in range(TRIES):
                try:
                    return await client.request(method, path, data=form)
                except httpx.TransportError:  # as a person would: the same again
                    if not flags.kill_after:
                        raise
                seen.retried += 1
                await asyncio.sleep(0.1)
            raise httpx.ConnectError("the server did not come back")

        try:
            await ask("POST", "/begin", {"code": code})
            while time.monotonic() < until:
                began = time.perf_counter()
                page = await ask("GET", "/cell")
                if page.headers.get("location") == "/end":
                    return
                picture = re.findall(r'src="/pictures/(\w+)"', page.text)[0]
                shown = await ask("GET", f"/pictures/{picture}")
                seen.page_seconds.append(time.perf_counter() - began)
                await asyncio.sleep(flags.pause)
                began = time.perf_counter()
                answer = await ask("POST", "/answer", {"picture": picture, "said": "real"})
                seen.answer_seconds.append(time.perf_counter() - began)
                if answer.status_code == 303:
                    seen.confirmed.add((name, picture))
                statuses = (page.status_code, shown.status_code, answer.status_code)
                # after a kill the answer may be there though nobody was told: then its picture is not shown again
                if statuses != (200, 200, 303) and not (flags.kill_after and statuses == (200, 404, 303)):
                    seen.errors.append(f"{name}: {statuses}")
        except (httpx.HTTPError, IndexError) as error:
            seen.errors.append(f"{name}: {error!r}")


def kept(file: AssessmentFile) -> set[tuple[str, str]]:
    """Who answered which picture, by the file."""
    with closing(sqlite3.connect(file.path)) as database:
        question = "SELECT name, picture_id FROM answers JOIN pictures USING (item) JOIN assessors USING (assessor)"
        return set(database.execute(question).fetchall())


def told(flags: Flags, file: AssessmentFile, seen: Seen) -> str:
    """The result in lines."""

    def spread(seconds: list[float]) -> str:
        if len(seconds) < 2:
            return "-"
        tail = statistics.quantiles(seconds, n=100)
        return f"median {1000 * tail[49]:.0f} ms, 99 of 100 within {1000 * tail[98]:.0f} ms"

    lost = seen.confirmed - kept(file)
    lines = [
        f"{flags.assessors} assessors for {flags.seconds:g} s: {len(seen.confirmed):,} answers confirmed "
        f"({len(seen.confirmed) / flags.seconds:.0f} a second), {len(lost)} lost, {len(seen.errors)} errors",
        f"page and picture: {spread(seen.page_seconds)}",
        f"answer, on the disk when confirmed: {spread(seen.answer_seconds)}",
        f"requests sent again: {seen.retried:,}",
        *seen.errors[:5],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__))
