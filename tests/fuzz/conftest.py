from tests.pipelines.conftest import ebflow, home  # noqa: F401
