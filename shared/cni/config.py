"""Configuration keys, each declared once: name, kind, default and a line of help.

    class Config(config.Config):
        mtu: int = field(integer(0, 65535), 0, "MTU of the interface in bytes; 0 leaves it to the kernel")

The parser, error messages, JSON Schema (schema.py) and the tables in the documents use the declarations. Keys match in
any case as in Go; an exact match wins. null means "not set". Unknown keys are ignored.
"""

from __future__ import annotations

from shared.cni.errors import InvalidConfig
from shared.cni.fastjson import dumps
from shared.cni.ip import Address, Prefix
from shared.cni.names import CHAIN_NAME_BYTES, LINK_NAME_BYTES, is_absolute_path, is_chain_name, is_link_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar

    Values = tuple[tuple[str, tuple[Any, ...]], ...]  # names of keys, each with some of its values

SHOWN = 80  # characters of a value in a message


class Kind:
    """A type of value: `parse` converts it, or raises ValueError with the requirement it fails."""

    __slots__ = ("empty_is_unset", "parse", "schema")

    def __init__(self, parse: Callable[[Any], Any], schema: dict[str, Any], *, empty_is_unset: bool = False) -> None:
        self.parse = parse
        self.schema = schema
        self.empty_is_unset = empty_is_unset  # as Go's types read ""


class Field:
    """One declared key."""

    __slots__ = ("default", "help", "kind", "needs", "only_with", "required")

    def __init__(
        self, kind: Kind, default: Any, text: str, *, required: bool, needs: tuple[str, ...], only_with: Values
    ) -> None:
        self.kind = kind
        self.default = default
        self.help = text
        self.required = required
        self.needs = needs
        self.only_with = only_with

    def read(self, name: str, raw: dict[str, Any], folded: dict[str, str]) -> Any:
        """Return the key's value from an object. Raise Invalid if the value is unusable or missing.

        `folded` maps the object's keys in lower case to the keys.
        """
        value = raw.get(name)
        if value is None:
            value = raw.get(folded.get(name.lower(), name))
        if value is None or (value == "" and self.kind.empty_is_unset):
            if self.required:
                raise Invalid(name, None, "is required")
            return self.default
        try:
            return self.kind.parse(value)
        except Invalid as error:
            joint = "" if error.path.startswith("[") else "."
            raise Invalid(f"{name}{joint}{error.path}", error.value, error.reason) from None
        except (ValueError, OverflowError) as error:
            raise Invalid(name, value, str(error)) from None


