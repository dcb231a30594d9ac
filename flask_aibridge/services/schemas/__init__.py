"""One marshmallow schema for each message: the wire form and the stored form."""
