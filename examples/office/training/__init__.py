"""Which runs there are, what each method minimises, and what a run trains on."""
