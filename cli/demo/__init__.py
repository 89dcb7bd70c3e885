"""The demo: three servers, four clients, one lock, and the death of the leader."""
