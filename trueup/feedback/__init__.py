"""People judge completions: collections are filled, handed out, watched over and frozen. No torch, and no SQL."""
