"""The study of gradient alignment: its configuration, models, measurements and figures."""
