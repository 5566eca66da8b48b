"""Orders that hosts place on one another, and campaigns that place them on many."""
