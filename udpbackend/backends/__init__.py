"""How a packet gets to another node: one backend a module, none of which knows a registry."""
