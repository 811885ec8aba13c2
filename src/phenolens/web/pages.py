"""Addresses, templates and the one style of a web application's pages."""

import hashlib
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from phenolens.study import Study


def address(*parts: object, **query: object) -> str:
    """`/part/part?name=value`, each part quoted as one piece; empty values are left out."""
    path = "/" + "/".join(quote(str(part), safe="") for part in parts)
    asked = urlencode({name: value for name, value in query.items() if value not in ("", None)}, doseq=True)
    return f"{path}?{asked}" if asked else path


class Pages:
    """Templates and their style: the report's look, then the sheets of `static` that are named, in their order.

    `problems` is the template of whatever goes wrong.
    """

    def __init__(
        self, study: Study, *, sheets: tuple[str, ...] = ("explorer.css",), problems: str = "problem.html"
    ) -> None:
        self.problems = problems
        report = files("phenolens.viewing") / "templates" / "report.css"
        own = [(files("phenolens.web") / "static" / name).read_text(encoding="utf-8") for name in sheets]
        self.style = "".join([report.read_text(encoding="utf-8"), *own])
        self.style_version = hashlib.sha256(self.style.encode()).hexdigest()[:12]
        self.templates = Environment(
            loader=PackageLoader("phenolens.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        style = address(sheets[-1], v=self.style_version)
        name = study.folder.resolve().name
        self.templates.globals.update(address=address, study=name, study_folder=str(study.folder), style=style)
        self.templates.filters["count"] = lambda number: f"{int(number):,}"
        self.templates.filters["dose"] = lambda um: f"{um:g} µM"

    def page(self, template: str, *, status: int = 200, **shown: Any) -> HTMLResponse:
        """A template with its values."""
        return HTMLResponse(self.templates.get_template(template).render(**shown), status_code=status)

    def problem(self, status: int, title: str, words: str) -> HTMLResponse:
        """A page that says what is wrong and what to do."""
        return self.page(self.problems, status=status, title=title, words=words)
