"""Segment the central cell of a crop and measure it."""
