"""Bind parameters for statements that take a column of values as an array, mostly for `unnest`."""

from typing import Any

from sqlalchemy import ARRAY, BindParameter, bindparam
from sqlalchemy.types import TypeEngine


def arrays(**types: type[TypeEngine[Any]]) -> tuple[BindParameter[Any], ...]:
    """One parameter for each name, an array of the type that is given for it."""
    return tuple(bindparam(name, type_=ARRAY(element)) for name, element in types.items())
