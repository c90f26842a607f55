import os

# Before torch is imported, and for the processes that tests start: small tensors gain nothing from
# threads, one gives the same numbers everywhere, and pytest-xdist's workers share the cores.
os.environ["OMP_NUM_THREADS"] = "1"

from hypothesis import settings

# Time limits per example say more about the machine than about the code.
settings.register_profile("symloss", deadline=None)
settings.load_profile("symloss")

collect_ignore = ["accelerator"]  # test_accelerator.py runs it in a process of its own
