"""The networks, as their papers and torchvision have them, batch normalisation folded into the convolutions before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from neural import graph

CLASSES = 1000
IMAGE = (1, 3, 224, 224)


def squeezenet() -> graph.Graph:
    """SqueezeNet 1.1: every window fits its image, so that no framework need pad it other than on all sides alike."""
    net = graph.Builder("squeezenet", IMAGE)
    x = net.max_pool(net.conv(net.input, "conv1", 64, 3, stride=2), "pool1")
    x = _fire(net, _fire(net, x, "fire2", 16, 64), "fire3", 16, 64)
    x = net.max_pool(x, "pool3")
    x = _fire(net, _fire(net, x, "fire4", 32, 128), "fire5", 32, 128)
    x = net.max_pool(x, "pool5")
    x = _fire(net, _fire(net, x, "fire6", 48, 192), "fire7", 48, 192)
    x = _fire(net, _fire(net, x, "fire8", 64, 256), "fire9", 64, 256)
    x = net.conv(x, "conv10", CLASSES, 1)
    return net.graph(net.softmax(net.global_average(x, "pool10"), "output"))


def _fire(net: graph.Builder, x: graph.Value, name: str, squeeze: int, expand: int) -> graph.Value:
    x = net.conv(x, f"{name}_squeeze", squeeze, 1)
    narrow = net.conv(x, f"{name}_expand1", expand, 1)
    wide = net.conv(x, f"{name}_expand3", expand, 3, padding=1)
    return net.concat((narrow, wide), f"{name}_concat")


def mobilenet_v2() -> graph.Graph:
    net = graph.Builder("mobilenet_v2", IMAGE)
    x = net.conv(net.input, "conv1", 32, 3, stride=2, padding=1, activation="relu6")
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (expansion, channels, count, stride) in enumerate(stages, 1):
        for turn in range(count):
            x = _inverted_residual(net, x, f"block{stage}_{turn + 1}", expansion, channels, stride if turn == 0 else 1)
    x = net.conv(x, "conv2", 1280, 1, activation="relu6")
    return _classified(net, x)


def _inverted_residual(net: graph.Builder, x: graph.Value, name: str, expansion: int, channels: int, stride: int) -> graph.Value:
    before = x.shape[1]
    wide = net.conv(x, f"{name}_expand", expansion * before, 1, activation="relu6") if expansion > 1 else x
    groups = wide.shape[1]
    wide = net.conv(wide, f"{name}_depthwise", groups, 3, stride=stride, padding=1, groups=groups, activation="relu6")
    narrow = net.conv(wide, f"{name}_project", channels, 1, activation="")
    return net.add(x, narrow, f"{name}_add") if stride == 1 and before == channels else narrow


def shufflenet() -> graph.Graph:
    """ShuffleNet, the first, with three groups; its shortcuts are averaged over windows that need no padding."""
    net = graph.Builder("shufflenet", IMAGE)
    x = net.conv(net.input, "conv1", 24, 3, stride=2, padding=1)
    x = net.max_pool(x, "pool1", padding=1)
    for stage, (channels, count) in enumerate(((240, 4), (480, 8), (960, 4)), 2):
        for turn in range(count):
            x = _shuffle_unit(net, x, f"stage{stage}_{turn + 1}", channels, groups=3)
    return _classified(net, x)


def _shuffle_unit(net: graph.Builder, x: graph.Value, name: str, channels: int, groups: int) -> graph.Value:
    before = x.shape[1]
    narrowing = before != channels  # the first unit of a stage: half the size, and the shortcut joined, not added
    few = channels // 4
    y = net.conv(x, f"{name}_reduce", few, 1, groups=1 if before < few else groups)
    y = net.shuffle(y, f"{name}_shuffle", groups)
    y = net.conv(y, f"{name}_depthwise", few, 3, stride=2 if narrowing else 1, padding=1, groups=few, activation="")
    if narrowing:
        y = net.conv(y, f"{name}_expand", channels - before, 1, groups=groups, activation="")
        return net.concat((net.average_pool(x, f"{name}_pool"), y), f"{name}_concat", "relu")
    y = net.conv(y, f"{name}_expand", channels, 1, groups=groups, activation="", gain=0.5)
    return net.add(x, y, f"{name}_add", "relu")


def resnet50() -> graph.Graph:
    """ResNet-50, with the stride in the middle convolution of a block, as torchvision has it."""
    net = graph.Builder("resnet50", IMAGE)
    x = net.conv(net.input, "conv1", 64, 7, stride=2, padding=3)
    x = net.max_pool(x, "pool1", padding=1)
    for stage, (channels, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 2):
        for turn in range(count):
            x = _bottleneck(net, x, f"res{stage}_{turn + 1}", channels, stride=2 if stage > 2 and turn == 0 else 1)
    return _classified(net, x)


def _bottleneck(net: graph.Builder, x: graph.Value, name: str, channels: int, stride: int) -> graph.Value:
    y = net.conv(x, f"{name}_reduce", channels, 1)
    y = net.conv(y, f"{name}_conv", channels, 3, stride=stride, padding=1)
    y = net.conv(y, f"{name}_expand", 4 * channels, 1, activation="", gain=0.5)
    if x.shape != y.shape:
        x = net.conv(x, f"{name}_shortcut", 4 * channels, 1, stride=stride, activation="")
    return net.add(x, y, f"{name}_add", "relu")


def _classified(net: graph.Builder, x: graph.Value) -> graph.Graph:
    x = net.dense(net.global_average(x, "pool"), "classes", CLASSES)
    return net.graph(net.softmax(x, "output"))


def transformer() -> graph.Graph:
    """An encoder of four layers and four heads over 64 embeddings of 256, normalised before each branch, and a classifier."""
    net = graph.Builder("transformer", (1, 64, 256))
    x = net.input
    for layer in range(1, 5):
        x = net.add(x, _attention(net, net.layer_norm(x, f"layer{layer}_norm1"), f"layer{layer}", heads=4), f"layer{layer}_add1")
        x = net.add(x, _feed_forward(net, net.layer_norm(x, f"layer{layer}_norm2"), f"layer{layer}"), f"layer{layer}_add2")
    x = net.mean_over_sequence(net.layer_norm(x, "norm"), "mean")
    return net.graph(net.softmax(net.dense(x, "classes", CLASSES, gain=2), "output"))


def _attention(net: graph.Builder, x: graph.Value, name: str, heads: int) -> graph.Value:
    depth = x.shape[2]
    # The division by the root of a head's depth, 8, is in the query's weights.
    query = net.split_heads(net.dense(x, f"{name}_query", depth, gain=0.25), f"{name}_queries", heads)
    key = net.split_heads(net.dense(x, f"{name}_key", depth), f"{name}_keys", heads)
    value = net.split_heads(net.dense(x, f"{name}_value", depth), f"{name}_values", heads)
    attention = net.softmax(net.matmul(query, key, f"{name}_scores", transposed=True), f"{name}_attention")
    mixed = net.join_heads(net.matmul(attention, value, f"{name}_mixed"), f"{name}_heads")
    return net.dense(mixed, f"{name}_output", depth)


def _feed_forward(net: graph.Builder, x: graph.Value, name: str) -> graph.Value:
    depth = x.shape[2]
    wide = net.gelu(net.dense(x, f"{name}_wide", 4 * depth), f"{name}_gelu")
    return net.dense(wide, f"{name}_narrow", depth)


NETWORKS: Mapping[str, Callable[[], graph.Graph]] = {
    "squeezenet": squeezenet,
    "mobilenet_v2": mobilenet_v2,
    "shufflenet": shufflenet,
    "resnet50": resnet50,
    "transformer": transformer,
}
