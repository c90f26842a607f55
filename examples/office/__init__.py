"""The modules behind the scripts, in folders that follow the flow from data to results."""
