"""Conditions choose rows; what is no condition is refused and never run."""

from __future__ import annotations

import datetime
import doctest

import pyarrow as pa
import pytest

from ecgfounder.analysis.rows import where
from ecgfounder.analysis.rows.where import rows_where
from ecgfounder.errors import SettingsError

TABLE = pa.table(
    {
        "age": [17, 40, None, 80],
        "sex": pa.array(["F", "M", None, "F"]).dictionary_encode(),
        "af": [True, False, None, True],
        "1dAVb": [0, 1, 0, 1],
        "flags": [["clipped:I,II"], [], None, ["resampled:400"]],
        "day": ["2019-09-01", "2020-10-01 08:00", None, ""],
        "until": ["2019-09-01 00:01", "2020-10-01", None, None],
        "us_day": ["9/1/2019", "10/1/2020", None, "1/1/2021"],
        "taken": [datetime.datetime(2020, 1, day) for day in (1, 2, 3, 4)],
    }
)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("age >= 40", [1, 3]),
        ("40 <= age < 80", [1]),
        ("age != 17", [1, 3]),
        ("not age >= 40", [0]),
        ("age is None", [2]),
        ("age is not None and sex == 'F'", [0, 3]),
        ("sex in ('M', 'X')", [1]),
        ("sex not in ['M']", [0, 3]),
        ("af", [0, 3]),
        ("not af or age > 70", [1, 3]),
        ("col('1dAVb') == 1", [1, 3]),
        ("has(flags, 'clipped')", [0]),
        ("not has(flags, 'clipped')", [1, 2, 3]),
        ("taken >= '2020-01-03 00:00:00'", [2, 3]),
        ("age > -1", [0, 1, 3]),
        ("day >= '2020-10-01'", [1]),
        ("'2020-10-01 09:00:00' > day", [0, 1]),
        ("sex < 'G'", [0, 3]),
        ("us_day == '9/1/2019'", [0]),
        ("day < until", [0]),
    ],
)
def test_a_condition_chooses_rows_and_missing_values_are_not_true(expression: str, rows: list[int]) -> None:
    mask = rows_where(TABLE, expression).to_pylist()
    assert [row for row, chosen in enumerate(mask) if chosen] == rows


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("__import__('os').system('true')", "expected a comparison"),
        ("age.__class__ == 1", "Attribute is not allowed"),
        ("(lambda: 1)() == age", "Call is not allowed"),
        ("[x for x in age] == 1", "ListComp is not allowed"),
        ("age + 1 > 2", "BinOp is not allowed"),
        ("f'{age}' == sex", "JoinedStr is not allowed"),
        ("open('/etc/passwd') == sex", "Call is not allowed"),
        ("col(age) == 1", "Name is not allowed"),
        ("has(age, 'x')", "column of lists"),
        ("has(flags, 3)", "column of lists and a text"),
        ("height > 1", "no column 'height'; the columns are: age, sex"),
        ("age >", "not an expression"),
        ("age = 3", "not an expression"),
        ("", "not an expression"),
        ("1 == 1", "needs a column"),
        ("age", "expected a comparison"),
        ("age > 'old'", "another kind"),
        ("age in 3", "needs a list"),
        ("us_day >= '1/1/2020'", "it compares dates with texts that are no dates such as"),
        ("us_day < day", "it compares dates with texts that are no dates such as"),
        ("day < 'M'", "it compares dates with texts that are no dates such as"),
        ("us_day >= '2020-01-01'", "it compares dates with texts that are no dates such as"),
        ("age is 3", "None only"),
        ("(" * 500 + "age" + ")" * 500 + " > 1", "not an expression"),
        ("not " * 1200 + "af", "more than 2,000 characters"),
        ("age > 1 or " * 300 + "af", "more than 2,000 characters"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(expression: str, said: str) -> None:
    with pytest.raises(SettingsError, match="'where' parameter") as refused:
        rows_where(TABLE, expression)
    assert said in str(refused.value)


def test_the_example_in_the_documentation_runs() -> None:
    assert doctest.testmod(where).failed == 0
    assert doctest.testmod(where).attempted > 1
