"""The runs to train, the batches and features they are trained on, and their folders."""
