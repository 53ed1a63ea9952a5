"""What fills the ports `Engine` and `Scorer`: the built-in sampler, reward models, and fakes for tests."""
