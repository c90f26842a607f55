"""What a run leaves behind, and the tables and figures made from it."""
