"""The benchmark suite: our real code paths timed beside the public peers."""
