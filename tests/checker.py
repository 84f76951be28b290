"""The type checker under which the package itself runs in `test_import_hook.py`."""

from beartype import BeartypeConf, beartype

# As for static checkers, an `int` will do where a `float` is asked for.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
