"""What two hosts may say to each other, and what an image is in bytes: pure, normative in SPEC.md."""
