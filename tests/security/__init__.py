"""What the threat model (docs/explanation/security.rst) promises: each of its claims names a test, most of them
here."""
