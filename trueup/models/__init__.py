"""Models: a causal LM with its tokenizer and prompt format, a value head, reward models, adapters; loading, saving."""
