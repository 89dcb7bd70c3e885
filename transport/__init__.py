"""CBOR over ZeroMQ: how nodes and clients exchange messages, and how the event feed is published."""
