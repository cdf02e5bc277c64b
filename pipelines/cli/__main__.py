"""``python -m pipelines.cli``: the command line, where ``ebflow`` is not on the path."""

import sys

from pipelines.cli.main import main

sys.exit(main())
