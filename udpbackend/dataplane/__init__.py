"""The only importers of the C extension: handle, pump and TUN queue."""
