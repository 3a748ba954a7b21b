"""Two parties without a provider: what they make together, and protocols on their own shares.

From the bottom up: `channel` (how they talk), `curve`, `base_ot` and `seeds` (oblivious transfers from
public keys, and trees of seeds from those), `extension` and `silent` (as many transfers as are wanted),
`pads` and `lookup` (what they give); the files `rlwe_*` (products by encryption, and `rlwe_protocol`, who
sends what of them); `pair` (both parties, what they have in stock, and their keys), and a protocol a file
on shares that nobody opens.
Both parties are semi-honest. There is no third one: what alice and bob make is theirs alone.
"""
