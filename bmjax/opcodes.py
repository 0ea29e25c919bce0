"""A pickle's containers, numbers, strings and known objects, without running it.

A machine of ours over `pickletools.genops`, which only splits bytes into opcodes. It
imports nothing and calls nothing but the builders that it is given: any other global,
and whatever is made of it, becomes an `Inert` that remembers its name.
"""

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_PUSH = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PLAIN = (str, bytes, int, float, bool, type(None))
_FAULTS = (
    *(ValueError, TypeError, IndexError, KeyError, AttributeError),
    *(OverflowError, RecursionError, struct.error),
)


@dataclass(eq=False)
class Inert:
    """What stands for an object that only its own library could build.

    Attributes:
      name: module and name of the global.
      args: what it would have been called with.
      state: what it would have been filled with.
    """

    name: str
    args: Any = ()
    state: Any = None

    def __repr__(self) -> str:
        return f"<{self.name}, not built>"


@dataclass(frozen=True)
class Builder:
    """What is made of a known global when the pickle calls it.

    Attributes:
      make: function of the arguments.
      fill: function of the object and its state, returning the object filled; None
        ignores the state.
    """

    make: Callable[..., Any]
    fill: Callable[[Any, Any], Any] | None = None


@dataclass
class _Machine:
    builders: Mapping[str, Builder]
    resolve: Callable[[Any], Any]
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    fills: dict[int, tuple[Any, Builder]] = field(default_factory=dict)

    def run(self, data: bytes) -> Any:
        for opcode, arg, _ in pickletools.genops(data):
            name = opcode.name
            if name in _PUSH:
                self.stack.append(arg)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name == "STOP":
                break
            elif name not in ("PROTO", "FRAME"):
                self._step(name, arg)
        return self.stack.pop()

    def _step(self, name: str, arg: Any) -> None:
        stack = self.stack
        match name:
            case "MARK":
                self.marks.append(len(stack))
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "LIST" | "FROZENSET":
                stack.append(self._since_mark())
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._last(int(name[-1]))))
            case "DICT":
                stack.append(_paired(self._since_mark()))
            case "APPEND":
                self._extend(self._last(1))
            case "APPENDS" | "ADDITEMS":
                self._extend(self._since_mark())
            case "SETITEM":
                self._update(self._last(2))
            case "SETITEMS":
                self._update(self._since_mark())
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[int(arg)])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[int(arg)] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case _:
                self._object(name, arg)

    def _object(self, name: str, arg: Any) -> None:
        stack = self.stack
        match name:
            case "GLOBAL":
                stack.append(Inert(arg.replace(" ", ".")))
            case "STACK_GLOBAL":
                module, attribute = self._last(2)
                stack.append(Inert(f"{module}.{attribute}"))
            case "REDUCE" | "NEWOBJ":
                called, args = self._last(2)
                stack.append(self._make(called, args))
            case "NEWOBJ_EX":
                called, args, named = self._last(3)
                stack.append(self._make(called, (*args, named)))
            case "INST":
                called = Inert(arg.replace(" ", "."))
                stack.append(self._make(called, tuple(self._since_mark())))
            case "OBJ":
                called, *args = self._since_mark()
                stack.append(self._make(called, tuple(args)))
            case "BUILD":
                made, state = self._last(2)
                stack.append(self._fill(made, state))
            case "BINPERSID":
                stack.append(self.resolve(stack.pop()))
            case _:
                raise ValueError(f"opcode {name} is not used by torch")

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _last(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("the stack is empty")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_paired(items))

    def _make(self, called: Any, args: Any) -> Any:
        name = called.name if isinstance(called, Inert) else type(called).__name__
        builder = self.builders.get(name)
        if builder is None or not isinstance(called, Inert):
            return Inert(name, args)
        made = builder.make(*args)
        if builder.fill is not None:
            self.fills[id(made)] = made, builder
        return made

    def _fill(self, made: Any, state: Any) -> Any:
        if isinstance(made, Inert):
            made.state = state
        known = self.fills.get(id(made))
        if known is None or known[1].fill is None:
            return made
        filled = known[1].fill(made, state)
        for place in reversed(self.memo):
            if self.memo[place] is made:
                self.memo[place] = filled
                break
        return filled


def _paired(items: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn, as a dict; keys that are no plain values are dropped."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, _PLAIN)}


def read_pickle(
    data: bytes,
    *,
    builders: Mapping[str, Builder],
    resolve: Callable[[Any], Any],
) -> Any:
    """The value that a pickle describes; sets come as lists.

    Args:
      data: the pickle.
      builders: what to make of known globals, by `module.name`.
      resolve: what to make of a persistent id.

    Raises:
      ValueError: the bytes are no pickle of this kind.
    """
    try:
        return _Machine(builders, resolve).run(data)
    except _FAULTS as error:
        raise ValueError(f"damaged pickle: {error}") from error
