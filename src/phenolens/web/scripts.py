"""The scripts that pages load: our own, a small one a page, and plotly's as the installed package brings it."""

import hashlib
from importlib.resources import files

from fastapi import FastAPI, Response

from phenolens.errors import InputError
from phenolens.web.headers import FOREVER
from phenolens.web.pages import address

OWN = ("map.js", "travel.js")


class Scripts:
    """Each script's bytes, and the address that names them; InputError when plotly is not installed."""

    def __init__(self) -> None:
        folder = files("phenolens.web") / "static"
        self.contents = {name: (folder / name).read_bytes() for name in OWN if (folder / name).is_file()}
        self.contents["plotly.js"] = plotly_script()
        self._versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in self.contents.items()}

    def address(self, name: str) -> str:
        """Where a page finds a script; the browser may keep what is there."""
        return address(name, v=self._versions[name])

    def serve(self, app: FastAPI) -> None:
        """An address for each script."""
        for name in self.contents:
            app.get(f"/{name}", name=name)(self._answer(name))

    def _answer(self, name: str):  # type: ignore[no-untyped-def]
        def script(v: str = "") -> Response:
            headers = FOREVER if v == self._versions[name] else {}
            return Response(self.contents[name], media_type="text/javascript", headers=headers)

        return script


def plotly_script() -> bytes:
    """plotly.js as the installed package plotly brings it; InputError when it is not installed."""
    try:
        return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError('plotly is not installed; explore needs: pip install "phenolens[web]"') from error
