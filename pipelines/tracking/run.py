"""An MLflow run, to which a stage or a pipeline logs, and the reporter of a stage."""

import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipelines import metrics_log, store
from pipelines.metrics_log import Row
from pipelines.store.files import write_json

if TYPE_CHECKING:
    from pipelines.config import Section
    from pipelines.data.dataset import Dataset as PreparedData
    from pipelines.data.manifest import Manifest

REPORT_S = 1.0

# Shows the share of a stage that is done, what it does now, and a note, which may be empty.
Show = Callable[[float, str, str], None]

NOTE = "mlflow.note.content"  # The tag that MLflow shows as a run's description

# Beginnings of the tags of a run that its children do not share.
NOT_INHERITED = ("mlflow.log", "mlflow.note", "mlflow.parentRunId", "mlflow.runName",
                 "ebflow.stage", "ebflow.key")  # fmt: skip

DIGEST_LENGTH = 36
LONGEST_SOURCE = 65_535  # Characters of the source of a data set in MLflow at most

CONFLICT = "BAD_REQUEST"  # The error code of points that another thread or process has just sent


class StageRun:
    """An MLflow run of a stage or a pipeline, with the command that reproduces it, or empty."""

    output: Path  #: The new folder that a stage fills
    work: Path  #: The folder of a stage that outlives a failure
    reporter: "Reporter"  #: Reports the progress and the metrics of a stage

    def __init__(self, client: MlflowClient, id: str, command: str = "") -> None:
        self.client, self.id, self.command = client, id, command

    # Inputs and results

    def open(
        self, config: "Section", dataset: "PreparedData", context: str = "training"
    ) -> "PreparedData":
        """Logs the configuration of the stage and prepared data; returns the data.

        ``context`` is the use of the data: ``training`` or ``testing``.
        """
        self.log_params(config.model_dump())
        self.log_input(dataset.manifest, context)
        return dataset

    def log_params(self, config: Mapping[str, Any]) -> None:
        """Logs nested parameters under dotted names."""
        params = [Param(name, str(value)) for name, value in flat(config)]
        self.client.log_batch(self.id, params=params)

    def log_input(self, manifest: "Manifest", context: str) -> None:
        """Logs a prepared data set as an input of the run."""
        profile = {"counts": manifest.counts, "sha256": manifest.digest}
        shape = {"shape": manifest.shape, "dtype": manifest.dtype, "levels": manifest.levels}
        source = json.dumps(manifest.source)
        if len(source) > LONGEST_SOURCE:
            source = json.dumps({**manifest.source, "files": len(manifest.source["files"])})
        dataset = Dataset(
            name=manifest.name,
            digest=manifest.digest[:DIGEST_LENGTH],
            source_type="ebflow",
            source=source,
            schema=json.dumps(shape),
            profile=json.dumps(profile),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self.client.log_inputs(self.id, [DatasetInput(dataset, tags)])

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Writes metrics to ``evaluation.json``, and logs them."""
        write_json(self.output / "evaluation.json", metrics)
        self.log_metrics(metrics)

    def log_metrics(self, metrics: Mapping[str, float | None]) -> None:
        """Logs those final metrics that are finite."""
        measured = {name: value for name, value in metrics.items() if value is not None}
        self.log_rows([{"step": 0, "time": time.time(), "metrics": measured}])

    def log_artifacts(self, path: Path, folder: str | None = None) -> None:
        """Logs a file, or the files of a folder."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags."""
        self.client.log_batch(self.id, tags=[RunTag(name, tags[name]) for name in tags])

    def describe(self, *parts: str) -> None:
        """Sets the description that MLflow shows, in Markdown: some parts, and the command."""
        again = f"To reproduce it:\n\n```sh\n{self.command}\n```" if self.command else ""
        self.set_tags({NOTE: "\n\n".join(filter(None, (*parts, again)))})

    # The curve of a training

    def log_rows(
        self, rows: Iterable[Row], present: Collection = (), *, wait: bool = True
    ) -> None:
        """Logs metrics with their steps and times (seconds since 1970).

        Metrics that are ``present`` by name and step are skipped; so are those that are not
        finite, which MLflow would return changed. Without ``wait`` a thread of the client sends
        them. What does not arrive then is lost here; ``complete`` sends it again.
        """
        metrics = [
            Metric(name, float(value), int(row["time"] * 1000), row["step"])
            for row in rows
            for name, value in row["metrics"].items()
            if math.isfinite(value) and (name, row["step"]) not in present
        ]
        self.client.log_batch(self.id, metrics=metrics, synchronous=wait)

    def complete(self, rows: Sequence[Row], *, renew: bool = True) -> None:
        """Logs what the run lacks of a curve, and waits for it.

        MLflow removes no points. If the run has others, of steps that a restart repeated, a new
        run gets the curve. With ``renew`` False other points of the run are no mistake.
        """
        standing = metrics_log.standing(rows)
        values = {(name, row["step"]): v for row in standing for name, v in row["metrics"].items()}
        names = {name for name, _ in values}
        present = self._points(names)
        if renew and not all(_is_value(values.get((p.key, p.step)), p) for p in present):
            self.renew()
            present = []
        self._log_missing(standing, names, present)

    def _log_missing(
        self, rows: Sequence[Row], names: Collection[str], present: Sequence[Metric]
    ) -> None:
        """Logs all but the points that are present, while threads may send some of the others."""
        while True:
            try:
                return self.log_rows(rows, {(p.key, p.step) for p in present})
            except MlflowException as error:
                known, present = len(present), self._points(names)
                if error.error_code != CONFLICT or len(present) == known:
                    raise

    def _points(self, names: Collection[str]) -> list[Metric]:
        """Returns the points of some metrics that MLflow has."""
        return [p for name in names for p in self.client.get_metric_history(self.id, name)]

    def renew(self) -> None:
        """Continues as a new run, without metrics; the old run ends as failed."""
        old = self.client.get_run(self.id)
        new_id = self._create_similar(old.info.run_name, {}, excluded=("mlflow.log",))
        reason = f"a restart repeated steps; run {new_id} has the curve"
        self.client.set_tag(self.id, "ebflow.discarded", reason)
        self.client.set_terminated(self.id, "FAILED")
        self.id = new_id
        self.log_params(old.data.params)
        self.client.log_inputs(self.id, old.inputs.dataset_inputs)

    # Runs below this one

    def child(self, name: str, tags: Mapping[str, str]) -> "StageRun":
        """Starts a run below this one, of the same pipeline; the caller ends it."""
        tags = {"mlflow.parentRunId": self.id, **tags}
        return StageRun(self.client, self._create_similar(name, tags, excluded=NOT_INHERITED))

    def _create_similar(
        self, name: str, tags: Mapping[str, str], *, excluded: tuple[str, ...]
    ) -> str:
        """Creates a run with the tags of this one, less those that start as in ``excluded``."""
        old = self.client.get_run(self.id)
        shared = {tag: v for tag, v in old.data.tags.items() if not tag.startswith(excluded)}
        created = self.client.create_run(
            old.info.experiment_id, run_name=name, tags={**shared, **tags}
        )
        return created.info.run_id


class Reporter:
    """Reports the progress and the metrics of a stage.

    Progress goes to the user's terminal. Rows of a training go there too, to a file and to MLflow.
    Threads of MLflow's client send them, so that MLflow's absence delays nothing; ``finish`` sends
    what it lacks. Another process may continue with a copy of a reporter on the same node.

    Arguments:
        file: File of the rows. Those that an earlier attempt has left there are sent again.
        run: MLflow run of the stage; None: MLflow gets nothing.
        show: Shows progress.
        listener: Called with new rows.
    """

    def __init__(
        self,
        file: Path,
        run: StageRun | None = None,
        show: Show = lambda share, text, note: None,
        listener: Callable[[Sequence[Row]], None] = lambda rows: None,
    ) -> None:
        self.file, self.run, self.show, self.listener = file, run, show, listener
        self.shown, self.shown_at = "", -math.inf
        self.warned, self.nll = False, math.nan
        store.download(file)
        earlier = metrics_log.standing(metrics_log.read(file))
        self.sent = {row["kind"]: row["step"] for row in earlier}
        for row in earlier:
            self.nll = row["metrics"].get("val/nll", self.nll)
        if run is not None:
            run.log_rows(earlier, wait=False)

    def progress(self, share: float, text: str, note: str = "") -> None:
        """Shows the share that is done: once a second at most, unless text or note are new."""
        if note or text != self.shown or time.monotonic() - self.shown_at >= REPORT_S:
            self.shown, self.shown_at = text, time.monotonic()
            self.show(share, text, note)

    def log(self, rows: Sequence[Row], keep: bool = False) -> None:
        """Writes, shows and sends rows of a training.

        ``keep`` is True if a checkpoint follows; the file is shared then, and at validations. Rows
        up to the last one sent of their kind are not sent: a restart repeats some.
        """
        if rows:
            metrics_log.append(self.file, rows)
            for row in rows:
                self._show(row)
            new = [row for row in rows if row["step"] > self.sent.get(row["kind"], -1)]
            self.sent |= {row["kind"]: row["step"] for row in new}
            if self.run is not None:
                self.run.log_rows(new, wait=False)
        if keep or any(row["kind"] == "validate" for row in rows):
            store.upload(self.file)
        if rows:  # last: a search may stop the training here
            self.listener(rows)

    def fail(self, note: str) -> None:
        """Reports a failure of workers, at the step where the training is."""
        rows = metrics_log.read(self.file)
        step, share = (rows[-1]["step"], rows[-1]["share"]) if rows else (0, 0.0)
        self.log([metrics_log.row(metrics_log.FAILURE, step, share, note, text=note)])

    def finish(self) -> None:
        """Sends what MLflow lacks of the curve that stands, and waits for it.

        Raises:
            MlflowException: If MLflow cannot be reached.
        """
        if self.run is not None:
            self.run.complete(metrics_log.read(self.file))

    def _show(self, row: Row) -> None:
        """Shows a row; of the notes of validations, the first."""
        self.nll = row["metrics"].get("val/nll", self.nll)
        text = row["text"] or f"step {row['step']}, validation NLL {self.nll:.2f}"
        validated = row["kind"] == "validate"
        note = "" if validated and self.warned else row["note"]
        self.warned = self.warned or bool(validated and note)
        self.progress(row["share"], text, note)


def _is_value(expected: float | None, point: Metric) -> bool:
    """True if a point is as expected. Times and memory differ if a restart repeats a step.

    A rank may be gone after it.
    """
    if point.key.startswith("rank_"):
        return True
    timed = point.key.startswith("time/") or point.key.endswith("_per_s")
    return expected is not None and (timed or point.value == expected)


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields nested entries under dotted names; bounds of columns are one entry."""
    for key, value in config.items():
        if isinstance(value, Mapping) and key != "bounds":  # MLflow refuses some columns' names
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
