"""Training: schedule, losses, optimizer, moving average, step and loop."""
