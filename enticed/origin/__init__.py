"""Origins: images under a prefix of a web server, an S3 bucket or a directory, from which a swarm can start again."""
