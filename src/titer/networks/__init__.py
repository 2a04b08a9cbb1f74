"""Reference architectures that the modalities use, one file each."""
