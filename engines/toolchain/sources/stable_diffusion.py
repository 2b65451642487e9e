"""
What a checkpoint of Stable Diffusion 1 or 2 says of itself, and its parts where they must be converted: a folder as
StableDiffusionPipeline.save_pretrained writes it, or one .safetensors in the layout of the first code (1.x alone).

A single file says nothing but weights. The rest lies in sd15/: configs and tokenizer of Stable Diffusion 1.5. diffusers
converts the weights; nothing is asked of a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from engines.bundle import Diffusion, Prediction, Role, Scheduler, Text
from engines.errors import BundleError
from engines.files import safetensors_header
from engines.networks.faults import LOADER_FAULTS

SD15 = Path(__file__).parent / "sd15"
PARTS: Mapping[Role, str] = {"text_encoder": "text_encoder", "denoiser": "unet", "decoder": "vae", "encoder": "vae"}
PIPELINES = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline")
CLASSES: Mapping[Scheduler, str] = {
    "lcm": "LCMScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
}
# What their configs may say of things that engines/families/sd.py does not do.
USUAL: Mapping[str, Any] = {
    "beta_schedule": "scaled_linear", "trained_betas": None, "thresholding": False,
    "rescale_betas_zero_snr": False, "use_karras_sigmas": False, "use_exponential_sigmas": False,
    "use_beta_sigmas": False, "interpolation_type": "linear", "final_sigmas_type": "zero", "timestep_type": "discrete",
}  # fmt: skip
# One tensor of each part of a single file.
MARKS = {
    "U-Net": "model.diffusion_model.input_blocks.0.0.weight",
    "autoencoder": "first_stage_model.decoder.conv_in.weight",
    "CLIP text model": "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
}


def diffusion(stated: Mapping[str, Any], unet: Mapping[str, Any], wanted: Scheduler | None = None) -> Diffusion:
    """
    Return the schedule by scheduler_config.json and the U-Net's config.json. A scheduler that we have not is replaced
    by DDIM under its constants, as `DDIMScheduler.from_config` would. As StableDiffusionPipeline does, whatever the
    file says: levels are shifted by one and guesses are not clipped. ValueError: it does what none of ours does.
    """
    import diffusers

    by_class: dict[str, Scheduler] = {name: ours for ours, name in CLASSES.items()}
    scheduler = wanted or by_class.get(str(stated.get("_class_name")), "ddim")
    config = getattr(diffusers, CLASSES[scheduler]).from_config(dict(stated)).config
    if odd := [f"{name} = {config[name]}" for name, usual in USUAL.items() if config.get(name, usual) != usual]:
        raise ValueError(f"its scheduler says {odd[0]}, which is not supported")
    if config["prediction_type"] not in get_args(Prediction):
        raise ValueError(f"its network predicts {config['prediction_type']}, which is not supported")
    return Diffusion(
        scheduler=scheduler,
        prediction=config["prediction_type"],
        spacing=config["timestep_spacing"],
        steps_offset=1,
        alpha_to_one=config.get("set_alpha_to_one", True),
        beta_start=config["beta_start"],
        beta_end=config["beta_end"],
        train_steps=config["num_train_timesteps"],
        original_steps=config.get("original_inference_steps", 50),
        boundary_scale=config.get("timestep_scaling", 10.0),
        guidance_embedded=bool(unet.get("time_cond_proj_dim")),
    )


def customs(how: Diffusion, native_px: int) -> dict[str, Any]:
    """Return what an About says where its file says nothing."""
    lcm, tall = how.scheduler == "lcm", native_px * 3 // 2
    return {
        "steps": 8 if lcm else 25,
        "guidance": (7.0 if how.guidance_embedded else 0.0) if lcm else 6.5,
        "template": "{prompt}",
        "sizes": ((native_px, native_px), (native_px, tall), (tall, native_px)),
    }


def text(folder: Path, positions: int) -> Text:
    """
    Return how CLIP's tokenizer in `folder` is used, to as many tokens as the text encoder has positions. OSError,
    ValueError: it is none.
    """
    clip = _tokenizer(folder)
    most = min(clip.model_max_length, positions)
    return Text("tokenizer.json", "", "{prompt}", most, clip.bos_token, clip.eos_token, clip.pad_token)


def write_tokenizer(folder: Path, target: Path) -> None:
    """Write tokenizer.json from vocab.json and merges.txt, or from a tokenizer.json as it is."""
    _tokenizer(folder).backend_tokenizer.save(str(target))


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def check_single(file: Path) -> None:
    """Check that the file is a checkpoint. BundleError: it is no whole one of Stable Diffusion 1."""
    try:
        header = safetensors_header(file)
        lacking = [part for part, name in MARKS.items() if name not in header]
        channels = 0 if "U-Net" in lacking else header[MARKS["U-Net"]].shape[1]
    except LOADER_FAULTS as exc:
        raise BundleError(f"{file.name} cannot be read: {exc}", bundle=file.name) from exc
    if lacking:
        raise BundleError(f"{file.name} has no {lacking[0]} of Stable Diffusion 1", bundle=file.name)
    if channels != 4:
        raise BundleError(f"{file.name} takes {channels} channels: it is no model for drawing", bundle=file.name)


def unpack(file: Path, role: Role, target: Path) -> Path:
    """
    Write one part of a single file to `target`, in diffusers' layout. BundleError: tensors are missing or have other
    shapes.
    """
    try:
        model = _converted(file, role)
        if missing := [name for name, value in model.named_parameters() if value.is_meta]:
            raise ValueError(f"{len(missing)} tensors of its {role} are missing, {missing[0]} for one")
        model.save_pretrained(target)
    except LOADER_FAULTS as exc:
        raise BundleError(f"{file.name}: {exc}", bundle=file.name) from exc
    return target


def _converted(file: Path, role: Role) -> Any:
    import diffusers
    from diffusers.loaders import single_file_utils
    from transformers import CLIPTextModel

    safetensors_header(file)  # what would end or stun the libraries is refused before they read it
    diffusers.utils.logging.set_verbosity_error()
    how = {"config": str(SD15), "subfolder": PARTS[role], "local_files_only": True}
    if role == "text_encoder":
        state = single_file_utils.load_single_file_checkpoint(str(file), local_files_only=True)
        return single_file_utils.create_diffusers_clip_model_from_ldm(CLIPTextModel, checkpoint=state, **how)
    kind = diffusers.UNet2DConditionModel if role == "denoiser" else diffusers.AutoencoderKL
    return kind.from_single_file(str(file), **how)
