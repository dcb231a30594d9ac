"""The providers that the bridge can speak to, one file per API."""
