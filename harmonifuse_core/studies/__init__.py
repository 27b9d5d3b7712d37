"""Experiments of many cells: a grid of systems and seeds, its rows, its statistics, its verdicts."""
