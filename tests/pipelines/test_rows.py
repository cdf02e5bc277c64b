"""The file of metrics."""

from pipelines import metrics_log


def row(step, kind="log", **metrics):
    return {"kind": kind, "step": step, "time": 0.0, "metrics": metrics}


def test_a_torn_line_is_left_out_and_the_next_row_has_its_own(tmp_path):
    path = tmp_path / metrics_log.FILE
    assert metrics_log.read(path) == []
    metrics_log.append(path, [row(1, loss=2.0)])
    with path.open("a") as stream:
        stream.write('{"kind": "log", ')
    assert metrics_log.read(path) == [row(1, loss=2.0)]
    metrics_log.append(path, [row(2)])
    assert metrics_log.read(path) == [row(1, loss=2.0), row(2)]


def test_of_a_step_reported_twice_the_last_one_counts():
    rows = [row(1, a=1), row(2, a=2), row(2, "validate", a=3), row(1, a=4), row(2, a=5)]
    assert metrics_log.curve(rows, "log") == [row(1, a=4), row(2, a=5)]
    assert metrics_log.curve(rows, "validate") == [row(2, "validate", a=3)]


def test_what_a_restart_took_back_is_gone():
    for kind in (metrics_log.RESTARTED, metrics_log.WENT_BACK):
        rows = [row(1, a=1), row(2, a=2), row(3, a=3), row(1, kind), row(2, a=4)]
        assert metrics_log.curve(rows, "log") == [row(1, a=1), row(2, a=4)]
