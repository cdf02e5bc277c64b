"""What a person reads of a run: progress, names, figures, claims and pages."""
