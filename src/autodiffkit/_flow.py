"""Maximum flows: where a network of capacities is narrowest.

The edges that a maximum flow fills are a minimum cut (Ford and Fulkerson, *Maximal flow
through a network*, 1956). `scipy` computes the flow.
"""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

# The flow is computed in 32 bits.
_LIMIT = 2**30


class Flow:
    """A maximum flow between two nodes, in 32 bits."""

    def __init__(self, nodes: int, bound: int) -> None:
        self.bound = bound  # more than any flow that counts as finite
        self.exact = True  # whether capacities did not have to be rounded
        self.source, self._start, self.sink = nodes, nodes + 1, nodes + 2
        self._count = nodes + 3
        # By both ends in one number: a program has many edges, and Python's garbage collector
        # looks at pairs.
        self._edges: dict[int, int | None] = {}
        self.join(self._start, self.source)

    def join(self, start: int, stop: int, capacity: int | None = None) -> None:
        """Adds an edge; without a capacity, one that nothing fills."""
        self._edges[start * self._count + stop] = capacity

    def sides(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Which nodes are on the source's side, of the cuts nearest to the source and the sink.

        Returns:
            Two masks of the nodes; `None` if only an infinite flow fills the edges.
        """
        count = self._count
        unit = -(-self.bound // (_LIMIT - count))  # more than 1 only for gigantic arrays
        self.exact = unit == 1
        infinite = -(-self.bound // unit) + count
        capacities = [
            infinite if c is None else min(-(-c // unit), infinite) for c in self._edges.values()
        ]
        rows, columns = np.divmod(np.fromiter(self._edges, np.int64, len(self._edges)), count)
        graph = csr_matrix((np.array(capacities, np.int32), (rows, columns)), shape=(count, count))
        result = maximum_flow(graph, self._start, self.sink)
        if result.flow_value >= infinite:
            return None
        residual = csr_matrix(graph - result.flow)
        residual.data = (residual.data > 0).astype(np.int8)
        residual.eliminate_zeros()
        from_source, to_sink = np.zeros(count, bool), np.zeros(count, bool)
        from_source[breadth_first_order(residual, self._start, return_predecessors=False)] = True
        backwards = residual.T.tocsr()
        to_sink[breadth_first_order(backwards, self.sink, return_predecessors=False)] = True
        return from_source, ~to_sink
