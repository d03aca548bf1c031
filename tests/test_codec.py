from __future__ import annotations

import asyncio
import io
import json
import math
import os
import struct
import subprocess
import sys
import textwrap
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar, cast
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, PrivateAttr, RootModel, SecretStr, computed_field

from flux.codec import JsonCodec
from flux.domain.calls import Failure, Json
from flux.errors import ExecutionNotFound, NotReadable, NotStorable, PauseNotFound, TaskFailed, TaskTimeout

codec = JsonCodec()
quick = settings(max_examples=150, deadline=None)
T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = ("b", 1)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    HI = "hi"


class Access(Flag):
    READ = auto()
    WRITE = auto()


class Point(NamedTuple):
    x: int
    y: Any = 0


@dataclass
class Line:
    start: Any
    end: Any = None
    length: float = field(init=False, default=0.0)


@dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    tags: tuple[Any, ...] = ()


@dataclass
class Doubling:
    """Its constructor takes something else than its fields, and changes what it takes."""

    amount: int
    factor: InitVar[int]

    def __post_init__(self, factor: int) -> None:
        self.amount *= factor
        self.note = {"by": factor}


class Item(BaseModel):
    name: str = Field(alias="itemName")
    price: Decimal = Decimal(0)
    parts: Any = ()


class Special(Item):
    model_config = ConfigDict(frozen=True, extra="allow")
    when: datetime | None = None


class Counting(BaseModel):
    """A validator that is not idempotent, a private attribute, a computed and a cached one."""

    count: int
    _seen: list[int] = PrivateAttr(default_factory=list[int])

    @pydantic.field_validator("count")
    @classmethod
    def up(cls, value: int) -> int:
        return value + 1

    def model_post_init(self, context: Any, /) -> None:
        self._seen.append(self.count)

    def seen(self) -> list[int]:
        return self._seen

    @computed_field
    @property
    def double(self) -> int:
        return 2 * self.count

    @cached_property
    def cached(self) -> int:
        return 3 * self.count


class Box(BaseModel, Generic[T]):
    content: T


class Names(RootModel[list[str]]):
    pass


class Row(TypedDict):
    id: int


def there_and_back(value: Any, annotation: Any = None) -> Any:
    text = codec.encode(value, owner="a test", annotation=annotation)
    assert text.isascii()
    assert codec.encode(value, owner="a test", annotation=annotation) == text
    return codec.decode(text, annotation)


def same(left: Any, right: Any) -> bool:
    """Equal all the way down, in type, order and sign: `==` calls 1, 1.0 and True the same."""
    return _shape(left) == _shape(right)


