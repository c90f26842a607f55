"""The parts of ``train_office.py`` and ``report.py``, one file for each."""
