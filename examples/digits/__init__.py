"""What train_digits.py is made of beside the network and the loop: images, results, pictures."""
