"""From annotations to checked values and JSON Schema."""

import functools
import inspect
import math
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, Literal, NotRequired, TypedDict
from uuid import UUID

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, field_validator
from typing_extensions import TypedDict as ExtendedTypedDict

from flux import schema
from flux.context import ExecutionContext
from flux.errors import DefinitionError, InvalidAnswer, InvalidInput
from flux.schema import (
    ValueType,
    input_schema,
    input_type,
    json_schema,
    output_schema,
    output_type,
    to_json_value,
    value_type,
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Item(BaseModel):
    """One line of an order.

    Attributes:
        sku: What the shop calls it.
    """

    sku: str
    count: Annotated[int, Field(ge=1, description="How many.")] = 1


@dataclass
class Address:
    """Where to.

    Args:
        street: With the number.
    """

    street: str
    zip: str | None = None
    tags: list[str] = field(default_factory=list[str])


class Point(TypedDict):
    x: int
    y: NotRequired[int]


class Node(BaseModel):
    value: int
    children: "list[Node]" = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Order(BaseModel):
    id: str
    items: list[Item]
    to: Address | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None


class Login(BaseModel):
    user: str
    password: str = Field(min_length=8)


def faults(annotation: Any, value: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        ValueType(annotation).validate(value, "the value")
    return caught.value.faults


def assert_valid(value: Any, written: Any) -> None:
    jsonschema.validate(value, written, jsonschema.Draft202012Validator)


# --- annotations ------------------------------------------------------------------------------------------------------


def test_the_input_type_is_the_contexts_parameter():
    async def typed(ctx: ExecutionContext[Order]) -> int: ...
    async def quoted(ctx: "ExecutionContext['Order']"): ...
    async def annotated(ctx: Annotated[ExecutionContext[list[int]], "note"]): ...
    async def bare(ctx: ExecutionContext): ...  # pyright: ignore[reportMissingTypeArgument, reportUnknownParameterType] - as users write it
    async def nothing(ctx): ...  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType] - as users write it
    async def none(): ...

    assert [input_type(func) for func in (typed, quoted, annotated)] == [Order, Order, list[int]]
    assert [input_type(bare), input_type(nothing), input_type(none)] == [Any, Any, type(None)]  # pyright: ignore[reportUnknownArgumentType] - as users write it
    assert [output_type(typed), output_type(nothing)] == [int, Any]  # pyright: ignore[reportUnknownArgumentType] - as users write it


def test_a_decorated_function_keeps_its_type():
    def logged(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        async def wrapper(*args: Any, **kwargs: Any) -> Any: ...

        return wrapper

    @logged
    async def flow(ctx: ExecutionContext[Item]) -> Order: ...

    assert (input_type(flow), output_type(flow)) == (Item, Order)


def test_another_type_than_the_context_is_refused_with_the_cure():
    async def flow(order: Order): ...

    with pytest.raises(DefinitionError, match=r"`order: ExecutionContext\[Order\]`"):
        input_type(flow)


def test_a_name_that_exists_only_for_type_checkers_is_refused_with_the_cure():
    async def flow(ctx: "ExecutionContext[Nowhere]"): ...  # pyright: ignore # noqa: F821 - it is the point

    with pytest.raises(DefinitionError, match=r"'Nowhere' is not defined.*TYPE_CHECKING"):
        input_type(flow)  # pyright: ignore[reportUnknownArgumentType] - it is the point


def test_the_other_parameters_annotations_do_not_matter():
    async def flow(ctx: ExecutionContext[int], other: "Nowhere" = None): ...  # pyright: ignore # noqa: F821 - it is the point

    assert input_type(flow) is int  # pyright: ignore[reportUnknownArgumentType] - it is the point


LOCAL = """
import dataclasses
from pydantic import BaseModel
from flux.context import ExecutionContext
from flux.schema import ValueType, input_type, local_types, output_type
import sys

class Known(BaseModel):
    when: 'int'

def make():
    class Line(BaseModel):
        sku: str
    @dataclasses.dataclass
    class Parcel:
        lines: list[Line]
        known: Known | None = None
    async def flow(ctx: ExecutionContext[Parcel]) -> Line: ...
    types = local_types(flow, sys._getframe())
    return ValueType(input_type(flow, types), types), ValueType(output_type(flow, types), types)
"""


def run_as_module(source: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = ModuleType("written_by_a_user")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "written_by_a_user.py", "exec", dont_inherit=True), module.__dict__)
    return module


def test_future_annotations_change_nothing_even_for_local_types(monkeypatch: pytest.MonkeyPatch):
    plain = run_as_module(LOCAL, monkeypatch).make()
    future = run_as_module("from __future__ import annotations\n" + LOCAL, monkeypatch).make()
    for before, after in zip(plain, future, strict=True):
        assert before.json_schema() == after.json_schema()
    assert future[0].json_schema()["properties"]["lines"]["items"]["properties"] == {"sku": {"type": "string"}}
    assert future[0].validate({"lines": [{"sku": "a"}]}, "it").lines[0].sku == "a"


def test_the_context_may_be_imported_for_type_checkers_only(monkeypatch: pytest.MonkeyPatch):
    module = run_as_module(
        "from __future__ import annotations\nasync def flow(ctx: ExecutionContext[int]): ...", monkeypatch
    )
    assert input_type(module.flow) is int


def test_a_local_type_that_the_body_uses_needs_no_help(monkeypatch: pytest.MonkeyPatch):
    source = """
        from __future__ import annotations
        from flux.context import ExecutionContext
        def make():
            class Line: ...
            async def flow(ctx: ExecutionContext[Line]): return Line()
            return flow, Line
        """
    flow, line = run_as_module(textwrap.dedent(source), monkeypatch).make()
    assert input_type(flow) is line


def test_local_types_keep_no_data_alive():
    data = [1, 2, 3]

    async def flow() -> None: ...

    found = schema.local_types(flow, inspect.currentframe())
    assert data not in found.values()
    assert "flow" not in found


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "given", "meant"),
    [
        (Item, {"sku": "a"}, Item(sku="a")),
        (Address, {"street": "x"}, Address("x")),
        (Point, {"x": "1"}, {"x": 1}),
        (dict[str, list[Point] | None], {"a": [{"x": "1", "y": 2}]}, {"a": [{"x": 1, "y": 2}]}),
        (list[Item], [{"sku": "a"}], [Item(sku="a")]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (set[int], [1, 1], {1}),
        (dict[str, Address], {"a": {"street": "x"}}, {"a": Address("x")}),
        (Cat | Dog, {"kind": "dog"}, Dog(kind="dog")),
        (int | str, "5", "5"),
        (int | None, None, None),
        (Colour, "red", Colour.RED),
        (Literal["a", "b"], "a", "a"),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (date, "2026-01-02", date(2026, 1, 2)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (Decimal, "1.10", Decimal("1.10")),
        (UUID, "12345678123456781234567812345678", UUID(int=0x12345678123456781234567812345678)),
        (float, 1, 1.0),
        (Any, {"anything": [1]}, {"anything": [1]}),
    ],
)
def test_json_is_converted(annotation: Any, given: Any, meant: Any):
    assert ValueType(annotation).validate(given, "the value") == meant


@pytest.mark.parametrize(
    "value",
    [
        Item.model_construct(sku="a", count=-1),
        Address("x"),
        Colour.RED,
        datetime.now(UTC),
        UUID(int=1),
        Decimal(1),
        SimpleNamespace(),
    ],
)
def test_a_value_of_the_right_type_passes_unchanged(value: Any):
    assert ValueType(type(value)).validate(value, "the value") is value


def test_every_fault_is_named_with_its_path_what_was_expected_and_what_came():
    assert faults(Order, {"items": [{"sku": 3, "count": 0}, 5], "pet": {"kind": "cow"}}) == [
        ("id", "is required"),
        ("items.0.sku", "should be a valid string; got 3"),
        ("items.0.count", "should be greater than or equal to 1; got 0"),
        ("items.1", "should be an object or instance of Item; got 5"),
        ("pet", "tag 'cow' found using 'kind' does not match any of the expected tags: 'cat', 'dog'; got an object"),
    ]


def test_the_members_of_a_union_share_one_fault():
    assert faults(dict[str, int | list[int]], {"a": {}}) == [
        ("a", "should be a valid integer or should be a valid list; got an object")
    ]
    assert faults(Cat | Address, {"kind": "cat", "lives": "x"})[0] == (
        "lives",
        'should be a valid integer, unable to parse string as an integer (as Cat); got "x"',
    )


def test_a_key_has_its_own_fault():
    assert faults(dict[int, Literal[1]], {"k": 2}) == [
        ("k.[key]", 'should be a valid integer, unable to parse string as an integer; got "k"'),
        ("k", "should be 1; got 2"),
    ]


def test_the_given_value_is_shown_in_short():
    ((_, said),) = faults(float, "x" * 500)
    assert len(said) < 150
    assert "got [" not in faults(int, list(range(1000)))[0][1]
    assert len(faults(list[int], ["x"] * 100)) == 21


def test_secrets_are_never_shown():
    class Vault(BaseModel):
        code: SecretStr
        size: int

    assert "hunter2" not in str(faults(Login, {"user": "u", "password": "hunter2"}))
    assert "hunter2" not in str(faults(Login, '{"user": "u", "password": "hunter2"'))
    assert "hunter2" not in str(faults(dict[str, int], {"api_key": "hunter2"}))
    assert "12345" not in str(faults(Vault, {"code": 12345, "size": "12345x"}))
    assert '"u-nope"' in str(faults(dict[str, int], {"user": "u-nope"}))


def test_a_validator_of_the_user_speaks_in_its_own_words():
    class Even(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("must be even")
            return value

    assert faults(Even, {"number": 3}) == [("number", "must be even; got 3")]


def test_the_caller_names_the_value_the_place_and_the_error():
    with pytest.raises(InvalidAnswer, match=r"(?s)answer to 'approve' does not fit:\n  input\.sku: is required"):
        ValueType(Item).validate({}, "answer to 'approve'", at="input", error=InvalidAnswer)


def test_a_type_that_cannot_be_used_is_the_authors_mistake():
    with pytest.raises(DefinitionError, match="Missing"):
        ValueType(list["Missing"]).validate([], "the value")  # pyright: ignore[reportUndefinedVariable] # noqa: F821 - it is the point


# --- objects sent as text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "given", "meant"),
    [
        (list[int], "[1, 2]", [1, 2]),
        (list[int] | None, "[1,2]", [1, 2]),
        (Item, '{"sku": "a"}', Item(sku="a")),
        (Address | None, '{"street": "x"}', Address("x")),
        (dict[str, Any], '{"a": "1"}', {"a": "1"}),
        (int | None, "null", None),
        (Cat | Dog, '{"kind": "dog"}', Dog(kind="dog")),
        (list[Item], [{"sku": "a"}, '{"sku": "b"}'], [Item(sku="a"), Item(sku="b")]),
        (dict[str, dict[str, Item]], {"a": {"b": '{"sku": "c"}'}}, {"a": {"b": Item(sku="c")}}),
    ],
)
def test_a_text_is_read_as_json_where_no_text_is_allowed(annotation: Any, given: Any, meant: Any):
    assert ValueType(annotation).validate(given, "the value") == meant


@pytest.mark.parametrize("annotation", [str, str | None, str | dict[str, int], Any, int | str, list[int] | str])
def test_a_text_stays_a_text_where_one_is_allowed(annotation: Any):
    assert ValueType(annotation).validate('{"a": 1}', "the value") == '{"a": 1}'


@pytest.mark.parametrize(
    "annotation", [datetime, Colour, Literal["a"], Annotated[str, Field(max_length=2)], datetime | list[int]]
)
def test_a_text_is_not_read_as_json_where_some_texts_are_allowed(annotation: Any):
    assert faults(annotation, "[1]")


def test_the_first_error_stays_when_the_json_does_not_fit_either():
    assert faults(Order, {"id": "1", "items": '[{"sku": 1}]'}) == [
        ("items", "should be a valid list; got a text of 12 characters")
    ]


def test_only_the_failing_field_is_read_and_only_once_and_the_given_value_is_left_alone():
    given = {"id": '{"a": 1}', "items": '[{"sku": "[1]"}]'}
    order = ValueType(Order).validate(given, "the value")
    assert (order.id, order.items[0].sku) == ('{"a": 1}', "[1]")
    assert given["items"] == '[{"sku": "[1]"}]'
    assert faults(list[list[int]], '["[1]"]') != []
    assert faults(int, '"5"') != []


def test_a_cured_field_is_not_among_the_faults():
    assert [path for path, _ in faults(Order, {"id": 3, "items": "[]"})] == ["id"]


# --- JSON Schema ------------------------------------------------------------------------------------------------------


def test_a_nested_model_is_written_inline_with_descriptions_and_without_made_up_titles():
    assert json_schema(list[Item]) == {
        "type": "array",
        "items": {
            "type": "object",
            "description": "One line of an order.",
            "properties": {
                "sku": {"type": "string", "description": "What the shop calls it."},
                "count": {"type": "integer", "minimum": 1, "default": 1, "description": "How many."},
            },
            "required": ["sku"],
        },
    }


@pytest.mark.parametrize(
    ("annotation", "meant"),
    [
        (str | None, {"type": ["string", "null"]}),
        (datetime | None, {"type": ["string", "null"], "format": "date-time"}),
        (Literal["a", "b"] | None, {"type": ["string", "null"], "enum": ["a", "b", None]}),
        (Literal["a"], {"type": "string", "enum": ["a"]}),
        (Colour | None, {"type": ["string", "null"], "enum": ["red", "blue", None]}),
        (list[int] | None, {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]}),
        (int | str | None, {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        (
            int | (Literal[1, "x"] | None),
            {"anyOf": [{"type": "integer"}, {"enum": [1, "x"]}, {"type": "null"}]},
        ),
        (bytes, {"type": "string", "format": "binary"}),
        (Any, {}),
    ],
)
def test_null_and_fixed_values_are_written_on_one_level(annotation: Any, meant: Any):
    assert json_schema(annotation) == meant


def test_a_dataclass_is_described_by_its_docstring_and_keeps_its_defaults():
    assert json_schema(Address) == {
        "type": "object",
        "description": "Where to.",
        "properties": {
            "street": {"type": "string", "description": "With the number."},
            "zip": {"type": ["string", "null"], "default": None},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["street"],
    }


def test_only_true_recursion_keeps_references_and_the_root_is_still_an_object():
    written = json_schema(Node)
    assert written["type"] == "object"
    assert written["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert list(written["$defs"]) == ["Node"]
    assert_valid({"value": 1, "children": [{"value": 2, "children": []}]}, written)
    with pytest.raises(jsonschema.ValidationError):
        assert_valid({"value": 1, "children": [{"value": "x"}]}, written)


def test_a_typed_dict_says_what_may_be_left_out():
    assert json_schema(Point) == {
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        "required": ["x"],
    }


def test_a_discriminated_union_points_nowhere():
    assert "$" not in str(json_schema(Order))
    assert "discriminator" not in str(json_schema(Order))


def test_titles_of_the_user_and_properties_called_title_stay():
    class Book(BaseModel):
        model_config = ConfigDict(title="A book")
        title: str = Field(title="Its name")
        const: int = 1

    assert json_schema(Book)["title"] == "A book"
    assert json_schema(Book)["properties"] == {
        "title": {"type": "string", "title": "Its name"},
        "const": {"type": "integer", "default": 1},
    }


def test_a_docstring_is_read_by_alias_too():
    class Aliased(BaseModel):
        """X.

        Attributes:
            inner: Said of it.
        """

        inner: int = Field(alias="outer")

    assert json_schema(Aliased)["properties"] == {"outer": {"type": "integer", "description": "Said of it."}}


# --- inputs -----------------------------------------------------------------------------------------------------------


class Loose(ExtendedTypedDict):
    x: int


@pytest.mark.parametrize("annotation", [Item, Address, Point, Node, Loose, Annotated[Item, "note"]])
def test_an_object_type_gives_its_own_properties(annotation: Any):
    written, wrapped = input_schema(annotation)
    assert not wrapped
    assert written["type"] == "object"
    assert "input" not in written["properties"]


@pytest.mark.parametrize(
    "annotation",
    [int, list[int], dict[str, int], Cat | Dog, Colour, RootModel[list[int]], Node | None, Item | None, Any],
)
def test_anything_else_is_wrapped_as_input_optional_where_none_is_allowed(annotation: Any):
    written, wrapped = input_schema(annotation)
    assert wrapped
    assert (written["type"], list(written["properties"])) == ("object", ["input"])
    assert ("input" in written.get("required", [])) == (annotation not in (Any, Node | None, Item | None))
    jsonschema.Draft202012Validator.check_schema(written)


def test_references_of_a_wrapped_input_still_lead_somewhere():
    written, _ = input_schema(list[Node])
    assert_valid({"input": [{"value": 1, "children": [{"value": 2}]}]}, written)
    with pytest.raises(jsonschema.ValidationError):
        assert_valid({"input": [{"value": 1, "children": [{"value": "x"}]}]}, written)


def test_a_workflow_without_input_has_no_arguments():
    assert input_schema(type(None)).schema["properties"] == {}
    assert input_schema(None).unwrap({}, "it") is None
    assert input_schema(None).wrap(None) == {}


def test_arguments_go_in_and_come_out():
    assert input_schema(Item).unwrap({"sku": "a"}, "it") == {"sku": "a"}
    assert input_schema(int).unwrap({"input": 3}, "it") == 3
    assert input_schema(Any).unwrap({}, "it") is None
    assert input_schema(Item).wrap({"sku": "a"}) == {"sku": "a"}
    assert input_schema(int).wrap(3) == {"input": 3}
    assert (input_schema(int).path, input_schema(Item).path) == ("input", "")


def test_unknown_arguments_are_refused_naming_the_known_ones():
    with pytest.raises(InvalidInput) as caught:
        input_schema(Item).unwrap({"sku": "a", "cuont": 2}, "arguments of 'order'")
    assert caught.value.faults == [("cuont", "is not an argument; known: sku, count; did you mean 'count'?")]
    with pytest.raises(InvalidInput, match="name: is not an argument; known: input\n  input: is required"):
        input_schema(int).unwrap({"name": 1}, "arguments")


def test_a_model_that_allows_extras_gets_them():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    assert input_schema(Open).unwrap({"a": 1, "b": 2}, "it") == {"a": 1, "b": 2}


# --- outputs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", [Any, None, type(None), object])
def test_an_output_that_promises_nothing_has_no_schema(annotation: Any):
    assert output_schema(annotation) is None


class Receipt(BaseModel):
    paid_at: datetime
    total: Decimal
    scan: bytes = Field(alias="raw")
    colour: Colour
    lines: set[int]
    to: Address | None = None


def test_what_is_written_fits_what_was_promised():
    at = datetime(2026, 1, 2, tzinfo=UTC)
    receipt = Receipt(paid_at=at, total=Decimal("1.10"), raw=b"\xff\xfe", colour=Colour.RED, lines={1}, to=Address("x"))
    written = to_json_value(receipt, Receipt)
    assert written == {
        "paid_at": "2026-01-02T00:00:00Z",
        "total": "1.10",
        "raw": "__4=",
        "colour": "red",
        "lines": [1],
        "to": {"street": "x", "zip": None, "tags": []},
    }
    assert_valid(written, output_schema(Receipt))


@pytest.mark.parametrize(
    ("value", "annotation", "meant"),
    [
        (math.nan, float, None),
        ({"a": math.inf}, Any, {"a": None}),
        (b"\xff", Any, "_w=="),
        ([b"ab"], list[bytes], ["YWI="]),
        ([Item(sku="a")], Any, [{"sku": "a", "count": 1}]),
        ("not a number", int, "not a number"),
        ((1, {2}), Any, [1, [2]]),
    ],
)
def test_values_are_written_as_json(value: Any, annotation: Any, meant: Any):
    assert to_json_value(value, annotation) == meant


def test_values_of_another_type_than_promised_are_still_shown():
    assert to_json_value({"sku": "a"}, Item) == {"sku": "a"}
    assert to_json_value(b"\xff", str) == "_w=="


def test_what_nobody_can_write_becomes_text():
    class Handle:
        def __str__(self) -> str:
            return "handle 7"

    cycle: list[Any] = []
    cycle.append(cycle)
    assert to_json_value({"h": Handle()}) == {"h": "handle 7"}
    assert to_json_value([Handle()], list[Handle]) == ["handle 7"]
    assert isinstance(to_json_value(cycle), str)


# --- docstrings -------------------------------------------------------------------------------------------------------


def test_a_docstring_gives_a_description_and_one_for_each_parameter():
    def flow(ctx: Any, order: Any) -> None:
        """Approve an order.

        It waits for a person.

        Args:
            ctx: The context.
            order: What was bought.
        """

    assert schema.docstring(flow) == (
        "Approve an order.\n\nIt waits for a person.",
        {"ctx": "The context.", "order": "What was bought."},
    )
    assert schema.docstring(lambda: None) == ("", {})


def test_those_who_have_the_same_annotation_share_what_is_built_for_it_and_nothing_else() -> None:
    assert value_type(list[int]) is value_type(list[int])
    assert value_type(Annotated[int, {"not": "hashable"}]).validate("7", "it") == 7
    assert [each["type"] for each in json_schema(int | str)["anyOf"]] == ["integer", "string"]
    assert [each["type"] for each in json_schema(str | int)["anyOf"]] == ["string", "integer"]
    json_schema(list[int])["title"] = "changed by whoever asked for it"
    assert "title" not in json_schema(list[int])
