"""Smaller denoisers: structured pruning, and distillation that teaches the pruned one."""
