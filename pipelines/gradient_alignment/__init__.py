"""Are the gradients of classifiers scores? Claims with and without regularizers."""
