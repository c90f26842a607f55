"""What stands behind the scripts, in rooms that follow the flow from data to results."""
