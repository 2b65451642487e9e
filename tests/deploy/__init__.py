"""What is in deploy/: scripts run beside commands that only pretend, and examples that are read."""
