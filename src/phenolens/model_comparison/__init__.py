"""Every encoder on the same cells, trained for several seeds and untrained: scores, pictures and costs in one table."""
