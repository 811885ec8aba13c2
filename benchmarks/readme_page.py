"""The picture of a treatment's page in the README, in Chromium (playwright).

phenolens demo demo-study
python benchmarks/readme_page.py demo-study/study docs/figures/treatment-simulated.jpg
"""

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import tyro
import uvicorn

from phenolens.study import Study
from phenolens.web.app import create_app
from phenolens.web.base import address
from phenolens.web.server import address_of, listening

WIDTH_PX, UNTIL = 1040, "#populations"  # of the window; the picture ends above this part of the page


@dataclass(frozen=True)
class Flags:
    """What the script takes."""

    study: tyro.conf.Positional[Path]  # a study of the demo
    out: tyro.conf.Positional[Path]  # the picture, .jpg
    treatment: str = "eg5-inhibitors-1@30"
    run: str = "imagenet-seed0"


def main(flags: Flags) -> None:
    """Serve the study, open the page and write its upper part."""
    from playwright.sync_api import sync_playwright

    listener = listening(0)
    server = uvicorn.Server(uvicorn.Config(create_app(Study.open(flags.study)), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": WIDTH_PX, "height": 900})
            page.goto(
                address_of(listener).rstrip("/") + address("treatments", flags.treatment, run=flags.run),
                timeout=300_000,
            )
            bottom = page.locator(UNTIL).evaluate("part => part.getBoundingClientRect().top + window.scrollY")
            clip = {"x": 0, "y": 0, "width": WIDTH_PX, "height": bottom}
            page.screenshot(path=flags.out, type="jpeg", quality=80, full_page=True, clip=clip)
            browser.close()
    finally:
        server.should_exit = True
        thread.join()
    print(f"{flags.out}: {flags.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
