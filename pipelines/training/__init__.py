"""From a configuration to a Ray Train job: nets, preprocessing, the loop and its watchdog."""
