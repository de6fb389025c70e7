"""Chains behind one port: `sui` talks to any Sui node, `localsui` is the embedded one."""
