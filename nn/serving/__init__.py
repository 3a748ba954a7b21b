"""Services: parties that answer clients, and the clients."""
