"""From a configuration to a trained flow: networks, preprocessing, the training, its loop."""
