"""Phenotype: what a treatment does to a cell, in numbers that pictures can carry. Takes and returns arrays and tables.

No torch: whatever decodes is handed in as a function.
"""
