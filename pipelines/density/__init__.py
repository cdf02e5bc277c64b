"""The density pipeline: data, preprocessing, training, likelihood, a page."""
