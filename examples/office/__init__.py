"""What ``train_office.py`` and ``report.py`` are made of, one file for each thing."""
