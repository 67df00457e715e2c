"""What switching from one language to another costs: milliseconds of CPU time, and memory held for undoing it.

    python benchmarks/switching.py

Models have random weights in float32 and the shapes of known ones; the neurons of a language are 1,000 spread over all
layers. A switch enters a language's amplification and leaves it again. CPU time of one thread, so that other work on
the machine counts little; the smallest of the repetitions.
"""

from __future__ import annotations

import gc
import time

import numpy as np
import torch
import transformers

from lm_eval_amplify.amplifier import Amplifier
from lm_eval_amplify.intervention import Intervention
from lm_eval_amplify.neurons import LanguageNeurons, Manifest, NeuronFile

NEURONS, REPETITIONS = 1000, 15
SHAPES = {  # hidden_size, intermediate_size, layers
    "83 M (12 x 512 x 2048)": (512, 2048, 12),
    "0.5 B (24 x 896 x 4864)": (896, 4864, 24),
    "1 B (16 x 2048 x 8192)": (2048, 8192, 16),
    "a quarter of 7 B (8 x 4096 x 11008)": (4096, 11008, 8),
}
CONDITIONS = {
    "scale, folded": (Intervention("scale", 2.5), "fold"),
    "scale, hooked": (Intervention("scale", 2.5), "hook"),
    "set": (Intervention("set", 1.0), "hook"),
}
LANGUAGES = ("ind_Latn", "est_Latn")


def build(hidden: int, d_ff: int, layers: int) -> transformers.PreTrainedModel:
    config = transformers.Qwen2Config(
        vocab_size=256,
        hidden_size=hidden,
        intermediate_size=d_ff,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
    )
    with torch.device("meta"):
        model = transformers.Qwen2ForCausalLM(config)
    model.to_empty(device="cpu")
    for block in model.model.layers:
        block.mlp.down_proj.weight.data.normal_()
    return model.eval()


def neurons(d_ff: int, layers: int) -> NeuronFile:
    random = np.random.default_rng(0)
    own = {}
    for language in LANGUAGES:
        chosen = np.sort(random.choice(layers * d_ff, NEURONS, replace=False))
        own[language] = LanguageNeurons(
            (chosen // d_ff).astype(np.int32),
            (chosen % d_ff).astype(np.int32),
            {"max": np.ones(NEURONS, np.float32)},
        )
    manifest = Manifest(num_layers=layers, method="random", package_version="0", languages=LANGUAGES)
    return NeuronFile(manifest, own)


def floats() -> dict[int, int]:
    """Bytes of every floating tensor that Python holds, by its storage."""
    gc.collect()
    tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, torch.nn.Parameter)]
    return {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors if one.is_floating_point()
    }


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'model':<36} {'condition':<14} {'switch, ms':>10} {'held, bytes':>12} {'folded columns':>15}")
    for shape, (hidden, d_ff, layers) in SHAPES.items():
        model, content = build(hidden, d_ff, layers), neurons(d_ff, layers)
        for name, (intervention, mode) in CONDITIONS.items():
            amplifier = Amplifier(model, content, intervention, mode=mode)  # type: ignore[arg-type]
            for language in LANGUAGES:  # what is planned once is planned
                with amplifier.amplified(language):
                    pass
            times = []
            for number in range(REPETITIONS):
                start = time.process_time()
                with amplifier.amplified(LANGUAGES[number % 2]):
                    pass
                times.append(1000 * (time.process_time() - start))
            before = floats()
            with amplifier.amplified(LANGUAGES[0]):
                held = sum(size for place, size in floats().items() if place not in before)
            folded = NEURONS * hidden * 4 if mode == "fold" else 0
            print(f"{shape:<36} {name:<14} {min(times):>10.2f} {held:>12,} {folded:>15,}", flush=True)


if __name__ == "__main__":
    main()
