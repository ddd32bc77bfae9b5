"""A base and its coprocessor behind a port: latents arrive in the background, or not at all."""
