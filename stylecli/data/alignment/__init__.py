"""Faces: from landmarks in a photograph to the square crop that FFHQ defined."""
