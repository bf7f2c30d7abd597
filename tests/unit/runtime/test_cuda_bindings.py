"""Device memory by cuda-bindings, against a recorder that has only the functions of the real one.

That a GPU does what is asked is not proven here; that the functions exist, are called in a right
order and everything is given back once, is.
"""

from __future__ import annotations

import types

import pytest

from engineworks.errors import EngineworksError

real = pytest.importorskip("cuda.bindings.runtime")

CREATES = {
    "cudaStreamCreateWithFlags": "stream", "cudaEventCreate": "event", "cudaMalloc": "memory",
    "cudaHostAlloc": "host", "cudaStreamEndCapture": "graph", "cudaGraphInstantiate": "runnable",
}  # fmt: skip
FREES = {
    "cudaStreamDestroy": "stream", "cudaEventDestroy": "event", "cudaFree": "memory",
    "cudaFreeHost": "host", "cudaGraphDestroy": "graph", "cudaGraphExecDestroy": "runnable",
}  # fmt: skip


class Recorder(types.SimpleNamespace):
    """`cuda.bindings.runtime` that notes calls; handles are numbers with a kind."""

    def __init__(self):
        super().__init__(calls=[], alive={})

    def __getattr__(self, name):
        found = getattr(real, name)  # AttributeError for what the real one lacks
        if not callable(found) or isinstance(found, type):
            return found

        def call(*arguments):
            self.calls.append((name, arguments))
            if name in CREATES:
                handle = 4096 * (len(self.calls) + 1)
                self.alive[handle] = CREATES[name]
                return (0, handle)
            if name in FREES:
                assert self.alive.pop(arguments[0]) == FREES[name]
            return (0,)

        return call

    @property
    def names(self):
        return [name for name, _ in self.calls]


@pytest.fixture
def cuda(monkeypatch):
    import cuda.bindings

    recorder = Recorder()
    monkeypatch.setattr(cuda.bindings, "runtime", recorder)
    return recorder


@pytest.fixture
def device(cuda):
    from engineworks.runtime.devices.cuda_bindings import CudaDevice

    return CudaDevice(2)


def test_everything_is_given_back_once(cuda, device):
    device.allocate(64)
    device.pinned(64)
    device.capture(lambda: None)
    device.close()
    device.close()
    assert cuda.alive == {}
    assert cuda.calls[0] == ("cudaSetDevice", (2,))


def test_a_graph_is_recorded_once_and_launched_as_often_as_asked(cuda, device):
    cuda.calls.clear()
    device.capture(lambda: device.mark(1))
    device.replay()
    device.replay()
    assert cuda.names == [
        "cudaStreamBeginCapture", "cudaEventRecord", "cudaStreamEndCapture",
        "cudaGraphInstantiate", "cudaGraphDestroy", "cudaGraphLaunch", "cudaGraphLaunch",
    ]  # fmt: skip
    mode = real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert cuda.calls[0][1] == (device._stream, mode)


def test_a_second_graph_frees_the_first(cuda, device):
    device.capture(lambda: None)
    device.capture(lambda: None)
    assert list(cuda.alive.values()).count("runnable") == 1
    assert "graph" not in cuda.alive.values()


def test_work_that_fails_leaves_the_stream_usable_and_the_old_graph(cuda, device):
    device.capture(lambda: None)
    cuda.calls.clear()
    with pytest.raises(RuntimeError, match="no"):
        device.capture(lambda: (_ for _ in ()).throw(RuntimeError("no")))
    assert cuda.names == ["cudaStreamBeginCapture", "cudaStreamEndCapture"]
    device.replay()


def test_what_cannot_be_recorded_is_refused_in_cudas_word(cuda, device):
    class Error:
        name = "cudaErrorStreamCaptureInvalidated"

        def __int__(self):
            return 901

    cuda.cudaStreamEndCapture = lambda stream: (Error(), None)
    with pytest.raises(EngineworksError, match="cudaErrorStreamCaptureInvalidated"):
        device.capture(lambda: None)
