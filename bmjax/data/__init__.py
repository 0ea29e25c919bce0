"""From disk to numpy; never imports flax, optax or orbax."""
