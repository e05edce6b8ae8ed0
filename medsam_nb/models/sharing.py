"""Patches that leave no trace: methods replaced for the time being, and work that several questions share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

Answers = dict[tuple[int, str], object]


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Give an object another attribute for the time being; afterwards it has what it had.

    An attribute of the object itself (a compiled `forward`, say) is put back, not only uncovered.
    """
    own = vars(owner)
    had, before = name in own, own.get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def answering_once(
    module: nn.Module,
    method: str,
    answers: Answers,
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[None]:
    """Let a module's method compute for the first caller only, until `answers` is cleared.

    Whoever asks must know that the inputs are the same; then the answer is, bit for bit.
    """
    compute, key = getattr(module, method), (id(module), method)

    def answer(*inputs, **named_inputs):
        if key not in answers:
            with context():
                answers[key] = compute(*inputs, **named_inputs)
        return answers[key]

    with replaced(module, method, answer):
        yield


@contextmanager
def answering_batches_once(module: nn.Module, method: str, answers: Answers) -> Iterator[None]:
    """Do as `answering_once` where the items of a batch are all the same, in batches of any size.

    The first item is computed, and its answer stands for all.
    """
    compute, key = getattr(module, method), (id(module), method)

    def answer(*inputs, **named_inputs):
        if key not in answers:
            first = {name: _first_item(value) for name, value in named_inputs.items()}
            answers[key] = compute(*_first_item(inputs), **first)
        return _for_batch(answers[key], _batch_size((inputs, named_inputs)))

    with replaced(module, method, answer):
        yield


def _batch_size(value: object) -> int:
    """Return the size of the batch that tensors in a value are of; some may be of one item, for all."""
    if isinstance(value, torch.Tensor):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return next((size for size in map(_batch_size, parts) if size > 1), 1)


def _first_item(value: object) -> object:
    """Return what a module is given of the first item of a batch; a batch of one as it is."""
    if isinstance(value, torch.Tensor):
        return value if len(value) == 1 else value[:1]
    return type(value)(map(_first_item, value)) if isinstance(value, list | tuple) else value


def _for_batch(value: object, size: int) -> object:
    """Return the answer of one item as that of so many."""
    if size == 1:
        return value
    if isinstance(value, torch.Tensor):
        return value.expand(size, *value.shape[1:])
    return type(value)(_for_batch(one, size) for one in value) if isinstance(value, list | tuple) else value
