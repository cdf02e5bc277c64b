"""Where training by scores alone loses mass: a map, and a rule that tells it from the start."""
