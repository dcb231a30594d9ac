"""A soak: two hosts, one Redis, a provider with faults and clients by both doors, while workers are killed, Redis is
killed and deploys roll. Afterwards the accounts of all of them are compared."""
