"""`phenolens explore`: show a study in the browser, on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from phenolens.study import Study
from phenolens.web.server import serve

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass(frozen=True)
class Flags:
    """What `phenolens explore` takes."""

    study: Positional[Path]  # the study's folder; nothing in it is changed
    port: int = 8000  # of this machine; 0: any free one


def act(flags: Flags) -> None:
    """Serve the pages until Ctrl+C."""
    study = Study.open(flags.study)

    def app() -> "FastAPI":
        from phenolens.web.app import create_app, prepare

        created = create_app(study)
        prepare(created)
        return created

    serve(app, port=flags.port, verb="explore", message=lambda at: f"open {at} in a browser; Ctrl+C stops it")
