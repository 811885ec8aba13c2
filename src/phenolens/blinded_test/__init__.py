"""People judge blindly whether cells are real or reconstructed."""
