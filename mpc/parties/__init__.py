"""Parties as processes: parties.toml, certificates, the handshake, health."""
