"""What the server of `tests.warm` imports before it forks: all that a command that trains would import."""

import os

# Read by libraries when they are imported: as in `tests.tiny_recipe.environment`.
os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

from toolkit.library_output import quiet_libraries

with quiet_libraries():
    import toolkit.cli
    import toolkit.pipeline
    import toolkit.results
    import toolkit.stages  # noqa: F401
