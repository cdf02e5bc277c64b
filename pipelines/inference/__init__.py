"""Commands on a trained flow: score, sample, impute, export."""
