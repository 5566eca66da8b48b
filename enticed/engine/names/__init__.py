"""Names and who has signed for them: announced, resolved, co-signed, signed anew."""
