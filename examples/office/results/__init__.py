"""What a run leaves behind, and the tables and figures made from it.

outputs and scores import nothing from training, which reads and calls them; the others may.
"""