class Invalid(ValueError):
    """A value, or a value inside it at `path`, is unusable."""

    def __init__(self, path: str, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.value = value
        self.reason = reason


def field(
    kind: Kind, default: Any, text: str, *, required: bool = False, needs: tuple[str, ...] = (), only_with: Values = ()
) -> Any:
    """Declare a key. The type is Any, so that the annotation gives the attribute's type.

    The key has no effect unless one of the keys in `needs` is set, and each key in `only_with` has one of the values
    listed with it. A call ignores a key without effect.
    """
    return Field(kind, default, text, required=required, needs=needs, only_with=only_with)


class Config:
    """An object of the configuration, read from its declared fields."""

    fields: ClassVar[dict[str, Field]] = {}

    def __init_subclass__(cls) -> None:
        inherited = [one for base in reversed(cls.__bases__) for one in getattr(base, "fields", {}).items()]
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        cls.fields = {**own, **dict(inherited), **own}  # a class's own keys come first, in its table too

    def __init__(self, raw: dict[str, Any]) -> None:
        """Raise Invalid, with the path, for the first key with an unusable value."""
        folded = {key.lower(): key for key in raw}
        for name, declared in self.fields.items():
            setattr(self, name, declared.read(name, raw, folded))

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Any:
        """Return the configuration. Raise InvalidConfig naming the key and its value."""
        try:
            return cls(raw)
        except Invalid as error:
            raise invalid(error.path, error.value, error.reason) from None


def invalid(path: str, value: Any, reason: str) -> InvalidConfig:
    """Return the error for a key with an unusable value."""
    what = described(value, reason)
    error = InvalidConfig(f'invalid configuration: "{path}"{" " if value is None else ": "}{what}')
    error.path, error.reason = path, what
    return error


def described(value: Any, reason: str) -> str:
    """Return the value, shortened for reading, and the reason; without a value the reason alone."""
    if value is None:
        return reason
    shown = dumps(value, " ") if isinstance(value, (str, int, float, dict, list)) else dumps(str(value))
    return f"{' '.join(shown.split())[:SHOWN]} {reason}"


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


def _link_name(value: Any) -> str:
    if not is_link_name(_text(value)):
        raise ValueError("must be a link name of 1 to 15 bytes without '/', ':', '%' or white space")
    return str(value)


def _chain_name(value: Any) -> str:
    if not is_chain_name(_text(value)):
        raise ValueError(
            f"must be 1 to {CHAIN_NAME_BYTES} letters, digits, '_', '.' or '-', and begin with a letter or digit"
        )
    return str(value)


def _mac(value: Any) -> str:
    parts = _text(value).replace("-", ":").split(":")
    digits = "".join(parts)
    if len(parts) != 6 or any(len(part) != 2 for part in parts) or not set(digits) <= set("0123456789abcdefABCDEF"):
        raise ValueError("must be a MAC address of six bytes, such as 02:00:00:00:00:01")
    if int(parts[0], 16) & 1 or int(digits, 16) == 0:
        raise ValueError("must be a unicast MAC address")
    return ":".join(parts).lower()


def _address(value: Any) -> Address:
    try:
        return Address.parse(_text(value))
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None


def _prefix(value: Any) -> Prefix:
    try:
        return Prefix.parse(_text(value))
    except ValueError:
        raise ValueError("must be an address in CIDR notation, such as 10.1.0.0/24") from None


def _absolute_path(value: Any) -> str:
    if not is_absolute_path(_text(value)):
        raise ValueError("must be an absolute path of printable characters without '..'")
    return str(value)


boolean = Kind(_boolean, {"type": "boolean"})
text = Kind(_text, {"type": "string"})
obj = Kind(_object, {"type": "object"})
link_name = Kind(_link_name, {"type": "string", "minLength": 1, "maxLength": LINK_NAME_BYTES})
unset_link_name = Kind(_link_name, link_name.schema, empty_is_unset=True)
chain_name = Kind(
    _chain_name,
    {"type": "string", "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", "maxLength": CHAIN_NAME_BYTES},
    empty_is_unset=True,
)
mac = Kind(_mac, {"type": "string", "pattern": "^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$"}, empty_is_unset=True)
address = Kind(_address, {"type": "string", "format": "ip"}, empty_is_unset=True)
prefix = Kind(_prefix, {"type": "string", "format": "cidr"})
absolute_path = Kind(_absolute_path, {"type": "string", "pattern": "^/"}, empty_is_unset=True)


def integer(lowest: int, highest: int) -> Kind:
    """Return the kind of whole numbers between two bounds, both included."""

    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return value

    return Kind(parse, {"type": "integer", "minimum": lowest, "maximum": highest})


def choice(*values: str) -> Kind:
    """Return the kind of texts that are one of these words."""

    def parse(value: Any) -> str:
        if value not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return str(value)

    return Kind(parse, {"enum": list(values)}, empty_is_unset=True)


def either(*kinds: Kind) -> Kind:
    """Return the kind of values that fit one of several kinds; the first that fits parses it."""

    def parse(value: Any) -> Any:
        reasons = []
        for kind in kinds:
            try:
                return kind.parse(value)
            except ValueError as error:
                reasons.append(str(error).removeprefix("must be "))
        raise ValueError(f"must be {' or '.join(reasons)}")

    return Kind(parse, {"anyOf": [kind.schema for kind in kinds]})


def list_of(kind: Kind) -> Kind:
    """Return the kind of lists with elements of one kind."""

    def parse(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        parsed = []
        for position, element in enumerate(value):
            try:
                parsed.append(kind.parse(element))
            except Invalid as error:
                joint = "" if error.path.startswith("[") else "."
                raise Invalid(f"[{position}]{joint}{error.path}", error.value, error.reason) from None
            except ValueError as error:
                raise Invalid(f"[{position}]", element, str(error)) from None
        return parsed

    return Kind(parse, {"type": "array", "items": kind.schema})


def section(config: type[Config]) -> Kind:
    """Return the kind of objects with declared keys of their own."""

    def parse(value: Any) -> Config:
        return config(_object(value))

    return Kind(parse, {"type": "object", "config": config})
