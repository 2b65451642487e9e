"""The measurements that others build upon: the simulation against theory, and that the rest runs."""
