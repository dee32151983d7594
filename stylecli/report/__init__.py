"""A run, its numbers and its pictures as one self-contained HTML page."""
