"""Files that a loss of power does not take, for every package above the core. It imports nothing of ours."""
