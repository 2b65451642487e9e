"""Lends parts of this machine's models to studios on other machines: `./run.sh parts`."""
