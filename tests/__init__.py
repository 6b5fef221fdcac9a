"""The tests. NumPy computes in one thread, as in the command: several test processes would wait for each other's threads.

In: nothing. Out: the environment, which has to say so before NumPy is imported.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
