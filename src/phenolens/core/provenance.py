"""Provenance of a table, stored in the table as JSON text under `uns["phenolens"]`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from phenolens import __version__

if TYPE_CHECKING:
    from anndata import AnnData

KEY = "phenolens"


def provenance(table: AnnData) -> dict[str, Any]:
    """The provenance stored in `table`; empty if there is none."""
    written = table.uns.get(KEY, {})
    return json.loads(written) if isinstance(written, str) else dict(written) if isinstance(written, Mapping) else {}


def provenance_text(step: str, *, made_from: dict[str, Any], **choices: Any) -> str:
    """JSON text for `uns["phenolens"]`: the step, its choices, and the provenance of what it was made from."""
    return json.dumps({"step": step, "version": __version__, **choices, "made_from": made_from}, default=str)
