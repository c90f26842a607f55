"""The parts of train_digits.py besides the network and the loop."""
