"""From cells to wells to treatments, whitened and scored: numpy, pandas and AnnData only."""
