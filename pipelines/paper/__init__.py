"""The paper's experiments, beside what was published."""
