"""The vocabulary: models, threats, plugins and errors. Everything else speaks in these words."""
