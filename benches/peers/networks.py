"""Writes the network that the bench describes as a file of TensorFlow Lite or as ONNX in QDQ form.

Takes `network.json` and the numbers beside it in `network.bin`, as `benches/src/peers/describe.rs` writes them: ordinary layers with images
as [n, c, h, w], float, or integer with the scales that Tucano's converter chose. So every runtime executes the same layers and, in int8, the same
integers. Refused: layers and axes that TensorFlow Lite has no counterpart for.
"""

import json
import pathlib

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl

DTYPES = {"f32": np.float32, "i8": np.int8, "i32": np.int32}


class Network:
    """A description with its numbers."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        document = json.loads((folder / "network.json").read_text())
        self.numbers = (folder / "network.bin").read_bytes()
        self.values = document["values"]
        self.nodes = document["nodes"]
        self.inputs = document["inputs"]
        self.outputs = document["outputs"]
        self.int8 = document["int8"]

    def array(self, place):
        """The array at a place of the file of numbers."""
        dtype = DTYPES[place["dtype"]]
        count = int(np.prod(place["shape"], dtype=np.int64))
        found = np.frombuffer(self.numbers, dtype, count, place["offset"])
        return found.reshape(place["shape"])

    def consumers(self, value):
        return [node for node in self.nodes if value in node["inputs"]]


def refuse(node, why):
    raise ValueError(f"node {node['name']} ({node['op']}): {why}")


# --- TensorFlow Lite


def to_nhwc(shape):
    """The shape of a value as TensorFlow Lite keeps it."""
    return [shape[0], shape[2], shape[3], shape[1]] if len(shape) == 4 else list(shape)


class Lite:
    """Builds one TensorFlow Lite model with images as [n, h, w, c]."""

    VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1}

    def __init__(self, network, exact):
        self.network = network
        # Probabilities keep 16 bits, and dense layers are 1x1 convolutions, for TensorFlow Lite's own dense layers with a scale for each
        # output round once, where everything else of it, and Tucano, rounds twice.
        self.exact = exact
        self.buffers = [tfl.BufferT()]
        self.tensors = []
        self.operators = []
        self.codes = []
        self.tensor_of = {}
        # Values that a reshape flattened from images, with the image's channels, height, width: their elements stand in another order.
        self.flattened = {}

    def tensor(self, name, shape, kind, data=None, scale=None, zero_point=None, axis=0):
        tensor = tfl.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, 0
        if data is not None:
            buffer = tfl.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        if scale is not None:
            tensor.quantization = tfl.QuantizationParametersT()
            tensor.quantization.scale = np.atleast_1d(np.asarray(scale, np.float32))
            count = len(tensor.quantization.scale)
            tensor.quantization.zeroPoint = np.full(count, zero_point or 0, np.int64)
            tensor.quantization.quantizedDimension = axis
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def value(self, index):
        """The tensor of a value of the network."""
        if index not in self.tensor_of:
            value = self.network.values[index]
            kind, scale, zero_point = tfl.TensorType.FLOAT32, None, None
            if self.network.int8:
                scale, zero_point, bits = value["scale"], value["zero_point"], value["bits"]
                kind = tfl.TensorType.INT8
                if bits == 16 and not self.exact:
                    # Probabilities: what TensorFlow Lite's own converter gives them.
                    scale, zero_point = 1 / 256, -128
                elif bits == 16:
                    kind = tfl.TensorType.INT16
            self.tensor_of[index] = self.tensor(value["name"], to_nhwc(value["shape"]), kind, None, scale, zero_point)
        return self.tensor_of[index]

    def operator(self, name, inputs, outputs, options_type=None, options=None):
        code = getattr(tfl.BuiltinOperator, name)
        if code not in self.codes:
            self.codes.append(code)
        operator = tfl.OperatorT()
        operator.opcodeIndex = self.codes.index(code)
        operator.inputs, operator.outputs = inputs, outputs
        if options is not None:
            operator.builtinOptionsType = getattr(tfl.BuiltinOptions, options_type)
            operator.builtinOptions = options
        self.operators.append(operator)

    def activation(self, node):
        bounds = (node["low"], node["high"])
        known = {
            (None, None): tfl.ActivationFunctionType.NONE,
            (0.0, None): tfl.ActivationFunctionType.RELU,
            (0.0, 6.0): tfl.ActivationFunctionType.RELU6,
        }
        if bounds not in known:
            refuse(node, f"no fused activation with bounds {bounds}")
        return known[bounds]

    def padding(self, node, kernel, dilations):
        """The input, padded by a step of its own where TensorFlow Lite's two ways do not fit, and which way is left."""
        source = node["inputs"][0]
        shape = self.network.values[source]["shape"]
        tensor = self.value(source)
        top, left, bottom, right = node["pads"]
        if (top, left, bottom, right) == (0, 0, 0, 0):
            return tensor, tfl.Padding.VALID
        same = []
        for extent, size, stride, dilation in zip(shape[2:], kernel, node["strides"], dilations):
            outputs = -(-extent // stride)
            total = max((outputs - 1) * stride + (size - 1) * dilation + 1 - extent, 0)
            same.append((total // 2, total - total // 2))
        if same == [(top, bottom), (left, right)]:
            return tensor, tfl.Padding.SAME
        if node["op"] != "conv":
            refuse(node, "pads that are neither SAME nor VALID")
        pads = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        shape = [shape[0], shape[2] + top + bottom, shape[3] + left + right, shape[1]]
        return self.padded(node, tensor, pads, shape), tfl.Padding.VALID

    def padded(self, node, tensor, pads, shape, output=None):
        amounts = self.tensor(f"{node['name']}/pads", pads.shape, tfl.TensorType.INT32, pads)
        if output is None:
            given = self.tensors[tensor]
            output = self.tensor(f"{node['name']}/padded", shape, given.type)
            self.tensors[output].quantization = given.quantization
        self.operator("PAD", [tensor, amounts], [output], "PadOptions", tfl.PadOptionsT())
        return output

    def constants(self, node, weight, axis):
        """Weight, in its final order, and bias."""
        bias = self.network.array(node["bias"])
        name = node["name"]
        if not self.network.int8:
            kind = tfl.TensorType.FLOAT32
            return [
                self.tensor(f"{name}/weight", weight.shape, kind, weight),
                self.tensor(f"{name}/bias", bias.shape, kind, bias),
            ]
        scales = self.network.array(node["scales"])
        input_scale = np.float32(self.network.values[node["inputs"][0]]["scale"])
        return [
            self.tensor(f"{name}/weight", weight.shape, tfl.TensorType.INT8, weight, scales, 0, axis),
            self.tensor(f"{name}/bias", bias.shape, tfl.TensorType.INT32, bias, input_scale * scales, 0, 0),
        ]

    def conv(self, node):
        weight = self.network.array(node["weight"])
        outputs, inputs, height, width = weight.shape
        tensor, padding = self.padding(node, [height, width], node["dilations"])
        depthwise = node["groups"] > 1 and inputs == 1
        options = tfl.DepthwiseConv2DOptionsT() if depthwise else tfl.Conv2DOptionsT()
        options.padding = padding
        options.strideH, options.strideW = node["strides"]
        options.dilationHFactor, options.dilationWFactor = node["dilations"]
        options.fusedActivationFunction = self.activation(node)
        output = [self.value(node["output"])]
        if depthwise:
            options.depthMultiplier = outputs // node["groups"]
            constants = self.constants(node, weight[:, 0].transpose(1, 2, 0)[None], 3)
            self.operator("DEPTHWISE_CONV_2D", [tensor, *constants], output, "DepthwiseConv2DOptions", options)
        else:
            constants = self.constants(node, weight.transpose(0, 2, 3, 1), 0)
            self.operator("CONV_2D", [tensor, *constants], output, "Conv2DOptions", options)

    def dense(self, node):
        weight = self.network.array(node["weight"])
        image = self.flattened.get(node["inputs"][0])
        if image is not None:
            weight = weight.reshape(len(weight), *image).transpose(0, 2, 3, 1).reshape(weight.shape)
        if self.exact:
            self.dense_as_conv(node, weight)
            return
        options = tfl.FullyConnectedOptionsT()
        options.fusedActivationFunction = self.activation(node)
        inputs = [self.value(node["inputs"][0]), *self.constants(node, weight, 0)]
        self.operator("FULLY_CONNECTED", inputs, [self.value(node["output"])], "FullyConnectedOptions", options)

    def dense_as_conv(self, node, weight):
        source, target = self.value(node["inputs"][0]), self.value(node["output"])

        def image(tensor, name):
            given = self.tensors[tensor]
            made = self.tensor(f"{node['name']}/{name}", [1, 1, *given.shape], given.type)
            self.tensors[made].quantization = given.quantization
            return made

        wide, output = image(source, "wide"), image(target, "image")
        self.reshaped(node, source, wide)
        options = tfl.Conv2DOptionsT()
        options.padding = tfl.Padding.VALID
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = self.activation(node)
        constants = self.constants(node, weight[:, None, None, :], 0)
        self.operator("CONV_2D", [wide, *constants], [output], "Conv2DOptions", options)
        self.reshaped(node, output, target)

    def add(self, node):
        options = tfl.AddOptionsT()
        options.fusedActivationFunction = self.activation(node)
        inputs = [self.value(value) for value in node["inputs"]]
        self.operator("ADD", inputs, [self.value(node["output"])], "AddOptions", options)

    def pool(self, node, name):
        tensor, padding = self.padding(node, node["kernel"], [1, 1])
        options = tfl.Pool2DOptionsT()
        options.padding = padding
        options.strideH, options.strideW = node["strides"]
        options.filterHeight, options.filterWidth = node["kernel"]
        self.operator(name, [tensor], [self.value(node["output"])], "Pool2DOptions", options)

    def max_pool(self, node):
        self.pool(node, "MAX_POOL_2D")

    def average_pool(self, node):
        if any(node["pads"]) and node["count_include_pad"]:
            refuse(node, "padding that counts")
        self.pool(node, "AVERAGE_POOL_2D")

    def mean(self, node):
        shape = self.network.values[node["inputs"][0]]["shape"]
        place = {2: 1, 3: 2, 1: 3} if len(shape) == 4 else {axis: axis for axis in range(len(shape))}
        if len(shape) == 4 and not node["keep_axes"] and sorted(node["axes"]) != [2, 3]:
            refuse(node, "axes of an image that do not end as one row")
        axes = np.array([place[axis] for axis in node["axes"]], np.int32)
        options = tfl.ReducerOptionsT()
        options.keepDims = node["keep_axes"]
        tensor = self.tensor(f"{node['name']}/axes", axes.shape, tfl.TensorType.INT32, axes)
        inputs = [self.value(node["inputs"][0]), tensor]
        self.operator("MEAN", inputs, [self.value(node["output"])], "ReducerOptions", options)

    def reshape(self, node):
        source, output = node["inputs"][0], node["output"]
        before, after = self.network.values[source]["shape"], self.network.values[output]["shape"]
        if len(after) > 2 and before != after:
            refuse(node, "gives no row")
        if len(before) == 4 and before[1] > 1 and before[2] * before[3] > 1:
            if any(reader["op"] != "dense" for reader in self.network.consumers(output)):
                refuse(node, "an image that is flattened for something other than a dense layer")
            self.flattened[output] = before[1:]
        self.reshaped(node, self.value(source), self.value(output))

    def reshaped(self, node, source, output):
        shape = np.array(self.tensors[output].shape, np.int32)
        options = tfl.ReshapeOptionsT()
        options.newShape = shape
        tensor = self.tensor(f"{node['name']}/shape", shape.shape, tfl.TensorType.INT32, shape)
        self.operator("RESHAPE", [source, tensor], [output], "ReshapeOptions", options)

    def pad(self, node):
        if node["value"] != 0.0 or len(node["before"]) != 4:
            refuse(node, "pads something other than zeros around images")
        order = [0, 2, 3, 1]
        pads = np.array([[node["before"][axis], node["after"][axis]] for axis in order], np.int32)
        self.padded(node, self.value(node["inputs"][0]), pads, None, self.value(node["output"]))

    def clamp(self, node):
        names = {tfl.ActivationFunctionType.RELU: "RELU", tfl.ActivationFunctionType.RELU6: "RELU6"}
        name = names.get(self.activation(node))
        if name is None:
            refuse(node, "clamps nothing")
        self.operator(name, [self.value(node["inputs"][0])], [self.value(node["output"])])

    def softmax(self, node):
        if len(self.network.values[node["output"]]["shape"]) != 2:
            refuse(node, "more than one row")
        options = tfl.SoftmaxOptionsT()
        options.beta = 1.0
        output = [self.value(node["output"])]
        self.operator("SOFTMAX", [self.value(node["inputs"][0])], output, "SoftmaxOptions", options)

    def build(self):
        for node in self.network.nodes:
            step = getattr(self, node["op"].replace("-", "_"), None)
            if step is None:
                refuse(node, "no counterpart in TensorFlow Lite")
            step(node)
        graph = tfl.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs = [self.value(value) for value in self.network.inputs]
        graph.outputs = [self.value(value) for value in self.network.outputs]
        model = tfl.ModelT()
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, []
        names = {code: name for name, code in vars(tfl.BuiltinOperator).items() if not name.startswith("_")}
        for code in self.codes:
            entry = tfl.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
            entry.version = self.VERSIONS.get(names[code], 2 if self.network.int8 else 1)
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def lite(folder, exact=False):
    """The network as a TensorFlow Lite file; `exact`: so that portable kernels give Tucano's integers to the bit."""
    return Lite(Network(folder), exact).build()


# --- ONNX


def qdq(folder):
    """The int8 network as ONNX in QDQ form.

    Activations are unsigned, which x86 kernels prefer: the same numbers, 128 higher. The probabilities of a last softmax stay float.
    """
    network = Network(folder)
    nodes, constants, name_of = [], [], {}

    def constant(name, array):
        constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def rounded(index, name):
        """The value through its integers."""
        value = network.values[index]
        if value["bits"] != 8:
            return name
        inputs = [
            constant(f"{name}/scale", np.float32(value["scale"])),
            constant(f"{name}/zero", np.uint8(value["zero_point"] + 128)),
        ]
        node("QuantizeLinear", [name, *inputs], f"{name}/stored")
        return node("DequantizeLinear", [f"{name}/stored", *inputs], f"{name}/real")

    def linear_constants(step):
        weight, bias, scales = (network.array(step[key]) for key in ("weight", "bias", "scales"))
        name = step["name"]
        input_scale = np.float32(network.values[step["inputs"][0]]["scale"])
        found = []
        for kind, array, scale in (("weight", weight, scales), ("bias", bias, input_scale * scales)):
            inputs = [
                constant(f"{name}/{kind}/stored", array),
                constant(f"{name}/{kind}/scale", scale),
                constant(f"{name}/{kind}/zero", np.zeros(len(scale), array.dtype)),
            ]
            found.append(node("DequantizeLinear", inputs, f"{name}/{kind}", axis=0))
        return found

    def activated(step, name):
        if step.get("low") is None and step.get("high") is None:
            return name
        if step["low"] == 0.0 and step["high"] is None:
            return node("Relu", [name], f"{name}/relu")
        bounds = [
            constant(f"{name}/{key}", np.float32(step[key])) if step[key] is not None else ""
            for key in ("low", "high")
        ]
        return node("Clip", [name, *bounds], f"{name}/clip")

    for index in network.inputs:
        name_of[index] = rounded(index, network.values[index]["name"])
    for step in network.nodes:
        inputs = [name_of[value] for value in step["inputs"]]
        raw, op = f"{step['name']}/raw", step["op"]
        if op == "conv":
            node(
                "Conv", [*inputs, *linear_constants(step)], raw, strides=step["strides"], pads=step["pads"],
                dilations=step["dilations"], group=step["groups"],
            )
        elif op == "dense":
            node("Gemm", [*inputs, *linear_constants(step)], raw, transB=1)
        elif op == "add":
            node("Add", inputs, raw)
        elif op == "clamp":
            node("Identity", inputs, raw)
        elif op == "max-pool":
            node("MaxPool", inputs, raw, kernel_shape=step["kernel"], strides=step["strides"], pads=step["pads"])
        elif op == "average-pool":
            node(
                "AveragePool", inputs, raw, kernel_shape=step["kernel"], strides=step["strides"],
                pads=step["pads"], count_include_pad=int(step["count_include_pad"]),
            )
        elif op == "mean":
            axes = constant(f"{raw}/axes", np.array(step["axes"], np.int64))
            node("ReduceMean", [*inputs, axes], raw, keepdims=int(step["keep_axes"]))
        elif op == "reshape":
            shape = network.values[step["output"]]["shape"]
            node("Reshape", [*inputs, constant(f"{raw}/shape", np.array(shape, np.int64))], raw)
        elif op == "pad":
            pads = constant(f"{raw}/pads", np.array(step["before"] + step["after"], np.int64))
            node("Pad", [*inputs, pads, constant(f"{raw}/value", np.float32(step["value"]))], raw)
        elif op == "softmax":
            node("Softmax", inputs, raw, axis=step["axis"])
        else:
            refuse(step, "not written as ONNX")
        name_of[step["output"]] = rounded(step["output"], activated(step, raw))

    def terminal(name, index):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, network.values[index]["shape"])

    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [terminal(network.values[index]["name"], index) for index in network.inputs],
        [terminal(name_of[index], index) for index in network.outputs],
        constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def nothing():
    """A network of one step that does next to nothing, as ONNX: what a call costs."""
    shape = [1, 1]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "nothing",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString()
