"""One module per published dataset: a `datasets.GeneratorBasedBuilder` and its `BuilderConfig`."""
