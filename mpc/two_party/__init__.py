"""Two parties without a provider: what they make together, and protocols on their own shares.

From the bottom up: `channel` (how they talk), `curve` and `base_ot` (oblivious transfers from public
keys), `extension` (as many as are wanted, from a cipher), `pads` (what transfers give: products of
bits, pairs of ANDs, tables to look up), and a protocol a file on shares that nobody opens.
Both parties are semi-honest. Each follows from the other's view, and from nothing less.
"""
