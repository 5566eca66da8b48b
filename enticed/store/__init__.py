"""The local image files, the catalogue of what each holds, and the space that they take."""
