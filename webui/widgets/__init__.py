"""The parts that panels share: their context, and controls that stand in more than one tab."""
