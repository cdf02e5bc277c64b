"""The parts of a run that people read: progress, names, figures, claims and pages."""
