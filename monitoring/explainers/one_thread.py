"""Import this before numpy: the numeric libraries then start one thread each, and leave the other cores to the server.

What an operator has set stays as it is.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# alibi imports transformers, which is never used here and must never look for a model in the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
