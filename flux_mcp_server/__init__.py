"""The MCP face of Flux: every workflow it finds becomes a tool."""
