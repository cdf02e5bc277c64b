"""What is asked of a trained flow: scores, samples, what is missing, a service."""
