"""Measured comparisons on this machine. Never timed tests: run them on a quiet machine, and quote ratios."""