def _shape(value: Any) -> Any:
    kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    match value:
        case float():
            return kind, struct.pack("d", value)
        case complex():
            return kind, _shape(value.real), _shape(value.imag)
        case Decimal():
            return kind, str(value)
        case datetime() | time():
            return kind, value.replace(tzinfo=None), value.fold, _zone(value.tzinfo)
        case defaultdict():
            return kind, value.default_factory, [(_shape(k), _shape(v)) for k, v in value.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        case dict():
            return kind, [(_shape(k), _shape(v)) for k, v in value.items()]  # pyright: ignore[reportUnknownVariableType]
        case Enum():
            return kind, value.name, value.value
        case deque():
            return kind, value.maxlen, [_shape(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case list() | tuple():
            return kind, [_shape(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case set() | frozenset():
            return kind, sorted(repr(_shape(item)) for item in value)  # pyright: ignore[reportUnknownVariableType]
        case BaseModel():
            return kind, _shape(value.__getstate__())
        case _ if is_dataclass(value):
            names = [field.name for field in fields(value)]
            return kind, [_shape(getattr(value, name)) for name in names], _shape(getattr(value, "__dict__", {}))
        case _:
            return kind, value


def _zone(zone: tzinfo | None) -> Any:
    return repr(zone) if zone is not None else None


# -- round trips --------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(), max_size=8) | st.sampled_from(["\x00", "\ud800", "\ud800\udc00", "$", "é"])
offsets = st.timedeltas(min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23, minutes=59))
zones = (
    st.none()
    | st.sampled_from(
        [UTC, ZoneInfo("Europe/Paris"), ZoneInfo("America/New_York"), timezone(timedelta(hours=1), "CET")]
    )
    | st.builds(timezone, offsets)
)
folds = st.sampled_from([0, 1])


def folded(moment: Any, fold: int) -> Any:
    return moment.replace(fold=fold)


hashables = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**64, -(10**700)])
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=8)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
    | st.builds(folded, st.datetimes(timezones=zones), folds)
    | st.builds(folded, st.times(timezones=zones), folds)
    | st.dates()
    | st.timedeltas()
    | st.sampled_from([*Colour, *Level, *Word, Access.READ, Access.READ | Access.WRITE, Access(0)])
    | st.sampled_from(
        [PurePosixPath("/a/b"), PureWindowsPath("C:/x"), Path(), range(3, 9, 2), ZoneInfo("Asia/Tokyo"), UTC]
    )
    | st.builds(Frozen, texts)
)
atoms = (
    hashables
    | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, complex(1, -0.0), complex(math.inf, math.nan)])
    | st.sampled_from([Decimal("NaN"), Decimal("-Infinity"), Decimal("1E+5"), Decimal("1.10"), Decimal("-0")])
    | st.builds(bytearray, st.binary(max_size=8))
    | st.sets(hashables, max_size=3)
    | st.frozensets(hashables, max_size=3)
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    items = st.lists(inner, max_size=3)
    dicts = st.dictionaries(texts, inner, max_size=3)
    return (
        items
        | dicts
        | items.map(tuple)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.builds(deque[Any], items, st.sampled_from([None, 2]))
        | dicts.map(OrderedDict)
        | dicts.map(lambda pairs: defaultdict(list, pairs))
        | st.builds(Point, st.integers(), inner)
        | st.builds(Line, inner, inner)
        | st.builds(Item, itemName=st.text(max_size=3), parts=inner)
        | st.builds(Special, itemName=st.text(max_size=3), parts=inner, when=st.datetimes(), other=inner)
        | st.builds(Box[Any], content=inner)
    )


values = st.recursive(atoms, containers, max_leaves=10)


@given(values)
@quick
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": "text", "c": [1, 2.5, None, True]},
        {"$": "tuple", "v": [1]},
        {1: "a", "1": "b", (2, 3): "c", None: "d"},
        Counter("abca"),
        Counter({"a": -1, "b": 1.5}),
        defaultdict(int, a=1),
        defaultdict(None, a=1),
        defaultdict[str, Any](cast("Any", Frozen)),
        Doubling(2, 3),
        Counting(count=1),
        Box[int](content=1),
        Box[list[Item | None]](content=[Special(itemName="x")]),
        Names(["a"]),
        Item(itemName="x", price=Decimal("1.50")),
        Special.model_validate({"itemName": "x", "$": {"$": 1}, "itemname": (1, 2)}),
        Item(itemName="x").model_copy(update={"price": "no decimal"}),
        Row(id=1),
        UUID(int=0),
        HttpUrl("https://example.com/a?b=c"),
        Fraction(-1, 3),
        [[1]] * 3,
        Failure(type="a:b", message="c", args=Json("[]")),
    ],
    ids=repr,
)
def test_a_value_of_each_shape_comes_back(value: Any) -> None:
    assert same(there_and_back(value), value)


def test_an_integer_of_any_size_comes_back() -> None:
    for value in (10**5000, -(10**5000), 2**2048, -(2**2048), 2**2048 - 1):
        assert there_and_back([value, {value: 1}]) == [value, {value: 1}]


def test_json_values_stay_readable_in_the_history() -> None:
    assert codec.encode({"a": [1, "x", None], "b": {"c": 2.5}}, owner="t") == '{"a":[1,"x",null],"b":{"c":2.5}}'
    assert codec.encode((1, 2), owner="t") == '{"$":"tuple","v":[1,2]}'


def test_an_ambiguous_hour_keeps_its_fold_and_its_zone() -> None:
    moment = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris"))
    back = there_and_back(moment)
    assert (back.fold, back.tzinfo.key, back.utcoffset()) == (1, "Europe/Paris", timedelta(hours=1))


def test_validators_and_constructors_do_not_run_a_second_time() -> None:
    counting = Counting(count=1)
    assert counting.cached == 6
    back = there_and_back(counting)
    assert (back.count, back.seen(), back.cached) == (2, [2], 6)
    assert there_and_back(Doubling(2, 3)).amount == 6


