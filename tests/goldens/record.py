"""Records int8 outputs of LiteRT's reference kernels: makes a model of one operator with random constants for each case, runs it
with the resolver BUILTIN_REF, and writes parameters, inputs and outputs as JSON, one case a line.

    pip install ai-edge-litert numpy flatbuffers
    python record.py > litert.jsonl
"""

import json
import sys

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

random = np.random.default_rng(20)
CODES, TYPES, OPTIONS = schema.BuiltinOperator, schema.TensorType, schema.BuiltinOptions
ACTIVATIONS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
PADDINGS = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}
VERSIONS = {CODES.CONV_2D: 3, CODES.DEPTHWISE_CONV_2D: 3, CODES.FULLY_CONNECTED: 4}


def quantised(shape, scale, zero_point, axis=None, dtype=np.int8, data=None):
    """A tensor: float32 scales (several along `axis`), zero point, and data if it is a constant."""
    scales = np.atleast_1d(np.asarray(scale, np.float32))
    return {"shape": list(shape), "scales": scales, "zero_point": zero_point, "axis": axis, "dtype": dtype, "data": data}


def run(code, options_type, options, tensors, inputs, output):
    """Builds and runs a model of one operator; `inputs` are the indices of those tensors that are fed."""
    model = schema.ModelT()
    model.version = 3
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
    operator_code.version = VERSIONS.get(code, 2)
    model.operatorCodes = [operator_code]
    graph = schema.SubGraphT()
    model.buffers = [schema.BufferT()]
    graph.tensors = []
    for index, described in enumerate(tensors + [output]):
        tensor = schema.TensorT()
        tensor.name = f"t{index}"
        tensor.shape = described["shape"]
        tensor.type = TYPES.INT8 if described["dtype"] == np.int8 else TYPES.INT32
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = [float(scale) for scale in described["scales"]]
        tensor.quantization.zeroPoint = [described["zero_point"]] * len(described["scales"])
        tensor.quantization.quantizedDimension = described["axis"] or 0
        tensor.buffer = 0
        if described["data"] is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(described["data"].tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs = list(range(len(tensors)))
    operator.outputs = [len(tensors)]
    operator.builtinOptionsType = options_type
    operator.builtinOptions = options
    graph.inputs, graph.outputs, graph.operators = inputs, operator.outputs, [operator]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = Interpreter(
        model_content=bytes(builder.Output()), experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    fed = []
    for detail in interpreter.get_input_details():
        data = random.integers(-128, 128, detail["shape"], np.int8)
        interpreter.set_tensor(detail["index"], data)
        fed.append(data)
    interpreter.invoke()
    result = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return fed, result


def activation(described, data=None):
    record = {"shape": [int(x) for x in described["shape"]], "scale": float(described["scales"][0])}
    record["zero_point"] = described["zero_point"]
    if data is not None:
        record["data"] = data.flatten().tolist()
    return record


def write(op, inputs, output, data, result, **more):
    output["shape"] = result.shape
    record = {"op": op, "inputs": [activation(t, d) for t, d in zip(inputs, data)], "output": activation(output, result)}
    print(json.dumps(record | more, separators=(",", ":")))


def zero():
    return int(random.integers(-128, 128))


def linear(shape, axis, channels, fan_in):
    """Input, weights, bias and output of a linear operator whose outputs mostly lie within the range."""
    x = quantised(shape, random.uniform(0.01, 0.1), zero())
    scales = random.uniform(0.002, 0.02, channels).astype(np.float32)
    return x, scales, random.uniform(0.7, 1.4) * float(x["scales"][0]) * 0.011 * 74 * 74 * np.sqrt(fan_in) / 60


def constants(x, scales, shape, axis):
    w = quantised(shape, scales, 0, axis, data=random.integers(-127, 128, shape, np.int8))
    bias = random.integers(-2000, 2000, len(scales)).astype(np.int32)
    return w, quantised([len(scales)], x["scales"][0] * scales, 0, 0, np.int32, bias)


def record_linear(op, x, w, bias, y, data, result, **more):
    weights = {"shape": w["shape"], "scales": [float(s) for s in w["scales"]], "data": w["data"].flatten().tolist()}
    write(op, [x], y, data, result, weights=weights, bias=bias["data"].tolist(), **more)


def conv2d(shape, outputs, kernel, stride, dilation, padding, act):
    channels = shape[-1]
    x, scales, out_scale = linear(shape, 0, outputs, kernel[0] * kernel[1] * channels)
    w, bias = constants(x, scales, [outputs, *kernel, channels], 0)
    y = quantised([1], out_scale, zero())
    options = schema.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = PADDINGS[padding], ACTIVATIONS[act]
    options.strideH, options.strideW = stride
    options.dilationHFactor, options.dilationWFactor = dilation
    data, result = run(CODES.CONV_2D, OPTIONS.Conv2DOptions, options, [x, w, bias], [0], y)
    record_linear("conv2d", x, w, bias, y, data, result, kernel=kernel, stride=stride, dilation=dilation, padding=padding, activation=act)


def depthwise_conv2d(shape, factor, kernel, stride, dilation, padding, act):
    outputs = shape[-1] * factor
    x, scales, out_scale = linear(shape, 3, outputs, kernel[0] * kernel[1])
    w, bias = constants(x, scales, [1, *kernel, outputs], 3)
    y = quantised([1], out_scale, zero())
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.fusedActivationFunction, options.depthMultiplier = PADDINGS[padding], ACTIVATIONS[act], factor
    options.strideH, options.strideW = stride
    options.dilationHFactor, options.dilationWFactor = dilation
    data, result = run(CODES.DEPTHWISE_CONV_2D, OPTIONS.DepthwiseConv2DOptions, options, [x, w, bias], [0], y)
    record_linear("depthwise_conv2d", x, w, bias, y, data, result, kernel=kernel, stride=stride, dilation=dilation, padding=padding, activation=act)


def dense(rows, inputs, outputs, act, per_channel):
    x, scales, out_scale = linear([rows, inputs], 0, outputs if per_channel else 1, inputs)
    w = quantised([outputs, inputs], scales, 0, 0, data=random.integers(-127, 128, (outputs, inputs), np.int8))
    bias = random.integers(-2000, 2000, outputs).astype(np.int32)
    bias = quantised([outputs], x["scales"][0] * scales, 0, 0, np.int32, bias)
    y = quantised([1], out_scale, zero())
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = ACTIVATIONS[act]
    data, result = run(CODES.FULLY_CONNECTED, OPTIONS.FullyConnectedOptions, options, [x, w, bias], [0], y)
    record_linear("dense", x, w, bias, y, data, result, activation=act)


def pool2d(op, shape, kernel, stride, padding, act):
    x = quantised(shape, random.uniform(0.01, 0.1), int(random.integers(-40, 40)))
    y = quantised([1], x["scales"], x["zero_point"])
    options = schema.Pool2DOptionsT()
    options.padding, options.fusedActivationFunction = PADDINGS[padding], ACTIVATIONS[act]
    options.strideH, options.strideW = stride
    options.filterHeight, options.filterWidth = kernel
    code = CODES.MAX_POOL_2D if op == "max_pool2d" else CODES.AVERAGE_POOL_2D
    data, result = run(code, OPTIONS.Pool2DOptions, options, [x], [0], y)
    write(op, [x], y, data, result, kernel=kernel, stride=stride, dilation=[1, 1], padding=padding, activation=act)


def add(shape, act):
    a, b, y = (quantised(shape, 10 ** random.uniform(-3, 0), zero()) for _ in range(3))
    options = schema.AddOptionsT()
    options.fusedActivationFunction = ACTIVATIONS[act]
    data, result = run(CODES.ADD, OPTIONS.AddOptions, options, [a, b], [0, 1], y)
    write("add", [a, b], y, data, result, activation=act)


def softmax(shape, beta):
    x = quantised(shape, 10 ** random.uniform(-3, 0), zero())
    y = quantised(shape, 1 / 256, -128)
    options = schema.SoftmaxOptionsT()
    options.beta = beta
    data, result = run(CODES.SOFTMAX, OPTIONS.SoftmaxOptions, options, [x], [0], y)
    write("softmax", [x], y, data, result, beta=beta)


if __name__ == "__main__":
    conv2d([1, 7, 6, 3], 5, [3, 3], [1, 1], [1, 1], "same", "none")
    conv2d([2, 8, 7, 4], 6, [3, 2], [2, 2], [1, 1], "same", "relu")
    conv2d([1, 9, 9, 2], 4, [3, 3], [1, 1], [2, 2], "valid", "relu6")
    conv2d([1, 5, 5, 16], 12, [1, 1], [1, 1], [1, 1], "valid", "none")
    conv2d([1, 6, 5, 16], 8, [1, 1], [2, 2], [1, 1], "same", "relu")
    conv2d([1, 12, 9, 1], 8, [10, 4], [2, 2], [1, 1], "same", "relu")
    conv2d([1, 6, 6, 4], 3, [5, 5], [3, 2], [1, 1], "same", "none")
    depthwise_conv2d([1, 7, 6, 5], 1, [3, 3], [1, 1], [1, 1], "same", "relu")
    depthwise_conv2d([2, 8, 8, 19], 1, [3, 3], [2, 2], [1, 1], "same", "none")
    depthwise_conv2d([1, 8, 7, 3], 2, [3, 2], [2, 2], [1, 1], "valid", "relu6")
    depthwise_conv2d([1, 9, 9, 4], 1, [3, 3], [1, 1], [2, 2], "same", "none")
    depthwise_conv2d([1, 8, 6, 1], 8, [5, 4], [2, 2], [1, 1], "same", "relu")
    for act, per_channel in [("none", False), ("relu", True), ("none", True)]:
        dense(3, 40, 13, act, per_channel)
    for op in ["max_pool2d", "average_pool2d"]:
        pool2d(op, [1, 8, 7, 6], [2, 2], [2, 2], "valid", "none")
        pool2d(op, [2, 7, 7, 18], [3, 3], [2, 2], "same", "relu")
        pool2d(op, [1, 5, 6, 4], [3, 2], [2, 1], "same", "none")
        pool2d(op, [1, 6, 5, 17], [6, 5], [1, 1], "valid", "none")
        pool2d(op, [1, 6, 5, 3], [3, 2], [1, 1], "same", "relu6")
    for act in ["none", "none", "none", "relu", "relu6", "none"]:
        add([1, 5, 5, 16], act)
    for shape in [[1, 12], [3, 10], [1, 2], [4, 100], [2, 3, 33], [1, 1000]]:
        softmax(shape, 1.0)
    print("recorded", file=sys.stderr)
