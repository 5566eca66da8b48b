"""Who is trusted: the bundle, certificates, groups, and images that were recalled."""
