"""The engine: carries out what the core decides, with the real store, peers and DHT, and is what control talks to."""
