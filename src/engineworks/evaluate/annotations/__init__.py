"""Known answers of images as other tools wrote them down. Knows formats, no pixels, no model."""
