"""Writes small networks for the runner to time: caffe2_nets.py DIRECTORY. Run by an interpreter that has Caffe2."""

from __future__ import annotations

import os
import sys

import numpy as np
from caffe2.proto import caffe2_pb2
from caffe2.python import core
from caffe2.python.utils import NumpyArrayToCaffe2Tensor

IMAGE = (2, 3, 16, 16)


def weights(**shapes):
    net = core.Net("weights")
    for index, (name, shape) in enumerate(shapes.items()):
        values = np.random.RandomState(index).uniform(-1, 1, shape).astype(np.float32)
        net.GivenTensorFill([], [name], shape=shape, values=values)
    return net.Proto()


def small():
    """A convolution and a matrix product; each knows a way of its own."""
    net = core.Net("small")
    net.Conv(["data", "c_w", "c_b"], ["c"], kernel=3, order="NCHW")
    net.Relu(["c"], ["c"])
    net.AveragePool(["c"], ["pooled"], global_pooling=1, order="NCHW")
    net.FC(["pooled", "f_w", "f_b"], ["f"])
    net.Softmax(["f"], ["out/probabilities"])
    net.Proto().external_output.append("out/probabilities")
    return net.Proto(), weights(c_w=(8, 3, 3, 3), c_b=(8,), f_w=(10, 8), f_b=(10,))


def convolution(**arguments):
    """One that an engine may refuse."""
    net = core.Net("convolution")
    net.Conv(["data", "w", "b"], ["out"], order="NCHW", **arguments)
    groups = arguments.get("group", 1)
    return net.Proto(), weights(w=(3, 3 // groups, 1, 1), b=(3,))


def unknown_engine():
    net, init = small()
    for operator in net.op:
        operator.engine = "MKLDNN"
    return net, init


def two_inputs():
    """One of floats, one of bytes, which are also an output."""
    net = core.Net("two")
    net.Cast(["bytes"], ["numbers"], to=core.DataType.FLOAT)
    net.Add(["data", "numbers"], ["sum"])
    net.Proto().external_output.extend(["sum", "numbers"])
    return net.Proto(), weights(unused=(1,))


def single(kind):
    net = core.Net(kind)
    getattr(net, kind)(["data"], ["out"])
    return net.Proto(), weights(unused=(1,))


def nameless():
    """As old networks are: without name and outputs, and its operators are run by several threads."""
    net, init = small()
    net.name = ""
    net.type = "async_scheduling"
    del net.external_output[:]
    return net, init


def no_operator():
    net, init = small()
    net.op[1].type = "NoSuchOperator"
    return net, init


NETS = {
    "small": small,
    "padded": lambda: convolution(kernel=1, pad=1),
    "grouped": lambda: convolution(kernel=1, group=3),
    "unknown_engine": unknown_engine,
    "two": two_inputs,
    "relu": lambda: single("Relu"),
    "gelu": lambda: single("Gelu"),
    "nameless": nameless,
    "no_operator": no_operator,
}


def tensors(*arrays):
    protos = caffe2_pb2.TensorProtos()
    for array in arrays:
        protos.protos.add().CopyFrom(NumpyArrayToCaffe2Tensor(array, "data"))
    return protos


def image(seed):
    return np.random.RandomState(seed).uniform(-1, 1, IMAGE).astype(np.float32)


def main():
    messages = {"one.pb": tensors(image(1)), "three.pb": tensors(image(1), image(2), image(3)), "none.pb": tensors()}
    for name, make in NETS.items():
        messages[f"{name}_predict.pb"], messages[f"{name}_init.pb"] = make()
    for name, message in messages.items():
        with open(os.path.join(sys.argv[1], name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(message.SerializeToString())
    np.save(os.path.join(sys.argv[1], "one.npy"), image(1))  # noqa: PTH118


main()
