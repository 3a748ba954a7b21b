"""The protocols, one a file: steps, cost, source, and the code in the same order.

Shares have the party axis first: an array of shape S is held as (p, *S), p being the number of
computing parties that live in this process. Opened values have shape (1, *S), or (0, *S) in a plan.
[x] stands for additive shares of x modulo 2^64, <b> for XOR shares of a bit b. There are n computing
parties. Bytes are those that one party sends to all others; the correction is what the provider sends
to the last party.
"""
