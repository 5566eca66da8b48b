"""Discovery between hosts: the port that the daemon uses, the DHT over UDP behind it, and its twin in memory."""
