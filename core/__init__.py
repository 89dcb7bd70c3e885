"""The pure heart of lessor: its vocabulary and its decisions, without thread, socket, file, clock or randomness."""
