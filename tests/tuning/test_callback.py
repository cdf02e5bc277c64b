"""What is written down of trials that Ray Tune tells of."""

from types import SimpleNamespace

from tuning import records
from tuning.callback import TrialRecorder
from tuning.density.problem import GOALS


def test_a_trial_that_is_lost_before_it_starts_has_failed(tmp_path):
    """Its node may be lost while its process comes up."""
    told = {"number": 0, "config": {}, "changes": {}, "params": {}}
    callback = TrialRecorder(tmp_path, tmp_path / "rows", 1, (GOALS["nll"],), lambda: None)
    callback.on_trial_error(0, [], SimpleNamespace(config=told))
    (record,) = records.read(tmp_path)
    assert (record.number, record.state) == (0, records.FAILED)
