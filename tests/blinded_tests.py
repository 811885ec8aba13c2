"""Blinded assessments for tests: of made-up pictures, and visitors of their pages without a network."""

import re

import imagecodecs
import numpy as np

from page_client import PageClient
from phenolens.blinded_test.database import AssessmentFile, Picture
from phenolens.web.blinded_test import create_app

TOKEN = "an-owners-token-of-a-test"
SIDE = 12  # px


def made_up_pictures(n: int = 6, *, seed: int = 0) -> list[Picture]:
    """`n` pictures of each kind: noise, of two treatments; every other one is synthetic."""
    chance = np.random.default_rng(seed)
    pictures = []
    for number in range(2 * n):
        pixels = chance.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        png = bytes(imagecodecs.png_encode(pixels, level=0))
        of = [("DMSO@0", "control"), ("taxol@0.3", "Microtubule stabilizers")][number // 2 % 2]
        pictures.append(Picture(png, number % 2 == 1, f"cell-{number}", *of, "DNA, actin"))
    return pictures


def made_up(study, *names, n=6, name="round-1", show_score=False) -> AssessmentFile:
    """An assessment in a study's folder, by assessors of these names."""
    about = dict(run="vaeplus-seed0", model="vaeplus", title="VAE+", n=n, seed=0, channels=["DNA", "actin"])
    about |= {"show_score": show_score, "each_channel": False, "crop_px": SIDE}
    file = AssessmentFile.create(study.assessments_folder / f"{name}.sqlite", made_up_pictures(n), about)
    file.add_assessors(names)
    return file


def kinds_by_picture_id(file: AssessmentFile) -> dict[str, bool]:
    """Whether each picture is synthetic, by the name under which assessors see it: what no assessor can ask."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(file.path)) as database:
        rows = database.execute("SELECT picture_id, is_synthetic FROM pictures JOIN key USING (item)").fetchall()
    return {picture_id: bool(synthetic) for picture_id, synthetic in rows}


class Visitor(PageClient):
    """An assessor or the owner."""

    def __init__(self, study, *, app=None, base="http://127.0.0.1"):
        super().__init__(app or create_app(study, token=TOKEN), base=base)

    def entered(self, code):
        answer = self.post("/begin", {"code": code})
        assert answer.status_code == 303, answer.text
        return self

    def as_owner(self):
        return self.as_owner_of(TOKEN)

    def as_owner_of(self, token):
        assert self.get(f"/owner?token={token}").status_code == 303
        return self

    def picture_id(self):
        """The picture on the page of the cell whose turn it is."""
        return re.search(r'src="/pictures/(\w+)"', self.get("/cell").text)[1]

    def judge(self, said="real"):
        """Look at the next cell and answer; its picture's name."""
        picture = self.picture_id()
        assert self.get(f"/pictures/{picture}").status_code == 200
        assert self.post("/answer", {"picture": picture, "said": said}).status_code == 303
        return picture
