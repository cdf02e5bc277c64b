"""Ray's fake provider of nodes, but each node has a session folder of its own, as real ones have.

Where nodes share it, each new node unpacks the folder of a running job again, and so removes the
folder in which the job's processes work.
"""

import tempfile
from functools import partial
from unittest import mock

from ray._private import parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Provider(FakeMultiNodeProvider):
    """Starts a raylet on this machine for each node, with a folder in that of the cluster."""

    def _create_node_with_resources_and_labels(self, *arguments):
        folder = tempfile.mkdtemp(dir=self.provider_config["folder"])
        own = partial(parameter.RayParams, temp_dir=folder)
        with mock.patch.object(parameter, "RayParams", own):
            super()._create_node_with_resources_and_labels(*arguments)
