"""A local HTTP face of a client, for programs in other languages and for people with a browser.

It runs at the client's side: it sees the client's rows and answers in the clear, splits the rows
into shares as :class:`nn.Client` does, and is nothing that a computing party runs.
"""
