"""One protocol a file: its steps, its source, its cost, and the code in the same order.

Shares have the party axis first: an array of shape S is held as (p, *S), p being how many
computing parties live in this process. Opened values have shape (1, *S), or (0, *S) in a plan.
[x] stands for additive shares of x modulo 2^64, <b> for XOR shares of a bit. The number of
computing parties is n; bytes are those that one party sends to all others.
"""
