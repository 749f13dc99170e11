"""Images of platforms, companions and the webhook: built from folders of this checkout, looked at, run.

An image's tag is a digest of what it is built from (`contexts`): the same content is never built twice (`building`),
and whoever has a folder knows the image that belongs to it. `containers` runs one as a plain ``docker run`` does.
"""

from exhibit.images.building import Facts, Image, ImageError, Recipe, build
from exhibit.images.containers import Container, Process, run, running
from exhibit.images.contexts import Context, companion_context, instructions, platform_context, webhook_context

__all__ = [
    "Container",
    "Context",
    "Facts",
    "Image",
    "ImageError",
    "Process",
    "Recipe",
    "build",
    "companion_context",
    "instructions",
    "platform_context",
    "run",
    "running",
    "webhook_context",
]
