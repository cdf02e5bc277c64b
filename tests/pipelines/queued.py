"""Tasks in the queue of the Ray that a run embeds; prints what ran beside what.

A process of its needs_from_config: Ray reads its environment where it is imported.
"""

import json
import sys
import time
from pathlib import Path

from pipelines.cluster import connection, environment

CORES = environment.cpus()


def begin(needs, body, *words):
    import ray

    from pipelines.engine.runner import ray_options
    from pipelines.engine.stages import Stage, Work

    options = ray_options(Work(Stage("any", needs=needs), None))
    return ray.remote(**options)(body).remote(*words)


def hold(folder, name):
    """Says that it runs, and ends when it is told to."""
    (folder / f"held-{name}").touch()
    while not (folder / "go").exists():
        time.sleep(0.1)


def seven():
    return 7


def held(folder, name):
    return len(list(folder.glob(f"held-{name}*")))


def main(folder):
    environment.prepare()
    session = connection.start()
    import ray

    gpu = begin({"CPU": 1, "GPU": 1}, hold, folder, "gpu")
    drivers = [begin(connection.DRIVER, hold, folder, f"driver-{i}") for i in range(CORES + 3)]
    found = {"greedy": ray.get([begin({"CPU": 99}, seven) for _ in range(3)])}
    while held(folder, "driver") < CORES:
        time.sleep(0.1)
    found["beside drivers"] = ray.get([begin({"CPU": 1}, seven) for _ in range(CORES)])
    found["drivers"] = held(folder, "driver")
    (folder / "go").touch()
    ray.get(drivers)
    found["gpu"] = held(folder, "gpu")
    connection.cancel([gpu])
    connection.leave(session)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
