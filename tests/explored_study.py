"""A study to explore: the travelling study, profiled and scored; and its pages, asked for without a network."""

import asyncio
import shutil

import httpx

from phenolens import pipeline
from phenolens.study import Study
from phenolens.web.app import create_app
from served_app import served_app
from travelling_study import RUN


def explored_study(travelling, folder):
    """Embedded by PCA, profiled, and scored by NSC."""
    study = Study.open(shutil.copytree(travelling, folder))
    pipeline.profile(study, RUN, pipeline.ProfileConfig(min_cells=1))
    pipeline.evaluate(study, [RUN], pipeline.EvaluateConfig(protocols=("NSC",), bootstraps=20, shuffles=20))
    return study


class Visitor:
    """Asks the application itself."""

    def __init__(self, study):
        self.app = create_app(study)

    def get(self, path, status=200):
        async def asked():
            through = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=through, base_url="http://127.0.0.1") as client:
                return await client.get(path)

        answer = asyncio.run(asked())
        expected = status if isinstance(status, tuple) else (status,)
        assert answer.status_code in expected, (path, answer.status_code, answer.text[:500])
        return answer


def served(study):
    """The address under which a study is served meanwhile."""
    return served_app(create_app(study))
