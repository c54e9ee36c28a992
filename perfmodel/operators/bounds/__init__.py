"""I/O complexity: how much any algorithm must move, and what known algorithms move exactly.

Two memories: a fast one of ``fast`` elements (S or M in the literature) and a slow one without limit. Every function
counts elements that cross between them, loads and stores together; multiply by the bytes of an element. On a machine,
apply a formula at the boundary of each memory with that memory's capacity.

Three kinds of function:

- ``…_lower_bound``: no algorithm of the named class moves less; the constant is proved or from the paper cited.
- ``…_order``: the same up to an unstated constant; says where a regime changes, not how many bytes.
- every other name: the exact count of one algorithm, loop by loop, edge blocks included.

All are pure functions of numbers, float64 arrays or symbols.
"""
