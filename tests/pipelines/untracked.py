"""Runs of stages that no server keeps."""

from pipelines import metrics_log
from pipelines.tracking.run import Reporter, StageRun


class Untracked(StageRun):
    """A stage's run that keeps what is logged."""

    def __init__(self, output=None, work=None):
        self.output, self.work, self.command = output, work, "ebflow run"
        self.shown = []
        self.params, self.metrics, self.tags = {}, {}, {}
        if work is not None:
            self.reporter = Reporter(work / metrics_log.FILE, show=self.show)

    @property
    def rows(self):
        return metrics_log.standing(metrics_log.read(self.reporter.file))

    def show(self, share, text, note):
        self.shown.append(text)

    def log_params(self, params):
        self.params |= params

    def log_input(self, manifest, context):
        self.context = context

    def log_metrics(self, metrics):
        self.metrics |= metrics

    def log_artifacts(self, path, folder=None):
        self.folder = path

    def set_tags(self, tags):
        self.tags |= tags
