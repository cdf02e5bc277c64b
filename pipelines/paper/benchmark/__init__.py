"""What a training step takes on this machine, and how that grows."""
