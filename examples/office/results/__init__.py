"""The files of a finished run, and the tables and figures made from them."""
