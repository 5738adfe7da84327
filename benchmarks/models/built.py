"""A model of ``transformers`` on the meta device, and the shape of its mixture as its modules show it."""

import importlib
import inspect
import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel


@dataclass(frozen=True)
class Truth:
    """What the modules of a built model show."""

    hidden_size: int
    moe_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    n_shared_experts: float
    num_layers: int
    gated: bool
    moe_latent_size: int | None
    zero_expert_num: int


def build(config: Any) -> Any:
    """The model of a config, on the meta device."""
    with torch.device("meta"):
        try:
            return AutoModel.from_config(config)
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
        return _class_of(config)(config)


def _class_of(config: Any) -> Any:
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    classes: list[Any] = [one for _, one in inspect.getmembers(module, inspect.isclass)]
    found = [one for one in classes if issubclass(one, PreTrainedModel) and one.config_class is type(config)]
    if not found:
        raise LookupError(f"no model class for {type(config).__name__}")
    return max(found, key=lambda one: ("PreTrained" not in one.__name__, "For" not in one.__name__, len(one.__name__)))


def truth_of(model: Any) -> Truth | str:
    """What a model's modules show, or why they show no one shape."""
    seen: dict[str, tuple[int, int, int, bool]] = {}
    tied = list(getattr(model, "_tied_weights_keys", None) or {})
    modules = dict(model.named_modules())
    for path, module in modules.items():
        if re.search(r"vision|visual|audio|talker|self_attention|shared_expert", path):
            continue
        if any(re.fullmatch(key, f"{path}.down_proj") for key in tied):
            continue  # a second stack of the same weights
        if (shape := _experts_of(module)) is not None:
            seen[path] = shape
    if not seen:
        return "no layer with experts"
    if len(set(seen.values())) > 1:
        return f"layers of different experts: {sorted(set(seen.values()))}"
    experts, hidden, width, gated = next(iter(seen.values()))
    path = next(iter(seen))
    block = modules[path.rpartition(".")[0]]
    if type(modules[path]).__name__ == "DbrxExpertGLU":
        block = modules[path.rpartition(".")[0].rpartition(".")[0]]
    full = _hidden_size(model)
    return Truth(
        hidden_size=full,
        moe_intermediate_size=width,
        num_experts=experts,
        num_experts_per_tok=_chosen(block, modules[path], model),
        n_shared_experts=_shared(modules, path.rpartition(".")[0]) / width,
        num_layers=len(seen),
        gated=gated,
        moe_latent_size=None if hidden == full else hidden,
        zero_expert_num=_skipped(block, experts),
    )


def _experts_of(module: Any) -> tuple[int, int, int, bool] | None:
    """E, H, I and whether there is a gate, of a module that holds all experts of a layer."""
    own = {key: tuple(value.shape) for key, value in module.named_parameters(recurse=False)}
    if len(own.get("down_proj", ())) == 3:
        up = own.get("gate_up_proj") or own.get("up_proj")
        if up is None:
            return None
        return _sizes(up, own["down_proj"], fused="gate_up_proj" in own)
    children = dict(module.named_children())
    if {"input_linear", "output_linear"} <= set(children):
        if children["input_linear"].weight.dim() != 3:
            return None
        return _sizes(tuple(children["input_linear"].weight.shape), tuple(children["output_linear"].weight.shape), True)
    if singles := [one for key, one in children.items() if re.fullmatch(r"expert_\d+", key)]:
        linears = [one for one in singles[0].children() if isinstance(one, torch.nn.Linear)]
        return len(singles), linears[0].in_features, linears[0].out_features, len(linears) == 3
    if {"w1", "v1", "w2"} <= set(own):  # DBRX: the experts one below the other, w1 the gate and v1 what it gates
        experts = module.moe_num_experts
        return experts, own["w2"][1], own["w2"][0] // experts, True
    return None


def _sizes(up: tuple[int, ...], down: tuple[int, ...], fused: bool) -> tuple[int, int, int, bool]:
    """From [E, 2I, H] and [E, H, I], or both transposed; without a gate [E, I, H]."""
    factor = 2 if fused else 1
    for width, hidden in ((up[1] // factor, up[2]), (up[2] // factor, up[1])):
        if sorted((hidden, width)) == sorted(down[1:]) and factor * width * hidden == up[1] * up[2]:
            return down[0], hidden, width, fused
    raise ValueError(f"weights of shapes {up} and {down}")


def _hidden_size(model: Any) -> int:
    config = model.config.get_text_config()
    return int(config.hidden_size)


def _chosen(block: Any, experts: Any, model: Any) -> int:
    """k, as the router or the block around the experts holds it."""
    for module in (block, *block.modules(), experts):
        for key in ("top_k", "num_experts_per_tok", "topk", "moe_topk", "num_selected_experts"):
            value = getattr(module, key, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        if isinstance(value := getattr(getattr(module, "config", None), "top_k_experts", None), int):
            return value  # Gemma's router reads it from its config as it runs
        if (found := re.search(r"Top(\d)Router", type(module).__name__)) is not None:
            return int(found[1])
    raise ValueError(f"no number of chosen experts in {type(block).__name__}")


def _skipped(block: Any, experts: int) -> int:
    """Choices of the router that lead to no expert."""
    for module in block.modules():
        if isinstance(count := getattr(module, "zero_expert_num", None), int):
            return count
        if isinstance(classes := getattr(module, "num_router_classes", None), int):
            return classes - experts
    return 0


def _shared(modules: dict[str, Any], block: str) -> int:
    """Width of all shared experts of the layer together."""
    around = block.rpartition(".")[0]
    total = 0
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        if parent in (block, around) and re.fullmatch(r"shared_(experts?|mlp)", name):
            own = dict(module.named_parameters(recurse=False))
            if "down_proj" in own:
                total += own["down_proj"].shape[0] * own["down_proj"].shape[2]
            else:
                last = [one for one in module.modules() if isinstance(one, torch.nn.Linear)]
                total += (
                    next(
                        one.in_features
                        for key, one in module.named_modules()
                        if isinstance(one, torch.nn.Linear) and re.search(r"down_proj|output_linear|w2", key)
                    )
                    if last
                    else 0
                )
    return total
