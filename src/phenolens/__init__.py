"""phenolens: see what a treatment does to a cell."""

__version__ = "0.1.0"
