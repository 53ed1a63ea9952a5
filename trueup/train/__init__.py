"""The training stages, one file each; `run_loop` is what they share."""
