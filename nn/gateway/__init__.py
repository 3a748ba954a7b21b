"""The gateway: a client as an HTTP server, for programs in other languages and for browsers.

The gateway runs at the client's side: it sees the client's rows and answers in the clear, and splits the
rows into shares as :class:`nn.Client` does. No computing party runs it.
"""
