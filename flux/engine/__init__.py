"""The engine: how one execution lives. It knows ports, never adapters."""
