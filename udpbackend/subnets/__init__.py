"""Which node owns which subnet: one registry a module, none of which knows a backend."""
