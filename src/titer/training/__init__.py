"""The one training loop, and the cache of what it trained."""
