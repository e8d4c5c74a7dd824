"""The online engine: a stream of samples in, decided rows in a pool out."""
