"""``--smooth``, ``--post`` and ``--blend``: text of a command line -> what is done to members' scores."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birdinfer.bundle import Bundle
    from birdinfer.config import PostConfig
    from birdinfer.ensemble import Blend


def with_scoring(bundle: "Bundle", smooth: str | None, post: list[str] | None, blend: str | None) -> "Bundle":
    """The bundle with its members blended, and their rows post-processed, as the command line says."""
    wanted = bundle.manifest.blend if blend is None else parse_blend(blend)
    return bundle.with_scoring(wanted, parse_post(bundle.manifest.post, smooth, post))


def parse_blend(text: str) -> "Blend":
    """``"geometric"``, or ``"gate:by=fold0,threshold=0.2"``.

    Raises:
        ConfigError: there is no such way, or it wants other parameters.
    """
    import msgspec

    from birdinfer.ensemble import Blend
    from birdinfer.errors import ConfigError

    how, _, parameters = text.partition(":")
    pairs = dict(pair.partition("=")[::2] for pair in parameters.split(",") if pair)
    try:
        return msgspec.convert({"how": how, **pairs}, Blend, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(
            "--blend", f"{text!r}: {error}", "write it as mean, or gate:by=MEMBER,threshold=0.2"
        ) from error


def parse_post(own: "PostConfig", smooth: str | None, steps: list[str] | None) -> "PostConfig":
    """What is done to scores: the bundle's own, but for what the command line says otherwise.

    Raises:
        ConfigError: there is no such step, or it does not take such values.
    """
    import msgspec

    from birdinfer.postprocess.steps import parse_steps

    kernel = parse_kernel(smooth) or own.smoothing_kernel
    wanted = own.steps if steps is None else () if steps == ["none"] else parse_steps(steps)
    return msgspec.structs.replace(own, smoothing_kernel=kernel, steps=wanted)


def parse_kernel(text: str | None) -> tuple[float, ...] | None:
    """``"0.2,0.6,0.2"`` -> (0.2, 0.6, 0.2); ``"none"`` -> (1.0,); None stays None.

    Raises:
        ConfigError: it is not a kernel.
    """
    from birdinfer.config import PostConfig
    from birdinfer.errors import ConfigError

    if text is None:
        return None
    if text == "none":
        return (1.0,)
    try:
        return PostConfig(tuple(float(weight) for weight in text.split(","))).smoothing_kernel
    except ValueError as error:
        raise ConfigError("--smooth", f"{text!r}: {error}", "write it as 0.2,0.6,0.2 or none") from error
