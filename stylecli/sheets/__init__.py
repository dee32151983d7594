"""Sheets that people look at: grids, style mixing, truncation sweeps."""
