"""Following an answer while it is relayed: turn machines (pure), one per wire format, and the drivers that
feed them."""
