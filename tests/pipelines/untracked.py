"""Runs of stages that no server keeps."""


class Untracked:
    """A stage's run that keeps what it is told."""

    def __init__(self, output=None, work=None):
        self.output, self.work, self.command = output, work, "ebflow run"
        self.params, self.metrics, self.rows, self.tags = {}, {}, [], {}

    def log_params(self, params):
        self.params |= params

    def log_input(self, manifest, context):
        self.context = context

    def log_metrics(self, metrics):
        self.metrics |= metrics

    def log_rows(self, rows):
        self.rows += rows

    def log_artifacts(self, path, folder=None):
        self.folder = path

    def set_tags(self, tags):
        self.tags |= tags
