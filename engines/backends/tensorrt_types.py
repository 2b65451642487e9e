"""
The part of TensorRT's Python package that is used here, as its versions 10 and 11 both have it: so the engine is
type-checked, and can be tested, where the package is not. A test holds every name and signature against the true one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Shape = Sequence[int]


class Member(Protocol):
    """A member of an enumeration."""

    @property
    def name(self) -> str: ...

    def __int__(self) -> int: ...


class IHostMemory(Protocol):
    def __buffer__(self, flags: int, /) -> memoryview: ...


class ITensor(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Shape: ...  # -1 where it varies


class INetworkDefinition(Protocol):
    @property
    def num_inputs(self) -> int: ...

    def get_input(self, index: int) -> ITensor: ...


class IOptimizationProfile(Protocol):
    def set_shape(self, input: str, min: Shape, opt: Shape, max: Shape) -> None: ...


class ITimingCache(Protocol):
    def serialize(self) -> IHostMemory: ...


class IBuilderConfig(Protocol):
    def add_optimization_profile(self, profile: IOptimizationProfile) -> int: ...

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache: ...

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool: ...

    def get_timing_cache(self) -> ITimingCache | None: ...

    def clear_flag(self, flag: Member) -> None: ...


class Builder(Protocol):
    def create_network(self, flags: int) -> INetworkDefinition: ...

    def create_builder_config(self) -> IBuilderConfig: ...

    def create_optimization_profile(self) -> IOptimizationProfile: ...

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None: ...


class OnnxParser(Protocol):
    @property
    def num_errors(self) -> int: ...

    def parse_from_file(self, model: str) -> bool: ...

    def get_error(self, index: int) -> object: ...


class IExecutionContext(Protocol):
    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...

    def get_tensor_shape(self, name: str) -> Shape: ...

    def set_tensor_address(self, name: str, memory: int) -> bool: ...

    def execute_async_v3(self, stream_handle: int) -> bool: ...


class ICudaEngine(Protocol):
    @property
    def num_io_tensors(self) -> int: ...

    def get_tensor_name(self, index: int) -> str: ...

    def get_tensor_mode(self, name: str) -> Member: ...

    def get_tensor_dtype(self, name: str) -> Member: ...

    def get_tensor_shape(self, name: str) -> Shape: ...

    def create_execution_context(self) -> IExecutionContext | None: ...


class Runtime(Protocol):
    def deserialize_cuda_engine(self, serialized_engine: bytes | memoryview) -> ICudaEngine | None: ...


class NetworkDefinitionCreationFlag(Protocol):
    @property
    def STRONGLY_TYPED(self) -> Member: ...


class BuilderFlag(Protocol):
    @property
    def TF32(self) -> Member: ...


class Library(Protocol):
    """The package."""

    def __hash__(self) -> int: ...

    @property
    def __version__(self) -> str: ...

    @property
    def ILogger(self) -> Any: ...  # a class to be derived from: log(severity, msg)

    @property
    def Builder(self) -> Callable[[Any], Builder]: ...

    @property
    def OnnxParser(self) -> Callable[[INetworkDefinition, Any], OnnxParser]: ...

    @property
    def Runtime(self) -> Callable[[Any], Runtime]: ...

    @property
    def NetworkDefinitionCreationFlag(self) -> NetworkDefinitionCreationFlag: ...

    @property
    def BuilderFlag(self) -> BuilderFlag: ...
