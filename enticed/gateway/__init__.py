"""The HTTPS API of a host, on `api_listen`."""
