"""Transports: local, or TLS between processes, with frames, certificates and listeners."""
