"""The tests. NumPy and PyTorch compute in one thread: several test processes share the cores, and their threads wait busily.

In: nothing. Out: the environment, which has to say so before they are imported.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
