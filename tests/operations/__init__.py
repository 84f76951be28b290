"""The operations of JAX that are differentiated: a registry, and what it leaves out, with reasons.

`test_operations` differentiates each, and the documentation has them as a table.
"""

from operations import arrays as arrays
from operations import control as control
from operations import devices as devices
from operations import entrywise as entrywise
from operations import linalg as linalg
from operations import special as special
from operations.registry import OPERATIONS as OPERATIONS
from operations.registry import Operation as Operation
from operations.registry import parts as parts