def test_only_the_fields_that_were_set_count_as_set() -> None:
    assert there_and_back(Item(itemName="x")).model_fields_set == {"name"}


def test_a_class_inside_a_function_is_found_through_the_annotation() -> None:
    @dataclass
    class Local:
        x: int

    class Holder(BaseModel):
        locals: dict[str, list[Local]]

    assert there_and_back([Local(1)], list[Local | None]) == [Local(1)]
    back = there_and_back(Holder(locals={"a": [Local(1)]}), Holder)
    assert type(back) is Holder
    assert type(back.locals["a"][0]) is Local
    with pytest.raises(NotStorable, match=r"at \[0\].*inside a function.*top of a module"):
        codec.encode([Local(1)], owner="t")
    with pytest.raises(NotReadable, match="Local"):
        codec.decode(codec.encode(Local(1), owner="t", annotation=Local))


def test_a_script_and_a_server_that_imports_it_read_each_other(tmp_path: Path) -> None:
    (tmp_path / "orders.py").write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from flux.codec import JsonCodec

            @dataclass
            class Order:
                id: int

            if __name__ == "__main__":
                text = JsonCodec().encode(Order(7), owner="t")
                assert type(JsonCodec().decode(text)) is Order
                print(text)
        """)
    )
    paths = [str(tmp_path), *sys.path]
    written = python(str(tmp_path / "orders.py"), paths)
    assert json.loads(written)["c"] == "orders:Order"
    (tmp_path / "server.py").write_text(f"from flux.codec import JsonCodec; print(JsonCodec().decode({written!r}))")
    assert python(str(tmp_path / "server.py"), paths) == "Order(id=7)"


def python(script: str, paths: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, script], check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


# -- refusals -----------------------------------------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Mapping(dict[str, int]):
    pass


@dataclass
class Listing(list[int]):
    name: str = ""


def numbers() -> Any:
    yield 1


async def later() -> int:
    return 1


@pytest.mark.parametrize(
    ("make", "type_name", "way_out"),
    [
        (lambda: numbers(), "generator", r"return list\(\.\.\.\)"),
        (lambda: map(str, []), "map", r"return list\(\.\.\.\)"),
        (lambda: {"a": 1}.keys(), "dict_keys", r"return list\(\.\.\.\)"),
        (lambda: lambda: 1, "function", "store its name"),
        (lambda: len, "builtin_function_or_method", "store its name"),
        (lambda: json, "module", "store its name"),
        (lambda: int, "type", "store its name"),
        (lambda: io.StringIO(), "StringIO", "its content"),
        (lambda: threading.Lock(), "lock", "where it is used"),
        (lambda: object(), "object", "pydantic model"),
        (lambda: Text("x"), "Text", r"return str\(\.\.\.\)"),
        (lambda: Mapping(), "Mapping", r"return dict\(\.\.\.\)"),
        (lambda: Listing(), "Listing", "in a field"),
        (lambda: memoryview(b"x"), "memoryview", r"return bytes\(\.\.\.\)"),
        (lambda: SecretStr("x"), "SecretStr", "secret"),
        (lambda: defaultdict[str, int](lambda: 1), "defaultdict", r"return dict\(\.\.\.\)"),
        (lambda: defaultdict[str, Any](cast("Any", subprocess.Popen)), "defaultdict", r"return dict\(\.\.\.\)"),
        (lambda: asyncio.Lock(), "Lock", "pydantic model"),
        (lambda: Item.model_construct(price=1), "Item", "fields"),
    ],
)
def test_what_cannot_come_back_is_refused_with_its_place_and_the_way_out(
    make: Callable[[], Any], type_name: str, way_out: str
) -> None:
    value = {"items": [1, Line(Item(itemName="x", parts=(make(),)))]}
    with pytest.raises(NotStorable, match=way_out) as caught:
        codec.encode(value, owner="task 'ship'")
    assert caught.value.path == "['items'][1].start.parts[0]"
    assert caught.value.type_name.endswith(type_name)
    assert str(caught.value).startswith("task 'ship': cannot store ")


def test_a_coroutine_is_refused_with_a_word_about_await() -> None:
    coroutine = later()
    with pytest.raises(NotStorable, match="`await` it"):
        codec.encode(coroutine, owner="t")
    coroutine.close()


def test_an_unstorable_key_is_named() -> None:
    with pytest.raises(NotStorable, match=r"at \.keys\(\)\[1\]\[0\]"):
        codec.encode({1: 2, (object(),): 3}, owner="t")


@pytest.mark.parametrize("make", [list[Any], dict[str, Any], lambda: Line(1), lambda: Item(itemName="x")])
def test_a_value_that_contains_itself_is_refused_at_the_place_where_it_does(make: Callable[[], Any]) -> None:
    value = make()
    match value:
        case list():
            value.append((value,))  # pyright: ignore[reportUnknownMemberType]
        case dict():
            value["me"] = value
        case _:
            setattr(value, "end" if isinstance(value, Line) else "parts", value)
    with pytest.raises(NotStorable, match="contains itself") as caught:
        codec.encode({"x": value}, owner="t")
    assert caught.value.path.startswith("['x']")
    assert len(caught.value.path) > len("['x']")


def test_a_very_deep_value_is_refused_and_not_a_recursion_error() -> None:
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotStorable, match="nested more than"):
        codec.encode(deep, owner="t")
    codec.describe(deep)
    codec.isolate(deep)
    with pytest.raises(NotReadable):
        codec.decode(Json("[" * 100_000))


def test_the_deepest_value_that_is_taken_comes_back() -> None:
    deep: Any = None
    for _ in range(25):
        deep = {1: Frozen("x", ([deep],))}
    assert there_and_back(deep) == deep


# -- reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no JSON"),
        ("1 2", "after its end"),
        ('{"$":"new"}', "'new'"),
        ('{"$":[]}', "cannot be read"),
        ('{"$":"tuple"}', "cannot be read"),
        ('{"$":"zoneinfo","v":"../../etc/passwd"}', "cannot be read"),
        ('{"$":"model","c":"gone_module:X","v":{}}', "gone_module"),
        ('{"$":"model","c":"decimal:Gone","v":{}}', "decimal:Gone is gone"),
        ('{"$":"model","c":"subprocess:Popen","v":{}}', "not a pydantic model"),
        ('{"$":"dataclass","c":"os:system","v":{}}', "not a dataclass"),
        ('{"$":"enum","c":"os:path.join","v":"x"}', "gone"),
        ('{"$":"enum","c":"os;import x:y","v":"x"}', "no name"),
        ('{"$":"defaultdict","v":[],"f":"subprocess:Popen"}', "not a class of data"),
        ('{"$":"model","c":["subprocess:Popen","builtins:int"],"v":{}}', "not a class of data"),
        (f'{{"$":"enum","c":"{__name__}:Colour","v":"GREEN"}}', "no longer has the member 'GREEN'"),
        (f'{{"$":"dataclass","c":"{__name__}:Line","v":{{"start":1,"width":2}}}}', "no longer has the field 'width'"),
        (f'{{"$":"dataclass","c":"{__name__}:Line","v":{{}}}}', "now needs 'start'"),
        (f'{{"$":"model","c":"{__name__}:Item","v":{{"price":1}}}}', "now needs 'name'"),
        (f'{{"$":"namedtuple","c":"{__name__}:Point","v":{{"z":1}}}}', "no longer has the field 'z'"),
    ],
)
def test_what_cannot_be_read_says_which_class_and_why(text: str, complaint: str) -> None:
    with pytest.raises(NotReadable) as caught:
        codec.decode(Json(text))
    assert complaint in str(caught.value)


def test_a_field_that_the_class_got_later_has_its_default() -> None:
    line = codec.decode(Json(f'{{"$":"dataclass","c":"{__name__}:Line","v":{{"start":1}}}}'))
    assert (line.start, line.end, line.length) == (1, None, 0.0)
    item = codec.decode(Json(f'{{"$":"model","c":"{__name__}:Item","v":{{"name":"x"}}}}'))
    assert item == Item(itemName="x")


# -- describing ---------------------------------------------------------------------------------------------------------


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        return 1

    __str__ = __repr__


@given(values, st.integers(0, 300))
@quick
def test_a_description_is_short_json_whatever_the_value(value: Any, limit: int) -> None:
    digest, text = codec.describe({"x": value}, limit=limit)
    json.loads(text)
    assert len(text) <= max(limit, 8)
    assert len(digest) == 16


@given(st.dictionaries(texts | st.integers(), values, max_size=4))
@quick
def test_a_digest_does_not_depend_on_the_order_of_a_dict(value: dict[Any, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert codec.describe({"x": value})[0] == codec.describe({"x": turned})[0]


def test_opaque_values_count_by_their_type() -> None:
    assert codec.describe({"x": object()}) == codec.describe({"x": object()})
    assert codec.describe({"x": object()})[0] != codec.describe({"x": threading.Lock()})[0]
    assert codec.describe({"x": 1})[0] != codec.describe({"x": "1"})[0]


def test_a_description_never_fails() -> None:
    cycle: list[Any] = []
    cycle.extend([cycle, cycle])
    for value in (Hostile(), {Hostile(): 1}, [Hostile()], cycle, ValueError(Hostile()), lambda: 1, 10**9999):
        json.loads(codec.describe({"x": value})[1])


def test_a_long_argument_is_cut_visibly() -> None:
    _, text = codec.describe({"a": "x" * 5000, "b": list(range(1000)), "c": 1}, limit=300)
    copy = json.loads(text)
    assert copy["a"].endswith("…")
    assert copy["b"][-1].startswith("… ")
    assert copy["c"] == 1


# -- isolating ----------------------------------------------------------------------------------------------------------


@given(values)
@quick
def test_a_copy_is_the_same_and_no_mutable_part_is_shared(value: Any) -> None:
    copy = codec.isolate(value)
    assert same(copy, value)
    assert not mutable_parts(copy) & mutable_parts(value)


def mutable_parts(value: Any) -> set[int]:
    found: set[int] = set()
    match value:
        case Frozen():
            return found
        case BaseModel():
            inner = [value.__dict__]
        case Line():
            inner = list(vars(value).values())
        case dict():
            inner = list(value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple() | deque():
            inner = list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case set() | bytearray():
            inner = []
        case _:
            return found
    if not isinstance(value, tuple):
        found.add(id(value))  # pyright: ignore[reportUnknownArgumentType]
    return found.union(*map(mutable_parts, inner))  # pyright: ignore[reportUnknownArgumentType]


def test_what_is_shared_or_cyclic_stays_so_in_the_copy() -> None:
    shared = [1]
    cycle: list[Any] = []
    cycle.append((cycle,))
    copy = codec.isolate({"a": shared, "b": shared, "c": cycle})
    assert copy["a"] is copy["b"]
    assert copy["a"] is not shared
    assert copy["c"][0][0] is copy["c"]
    assert copy["c"] is not cycle


def test_opaque_and_immutable_values_are_passed_on() -> None:
    for value in (object(), (1, "a"), frozenset({1}), Frozen("x"), Colour.RED, uuid4(), len):
        assert codec.isolate(value) is value


def test_private_and_extra_data_of_a_model_is_copied_too() -> None:
    counting, special = Counting(count=1), Special.model_validate({"itemName": "x", "other": [1]})
    codec.isolate(counting).seen().append(9)
    codec.isolate(special).__pydantic_extra__["other"].append(9)
    assert counting.seen() == [2]
    assert special.__pydantic_extra__ == {"other": [1]}


# -- errors -------------------------------------------------------------------------------------------------------------


class Plain(Exception):
    pass


class Declined(Exception):
    def __init__(self, *, code: int, reason: str) -> None:
        super().__init__(f"declined: {reason}")
        self.code = code
        self.reason = reason


class Shouting(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(f"hello {name}")
        self.name = name


class Reduced(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("sum", a + b)
        self.a, self.b = a, b

    def __reduce__(self) -> Any:
        return type(self), (self.a, self.b)


class Connected(Exception):
    def __init__(self, *, client: object) -> None:
        super().__init__("no route")
        self.client = client


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - a test's own error, with a traceback now
        return caught


def noted(error: Exception) -> Exception:
    error.add_note("a note")
    return error


def invalid() -> Exception:
    with pytest.raises(pydantic.ValidationError) as caught:
        Counting.model_validate({"count": "many"})
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        Plain(),
        Plain("x", 1, (2, 3)),
        ValueError("no"),
        KeyError("k"),
        Declined(code=7, reason="no money"),
        Shouting("you"),
        Reduced(1, 2),
        FileNotFoundError(2, "No such file", "x.txt"),
        ImportError("no", name="m", path="p"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        StopIteration(3),
        noted(Plain("x")),
        ExecutionNotFound("e1"),
        PauseNotFound("e1", None, ["a"]),
        TaskTimeout("ship", 2.5),
        NotStorable("t", ".x", "object", "no"),
        invalid(),
        ExceptionGroup("two", [ValueError(1), ExceptionGroup("in", [Declined(code=1, reason="x")])]),
    ],
    ids=repr,
)
def test_an_error_comes_back_as_itself(error: Exception) -> None:
    failure = codec.encode_error(raised(error))
    back = codec.decode_error(failure)
    assert failure.rebuilt
    assert type(back) is type(error)
    assert (str(back), repr(back.args), back.__dict__.keys() - {"flux_traceback"}) == (
        str(error),
        repr(error.args),
        error.__dict__.keys(),
    )
    again = codec.encode_error(raised(back))
    assert replace(again, traceback="") == replace(failure, traceback="")
    assert f"{type(error).__name__}" in vars(back)["flux_traceback"]


def local_error() -> Exception:
    class Local(Exception):
        pass

    return Local("x")


@pytest.mark.parametrize(
    "error", [local_error(), Connected(client=object()), KeyboardInterrupt(), SystemExit(3), Plain(object())]
)
def test_an_error_that_cannot_be_made_again_is_a_task_failed_with_the_same_facts(error: BaseException) -> None:
    failure = codec.encode_error(raised(error))
    back = codec.decode_error(failure)
    assert type(back) is TaskFailed
    assert back.failure == failure
    assert type(error).__name__ in failure.type
    assert codec.encode_error(raised(back)) == failure


def test_an_error_without_a_text_is_recorded_all_the_same() -> None:
    failure = codec.encode_error(raised(Mute()))
    assert "cannot be made" in failure.message
    assert codec.encode_error(codec.decode_error(failure)) == failure


def test_an_error_whose_class_is_gone_is_a_task_failed() -> None:
    failure = Failure(type="gone:Error", message="m", args=Json('[[],{},"call"]'), rebuilt=True)
    assert isinstance(codec.decode_error(failure), TaskFailed)
    assert isinstance(codec.decode_error(replace(failure, type="os:system")), TaskFailed)
    assert isinstance(codec.decode_error(replace(failure, args=Json("not json"))), TaskFailed)


def test_causes_come_back_and_contexts_count_as_causes() -> None:
    def fail() -> None:
        try:
            raise Declined(code=1, reason="a")
        except Declined:
            raise Plain("b")  # noqa: B904 - the context is what is tested

    with pytest.raises(Plain) as caught:
        fail()
    back = codec.decode_error(codec.encode_error(caught.value))
    assert isinstance(back.__cause__, Declined)
    assert back.__cause__.code == 1
    caught.value.__suppress_context__ = True
    assert codec.encode_error(caught.value).cause is None


def test_a_loop_of_causes_ends() -> None:
    first, second = Plain(1), Plain(2)
    first.__cause__, second.__cause__ = second, first
    failure = codec.encode_error(first)
    assert failure.cause
    assert failure.cause.cause is None


def test_a_traceback_keeps_its_innermost_end_and_hides_our_own_frames() -> None:
    def deep(n: int, pad: str) -> None:
        if n == 0:
            codec.decode(Json("?"))
        deep(n - 1, pad) if n % 2 else deep(n - 1, pad + "x")

    with pytest.raises(NotReadable) as caught:
        deep(200, "")
    text = codec.encode_error(caught.value).traceback
    assert len(text) <= 8192
    assert "NotReadable" in text.splitlines()[-1]
    assert "reading.py" not in text


def test_an_exception_may_stand_inside_a_value() -> None:
    back = there_and_back({"results": [1, raised(Declined(code=7, reason="no"))]})
    assert type(back["results"][1]) is Declined
    assert back["results"][1].code == 7


def test_a_date_is_no_datetime_and_a_bool_no_int() -> None:
    assert [type(part) for part in there_and_back([date(2024, 1, 1), datetime(2024, 1, 1), True, 1])] == [
        date,
        datetime,
        bool,
        int,
    ]
