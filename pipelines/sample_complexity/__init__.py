"""The study of sample complexity: its configuration, cells, measurements and figures."""
