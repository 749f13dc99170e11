"""Import this before anything of alibi: it imports alibi where Ray is not installed.

alibi 0.9.4 names a class that needs Ray in an annotation, and its placeholder for what is missing cannot stand there
on Python 3.11; from 0.9.5 on the name is quoted. An empty module in Ray's place is enough while alibi is imported:
nothing of Ray is used. (`pip install alibi[ray]` would do as well, with some 200 MB more.)
"""

import importlib.util
import sys
import types

if importlib.util.find_spec("ray") is None:
    sys.modules["ray"] = types.ModuleType("ray")
    import alibi  # noqa: F401

    del sys.modules["ray"]
