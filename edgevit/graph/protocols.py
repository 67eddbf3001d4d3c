"""Nodes and values as far as finding patterns among them asks: onnx-ir's are such, and so are those of a build's log.

A device that builds an engine has no onnx; what TensorRT's parser says of the nodes there is all that can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

NodeT = TypeVar("NodeT", bound="Node[Any]")
ValueT = TypeVar("ValueT", bound="Value[Any]")
_NodeT_co = TypeVar("_NodeT_co", bound="Node[Any]", covariant=True)
_ValueT_co = TypeVar("_ValueT_co", bound="Value[Any]", covariant=True)


class Shape(Protocol):
    """The sizes of the axes; those that are fixed are integers from 0 on."""

    def __len__(self) -> int:
        """Return the number of axes."""

    def __getitem__(self, axis: int, /) -> object:
        """Return the size of ``axis``."""


class Constant(Protocol):
    """A tensor that the file fixes."""

    @property
    def shape(self) -> Shape:
        """The sizes of its axes."""


class Value(Protocol[_NodeT_co]):
    """What nodes take and give."""

    @property
    def name(self) -> str | None:
        """The value's name."""

    @property
    def shape(self) -> Shape | None:
        """The sizes of its axes, if they are known."""

    @property
    def const_value(self) -> Constant | None:
        """The constant that it is, if it is one."""

    def is_graph_input(self) -> bool:
        """Say whether it is given to the model."""

    def producer(self) -> _NodeT_co | None:
        """Return the node that computes it, if one does."""

    def consumers(self) -> Sequence[_NodeT_co]:
        """Return the nodes that take it."""


class Node(Protocol[_ValueT_co]):
    """An operator, with what it takes and gives."""

    @property
    def name(self) -> str | None:
        """The node's name."""

    @property
    def op_type(self) -> str:
        """The operator's name."""

    @property
    def inputs(self) -> Sequence[_ValueT_co | None]:
        """What it takes; None stands for what is left out."""

    @property
    def outputs(self) -> Sequence[_ValueT_co]:
        """What it gives."""
