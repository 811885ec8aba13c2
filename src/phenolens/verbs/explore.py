"""`phenolens explore`: look at a study in the browser, on this machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from phenolens.study import Study
from phenolens.web.base import serve

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass(frozen=True)
class Flags:
    """What `phenolens explore` takes."""

    study: Positional[Path]  # the study's folder; nothing in it is changed
    port: int = 8000  # of this machine; 0: any that is free


def act(flags: Flags) -> None:
    """Serve the pages until Ctrl+C."""
    study = Study.open(flags.study)

    def made() -> "FastAPI":
        from phenolens.web.app import create_app, prepare

        app = create_app(study)
        prepare(app)
        return app

    serve(made, port=flags.port, verb="explore", words=lambda at: f"open {at} in a browser; Ctrl+C stops it")
