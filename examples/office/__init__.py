"""What stands behind the scripts, in rooms that follow the flow: data, models, training, results."""
