"""From fields of view to single-cell crops: read images, correct illumination, find nuclei, cut, check quality."""
