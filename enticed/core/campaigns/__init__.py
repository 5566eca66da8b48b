"""Campaigns: one image for many hosts. A machine like `Host`, beside it: it decides which host gets its order now."""
