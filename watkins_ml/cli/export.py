"""`watkins export`: a model as a file for recorders in the field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from watkins_ml.cli.arguments import Model

USE = """\
import json, numpy, onnxruntime, soundfile
model = onnxruntime.InferenceSession("{path}")
about = model.get_modelmeta().custom_metadata_map
sound, rate = soundfile.read("recording.wav", dtype="float32")  # mono at {sample_rate} Hz; resample any other before
sound = numpy.resize(sound, {samples})  # the first {seconds:.3g} s, shorter sounds repeated
probabilities, logits, novelty = model.run(None, {{"waveform": sound[None]}})
print(dict(zip(json.loads(about["classes"]), probabilities[0])), "unknown" if novelty[0] > 1 else "")"""

EXAMPLE = "watkins export models:/watkins-efficientnet@champion --to onnx --out champion.onnx"


def export(
    model: Model,
    to: Annotated[Literal["onnx"], typer.Option(help="The format.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="The file; default results/<model>.onnx.")] = None,
) -> None:
    """One ONNX file from waveform to probabilities, for recorders in the field.

    Takes float32 waveforms (batch, samples), mono at the model's sample
    rate and exactly one window long, and gives calibrated probabilities
    and logits, each (batch, species), and novelty (batch,), above 1 for
    what is unlike all that the model was trained on, infinite for silence and for samples that are no numbers. The
    frontend is inside, digital silence at both ends is left away as in predict; resampling
    stays outside. Species, settings and a recipe are in its metadata. It
    is written only if onnxruntime agrees with PyTorch to 0.0001.
    """
    from watkins_ml.core.console import out as console
    from watkins_ml.inference.export import export_model
    from watkins_ml.inference.resolve import file_name

    done = export_model(model, out or Path("results") / f"{file_name(model)}.onnx")
    console.print(
        f"{done.path}: {done.bytes / 1e6:.1f} MB; differs from PyTorch by at most {done.probabilities:.1g} in a "
        f"probability and {done.logits:.1g} in a logit"
    )
    console.print("To use it, with nothing of watkins_ml:", "", sep="\n")
    console.print(*USE.format(**vars(done), seconds=done.samples / done.sample_rate).splitlines(), sep="\n")
