"""The DHT node as a pure machine: routing table, lookups, records, announcer. `DhtNode` in node.py is its interface."""
