"""Conditions on the columns of a table, written as an expression: `age >= 18 and sex in ("F", "M")`.

In: the text of an expression and a table. Out: a mask of its rows. The text is parsed, never run: it may hold names of columns,
`col("name")` for other names, numbers, texts, comparisons, `in` and `not in` with a list, `is None`, `is not None`, `and`,
`or`, `not`, and `has(flags, "clipped")` for columns of lists. A comparison with a missing value is not true. Dates
as texts must be those of ISO 8601.
"""

from __future__ import annotations

import ast
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.rows.times import times_of
from ecgfounder.errors import SettingsError

LONGEST = 2000

_COMPARISONS = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}


def rows_where(table: pa.Table, expression: str) -> pa.ChunkedArray:
    """The rows of a table for which an expression is true, as a mask without nulls.

    Raises
    ------
    SettingsError
        If the text is not such an expression, names a column that does not exist, or compares what cannot be compared.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({"age": [17, 40, None], "flags": [["clipped:I"], [], []]})
    >>> rows_where(table, 'age >= 18 and not has(flags, "clipped")').to_pylist()
    [False, True, False]
    """
    if len(expression) > LONGEST:
        raise _refused(f"it has more than {LONGEST:,} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused("it is not an expression such as age >= 18 and sex == 'F'") from error
    try:
        mask = _Condition(table).of(tree.body)
    except RecursionError as error:
        raise _refused("it is nested too deeply") from error
    except (pa.ArrowException, TypeError, OverflowError) as error:
        raise _refused("it compares a column with a value of another kind") from error
    return pc.fill_null(mask, False)


def columns_of(expression: str) -> list[str]:
    """The columns that a valid expression names, in alphabetical order.

    >>> columns_of('age >= 18 and col("patient age") < 90 and not has(flags, "clipped")')
    ['age', 'flags', 'patient age']
    """
    nodes = list(ast.walk(ast.parse(expression.strip(), mode="eval")))
    calls = {node.func: node for node in nodes if isinstance(node, ast.Call)}
    found = {node.id for node in nodes if isinstance(node, ast.Name) and node not in calls}
    for function, call in calls.items():
        if (
            isinstance(function, ast.Name)
            and function.id == "col"
            and call.args
            and isinstance(call.args[0], ast.Constant)
        ):
            found.add(str(call.args[0].value))
    return sorted(found)


def _refused(reason: str) -> SettingsError:
    return SettingsError(f"Invalid value for the 'where' parameter: {reason}.")


class _Condition:
    """Evaluates the nodes of an expression for all rows of a table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def of(self, node: ast.expr) -> pa.ChunkedArray:
        """The mask of a condition."""
        if isinstance(node, ast.BoolOp):
            masks = [self.of(value) for value in node.values]
            combine = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            mask = masks[0]
            for other in masks[1:]:
                mask = combine(mask, other)
            return mask
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return pc.invert(self.of(node.operand))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "has":
            return self._has(node)
        column = self._column(node)
        if column is not None and pa.types.is_boolean(column.type):
            return column
        raise _refused("expected a comparison, has(COLUMN, 'value') or a column of true and false")

    def _comparison(self, node: ast.Compare) -> pa.ChunkedArray:
        mask = None
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            found = self._pair(left, operator, right)
            mask = found if mask is None else pc.and_kleene(mask, found)
            left = right
        return mask

    def _pair(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> pa.ChunkedArray:
        first = self._value(left)
        if isinstance(operator, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise _refused("'is' compares with None only")
            return pc.is_null(first) if isinstance(operator, ast.Is) else pc.is_valid(first)
        if isinstance(operator, ast.In | ast.NotIn):
            if not isinstance(right, ast.List | ast.Tuple | ast.Set):
                raise _refused("'in' needs a list of values, as in sex in ('F', 'M')")
            values = [_constant(each) for each in right.elts]
            found = pc.and_(pc.is_in(first, pa.array(values).cast(first.type)), pc.is_valid(first))
            return found if isinstance(operator, ast.In) else pc.and_(pc.invert(found), pc.is_valid(first))
        second = self._value(right)
        if not any(isinstance(each, pa.ChunkedArray) for each in (first, second)):
            raise _refused("a comparison needs a column")
        if isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            first, second = _in_order_of_time(first, second)
        return _COMPARISONS[type(operator)](*_alike(first, second))

    def _has(self, node: ast.Call) -> pa.ChunkedArray:
        if len(node.args) != 2 or node.keywords:
            raise _refused("has() takes a column of lists and a value")
        column, wanted = self._column(node.args[0]), _constant(node.args[1])
        if column is None or not pa.types.is_list(column.type) or not isinstance(wanted, str):
            raise _refused("has() takes a column of lists and a text")
        # A flag has its detail after a colon.
        found = [any(str(each).partition(":")[0] == wanted for each in cell or ()) for cell in column.to_pylist()]
        return pa.chunked_array([pa.array(found, pa.bool_())])

    def _value(self, node: ast.expr) -> Any:
        column = self._column(node)
        return pa.scalar(_constant(node)) if column is None else column

    def _column(self, node: ast.expr) -> pa.ChunkedArray | None:
        """The column that a node names; None if it names none."""
        name = None
        if isinstance(node, ast.Name):
            name = node.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "col":
            if len(node.args) != 1 or node.keywords or not isinstance(named := _constant(node.args[0]), str):
                raise _refused("col() takes the name of a column as a text")
            name = named
        if name is None:
            return None
        if name not in self._table.column_names:
            raise _refused(f"there is no column {name!r}; the columns are: {', '.join(self._table.column_names)}")
        column = self._table[name]
        return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _constant(node.operand)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return -value
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool):
        return node.value
    raise _refused(
        f"{type(node).__name__} is not allowed; allowed are columns, numbers, texts, comparisons, in, and, or, not"
    )


def _in_order_of_time(first: Any, second: Any) -> tuple[Any, Any]:
    """Texts of which some are dates become times, because texts have another order."""
    pair = [pa.chunked_array([[each.as_py()]]) if isinstance(each, pa.Scalar) else each for each in (first, second)]
    are_texts = all(pa.types.is_string(each.type) or pa.types.is_large_string(each.type) for each in pair)
    if not (are_texts and any(pc.any(pc.match_substring_regex(each, _DATE)).as_py() for each in pair)):
        return first, second
    try:
        times = [times_of(each, "") for each in pair]
    except SettingsError as error:
        raise _refused("it compares dates with texts that are no dates such as 2020-01-31 12:00:00") from error
    one, other = (
        time[0] if isinstance(each, pa.Scalar) else time for time, each in zip(times, (first, second), strict=True)
    )
    return one, other


_DATE = r"^\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b"


def _alike(first: Any, second: Any) -> tuple[Any, Any]:
    """A text that is compared with times becomes a time."""
    for one, other in ((first, second), (second, first)):
        if isinstance(one, pa.Scalar) and pa.types.is_string(one.type) and pa.types.is_temporal(other.type):
            changed = one.cast(other.type)
            return (changed, other) if one is first else (other, changed)
    return first, second
