"""The store in Redis or Valkey: one server, Sentinel or Cluster. ``keys`` says what is stored under which name; what
must be atomic is a Lua file in ``lua``."""
