"""The file of metrics."""

from pipelines.tracking import metrics_log


def row(step, kind="log", **metrics):
    return {"kind": kind, "step": step, "time": 0.0, "metrics": metrics}


def test_reading_goes_on_behind_the_last_whole_line(tmp_path):
    path = tmp_path / metrics_log.FILE
    assert metrics_log.read(path) == ([], 0)
    metrics_log.append(path, [row(1, loss=2.0)])
    found, offset = metrics_log.read(path)
    assert found == [row(1, loss=2.0)]
    with path.open("a") as stream:
        stream.write('{"kind": "log", ')
    assert metrics_log.read(path, offset) == ([], offset)
    with path.open("a") as stream:
        stream.write('"step": 2}\n')
    assert metrics_log.read(path, offset)[0] == [{"kind": "log", "step": 2}]


def test_of_a_step_told_twice_the_last_one_counts():
    rows = [row(1, a=1), row(2, a=2), row(2, "validate", a=3), row(1, a=4), row(2, a=5)]
    assert metrics_log.curve(rows, "log") == [row(1, a=4), row(2, a=5)]
    assert metrics_log.curve(rows, "validate") == [row(2, "validate", a=3)]


def test_what_a_restart_took_back_is_gone():
    rows = [row(1, a=1), row(2, a=2), row(3, a=3), row(1, metrics_log.RESUMED), row(2, a=4)]
    assert metrics_log.curve(rows, "log") == [row(1, a=1), row(2, a=4)]
