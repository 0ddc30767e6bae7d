"""The models that the scripts for HQQ and AQLM quantize. Works with transformers 4 and 5."""

from common import randomize

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel


class Layers(PreTrainedModel):
    """Linear layers under given names: the config has {name: (N, K, bias)} in `layers`."""

    config_class = PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        for name, (n, k, bias) in config.layers.items():
            *parents, last = name.split(".")
            parent = self
            for part in parents:
                if not hasattr(parent, part):
                    parent.add_module(part, torch.nn.Module())
                parent = getattr(parent, part)
            parent.add_module(last, torch.nn.Linear(k, n, bias=bias))
        self.post_init()

    def _init_weights(self, module):
        pass


def llama(layers, intermediate, seed, **changes):
    """A tiny llama with random weights."""
    sizes = dict(vocab_size=96, hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    sizes |= dict(num_hidden_layers=layers, intermediate_size=intermediate, max_position_embeddings=128)
    ids = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model = LlamaForCausalLM(LlamaConfig(**(sizes | ids | changes)))
    randomize(model, seed)
    return model
