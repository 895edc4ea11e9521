"""Runs one runtime for the bench `peers`: `worker.py litert|onnxruntime|openvino`.

Takes one JSON request a line on standard input, gives one JSON answer a line on standard output:

    {"do": "about"}                                      {"name": ..., "version": ...}
    {"do": "load", "form": "f32" | "int8" | "nothing",
     "folder": FOLDER, "onnx": FILE, "exact": bool}      {"load_us": ..., "first_us": ...}
    {"do": "outputs"}                                    {"outputs": [[number, ...] for each sample]}
    {"do": "time", "calls": N}                           {"ns": time of N inferences}

A folder holds `network.json`, `network.bin` and `inputs.bin` (samples as f32 in ONNX's order of axes). `nothing` is a network of one small step: what a call
costs. `exact` asks for portable kernels whose integers are defined to the bit, and is not timed. A failure is {"error": text}, and the worker goes on.
One thread, batch 1; inputs are in place before the clock starts.
"""

import json
import pathlib
import sys
import time
import traceback

import numpy as np

import networks


def microseconds(start):
    return (time.perf_counter_ns() - start) / 1e3


class Samples:
    """The inputs of a network of one input."""

    def __init__(self, folder):
        document = json.loads((pathlib.Path(folder) / "network.json").read_text())
        shape = document["values"][document["inputs"][0]]["shape"]
        self.all = np.fromfile(pathlib.Path(folder) / "inputs.bin", np.float32).reshape(-1, *shape)


class LiteRT:
    """TensorFlow Lite's interpreter with XNNPACK, timed at its `Invoke`."""

    name = "LiteRT/XNNPACK"

    def __init__(self):
        import ai_edge_litert
        from ai_edge_litert import interpreter

        self.module = interpreter
        self.version = ai_edge_litert.__version__

    def load(self, request):
        exact = request.get("exact", False)
        content = networks.lite(request["folder"], exact)
        kernels = self.module.OpResolverType
        start = time.perf_counter_ns()
        self.interpreter = self.module.Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=kernels.BUILTIN_REF if exact else kernels.AUTO,
        )
        self.interpreter.allocate_tensors()
        loaded = microseconds(start)
        (self.input,) = self.interpreter.get_input_details()
        (self.output,) = self.interpreter.get_output_details()
        self.run = self.interpreter._interpreter.Invoke
        return loaded

    def feed(self, sample):
        stored = sample.transpose(0, 2, 3, 1) if sample.ndim == 4 else sample
        if self.input["dtype"] is not np.float32:
            scale, zero_point = self.input["quantization"]
            # As Tucano: half away from zero, in double precision.
            level = stored.astype(np.float64) / np.float64(np.float32(scale))
            level = np.trunc(level + np.copysign(0.5, level)) + zero_point
            limits = np.iinfo(self.input["dtype"])
            stored = level.clip(limits.min, limits.max).astype(self.input["dtype"])
        self.interpreter.set_tensor(self.input["index"], stored)

    def fetch(self):
        stored = self.interpreter.get_tensor(self.output["index"])
        if stored.dtype != np.float32:
            scale, zero_point = self.output["quantization"]
            stored = (stored.astype(np.float64) - zero_point) * np.float64(np.float32(scale))
        stored = stored.astype(np.float32)
        return stored.transpose(0, 3, 1, 2) if stored.ndim == 4 else stored


def onnx_of(request):
    """The ONNX file's bytes for a request."""
    if request["form"] == "nothing":
        return networks.nothing()
    if request["form"] == "int8":
        return networks.qdq(request["folder"])
    return pathlib.Path(request["onnx"]).read_bytes()


class OnnxRuntime:
    """ONNX Runtime's CPU provider, inputs and outputs bound once."""

    name = "ONNX Runtime"

    def __init__(self):
        import onnxruntime

        self.module = onnxruntime
        self.version = onnxruntime.__version__

    def load(self, request):
        content = onnx_of(request)
        options = self.module.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = self.module.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self.module.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        start = time.perf_counter_ns()
        session = self.module.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        loaded = microseconds(start)
        (given,), (gives,) = session.get_inputs(), session.get_outputs()
        self.input = np.zeros(given.shape, np.float32)
        self.output = np.zeros(gives.shape, np.float32)
        binding = session.io_binding()
        value = self.module.OrtValue.ortvalue_from_numpy
        self.held = value(self.input), value(self.output)
        binding.bind_ortvalue_input(given.name, self.held[0])
        binding.bind_ortvalue_output(gives.name, self.held[1])
        inner, bound = session._sess, binding._iobinding
        self.run = lambda: inner.run_with_iobinding(bound, None)
        return loaded

    def feed(self, sample):
        self.held[0].update_inplace(np.ascontiguousarray(sample))

    def fetch(self):
        return self.held[1].numpy()


class OpenVino:
    """OpenVINO's CPU plug-in, f32 where it would choose bf16."""

    name = "OpenVINO"

    def __init__(self):
        import openvino

        self.module = openvino
        self.version = openvino.__version__
        self.core = openvino.Core()

    def load(self, request):
        content = onnx_of(request)
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        start = time.perf_counter_ns()
        compiled = self.core.compile_model(self.core.read_model(content, b""), "CPU", settings)
        self.request = compiled.create_infer_request()
        loaded = microseconds(start)
        self.input = np.zeros(tuple(compiled.input(0).shape), np.float32)
        self.request.set_input_tensor(self.module.Tensor(self.input, shared_memory=True))
        base = type(self.request).__mro__[1]
        request = self.request
        self.run = lambda: base.infer(request, {}, True, False)
        return loaded

    def feed(self, sample):
        self.input[...] = sample

    def fetch(self):
        return np.array(self.request.get_output_tensor(0).data)


class Worker:
    def __init__(self, runtime):
        self.runtime = runtime

    def about(self, _):
        return {"name": self.runtime.name, "version": self.runtime.version}

    def load(self, request):
        self.samples = Samples(request["folder"]).all
        loaded = self.runtime.load(request)
        self.runtime.feed(self.samples[0])
        start = time.perf_counter_ns()
        self.runtime.run()
        return {"load_us": loaded, "first_us": microseconds(start)}

    def outputs(self, _):
        found = []
        for sample in self.samples:
            self.runtime.feed(sample)
            self.runtime.run()
            found.append(self.runtime.fetch().ravel().astype(float).tolist())
        return {"outputs": found}

    def time(self, request):
        run, calls = self.runtime.run, range(request["calls"])
        start = time.perf_counter_ns()
        for _ in calls:
            run()
        return {"ns": time.perf_counter_ns() - start}


def main():
    runtimes = {"litert": LiteRT, "onnxruntime": OnnxRuntime, "openvino": OpenVino}
    # Libraries may write to standard output; answers go to what it was.
    answers = sys.stdout
    sys.stdout = sys.stderr
    worker = Worker(runtimes[sys.argv[1]]())
    steps = {"about": worker.about, "load": worker.load, "outputs": worker.outputs, "time": worker.time}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = steps[request["do"]](request)
        except Exception as error:  # whatever a runtime throws is the answer
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


main()
