"""Object stores: one small protocol, three implementations, and the wrappers around them."""
