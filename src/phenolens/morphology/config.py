"""Settings of cells' populations."""

from typing import Literal

MedoidsBy = Literal["nucleus", "measures", "embedding"]
