"""Runs an ONNX model on one thread, with a value from inside its graph as one more output."""

from __future__ import annotations

from typing import Any

from nemo_duplex.inputs import NotInstalled

# Fields of ONNX messages (onnx.proto): ModelProto.graph, GraphProto.output, ValueInfoProto.name.
_GRAPH, _OUTPUT, _NAME = 7, 12, 1
_MESSAGE = 2  # wire type of Protocol Buffers: a length and bytes


def with_output(model: bytes, name: str) -> bytes:
    """A model with the value `name` of its graph as its last output.

    The parser of Protocol Buffers merges messages that follow one another, so a graph that has only this output is appended.
    """
    return model + _field(_GRAPH, _field(_OUTPUT, _field(_NAME, name.encode())))


def session(model: bytes) -> Any:
    """An `onnxruntime.InferenceSession` on one thread of the CPU: there the same inputs give the same outputs.

    Raises:
        NotInstalled: if onnxruntime is missing.
    """
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnxruntime_version() -> str:
    """Another version may round otherwise, and so give other samples. Raises as `session`."""
    return _onnxruntime().__version__


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise NotInstalled("onnxruntime is not installed: pip install onnxruntime") from None
    return onnxruntime


def _field(number: int, content: bytes) -> bytes:
    assert len(content) < 128, "the length is written as one byte"
    return bytes([number << 3 | _MESSAGE, len(content)]) + content
