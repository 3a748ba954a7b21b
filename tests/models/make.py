"""Export the architectures of architectures.py to ONNX, with what onnxruntime makes of rows.

Needs torch, torchvision, onnx, onnxscript and onnxruntime, which the tests do not: run it in an
environment of its own.

    python tests/models/make.py [--only NAME ...] [--folder FOLDER]

Weights are random with fixed seeds. The statistics of batch norms are set from rows, and the last
layer is scaled so that its outputs have about mean 0 and deviation 1 over them, as those of a trained
network vary. Each architecture is exported by both of PyTorch's exporters: NAME.onnx by the one for
traced modules, NAME.dynamo.onnx by the one for torch.export, and NAME.npz holds the outputs for the rows
that rows.py makes.
"""

import argparse
import io
import os
import sys
import warnings
import zlib

import numpy as np
import onnx
import onnxruntime
import torch
from architectures import ARCHITECTURES
from rows import made_rows
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
# Numbers of an output that are kept, of at least 8 rows.
LARGEST_OUTPUT = 8000


def seeded(name):
    torch.manual_seed(zlib.crc32(name.encode()) & 0xFFFF)
    make, shapes = ARCHITECTURES[name]
    return make(), shapes


def settle(module, inputs):
    """Set statistics of batch norms from rows, and scale the last layer by its outputs."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
    plain = not any(isinstance(part, norms) for part in module.modules())
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)) and (plain or not part.weight.any()):
            nn.init.kaiming_normal_(part.weight)  # for ReLU: values neither vanish nor grow
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.momentum = None  # a plain mean
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
        elif isinstance(part, (nn.Dropout, nn.AlphaDropout)):
            part.p = 0.0
    module.train()
    with torch.no_grad():
        module(*inputs)
    module.eval()
    last = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if not last:
        return
    seen = []
    hook = last[-1].register_forward_hook(lambda _, __, y: seen.append(y))
    with torch.no_grad():
        module(*inputs)
        hook.remove()
        if len(seen) == 1:
            flat = seen[0].reshape(-1, seen[0].shape[-1])
            scale = flat.std(0).clamp_min(1e-3)
            last[-1].weight /= scale[:, None]
            if last[-1].bias is not None:
                last[-1].bias.copy_((last[-1].bias - flat.mean(0)) / scale)


def exported(module, inputs, dynamo):
    names = [f"x{k}" for k in range(len(inputs))] if len(inputs) > 1 else ["x"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            rows = torch.export.Dim("rows")
            program = torch.onnx.export(
                module,
                tuple(inputs),
                input_names=names,
                dynamo=True,
                verbose=False,
                dynamic_shapes=tuple({0: rows} for _ in inputs)
                if len(inputs) > 0 and not hasattr(module, "function")
                else (tuple({0: rows} for _ in inputs),),
            )
            model = program.model_proto
        else:
            file = io.BytesIO()
            torch.onnx.export(
                module,
                tuple(inputs),
                file,
                input_names=names,
                dynamo=False,
                opset_version=17,
                dynamic_axes={name: {0: "rows"} for name in names},
            )
            model = onnx.load_model_from_string(file.getvalue())
    return slim(model)


def slim(model):
    """Drop what is for debugging, and the paths of the machine that are in it."""
    del model.metadata_props[:]
    graph = model.graph
    del graph.value_info[:]
    for thing in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        thing.doc_string = ""
        if hasattr(thing, "metadata_props"):
            del thing.metadata_props[:]
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--folder", default=HERE)
    options = parser.parse_args()
    for name in options.only or ARCHITECTURES:
        module, shapes = seeded(name)
        rows = made_rows(shapes)
        inputs = [torch.from_numpy(x) for x in rows]
        settle(module, inputs)
        judged = None
        for dynamo in (False, True):
            path = os.path.join(options.folder, f"{name}{'.dynamo' if dynamo else ''}.onnx")
            try:
                model = exported(module, [x[:3] for x in inputs], dynamo)
            except Exception as error:
                print(
                    f"{name}, dynamo={dynamo}: {str(error).splitlines()[0][:200]}", file=sys.stderr
                )
                continue
            onnx.save(model, path)
            session = onnxruntime.InferenceSession(path)
            given = {v.name: x for v, x in zip(session.get_inputs(), rows, strict=True)}
            found = session.run(None, given)
            if judged is None:
                judged = found
            for a, b in zip(found, judged, strict=True):
                np.testing.assert_allclose(a, b, atol=1e-3 * max(1, np.abs(b).max()))
            print(f"{path}: {os.path.getsize(path)} bytes", flush=True)
        kept = [y[: max(8, LARGEST_OUTPUT // y[0].size)] for y in judged]
        np.savez_compressed(os.path.join(options.folder, f"{name}.npz"), *kept)


if __name__ == "__main__":
    main()
