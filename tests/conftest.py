from hypothesis import settings

# Time limits per example say more about the machine than about the code.
settings.register_profile("symloss", deadline=None)
settings.load_profile("symloss")

collect_ignore = ["accelerator"]  # test_accelerator.py runs it in a process of its own
