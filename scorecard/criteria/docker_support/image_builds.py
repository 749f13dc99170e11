"""Does the platform's folder build into an image, the same for the same content?

Why: An image nobody can build again cannot be mended; one whose tag does not tell its content is deployed by luck.
How: The tag that belongs to folder, lock, model and base is computed anew and looked up, and the image is asked for
    again. Its first layers are compared with those of the base in versions.yaml. The last step of the Dockerfile, its
    self-test, is run once more, in a container that can write to /tmp only.
Pass: The deployed image is the one that belongs to this very folder and model; asking again builds nothing; it rests on
    the base of versions.yaml; the self-test ends with 0.
Fix: Deploy again after a change. Take the base by `ARG BASE` and `FROM $BASE`, and let the Dockerfile end with a RUN
    that imports the server and loads the model.
"""

from __future__ import annotations

from exhibit import images
from exhibit.criteria import Finding, judge
from exhibit.targets import Deployment

REQUIRES = ("image",)


def check(deployment: Deployment) -> Finding:
    image = deployment.image
    assert image is not None
    recipe, steps = image.recipe, list[str]()
    found = recipe.find()
    facts = found.facts() if found else None
    again = images.build(recipe.workspace, recipe.name, recipe.context, steps.append) if found else None
    observed = {
        "tag_is_of_this_folder_and_model": recipe.reference == image.reference,
        "image_of_the_tag": "the deployed one" if found and found.id == image.id else "another" if found else "none",
        "steps_of_a_second_build": len(steps) if again else None,
        "base": facts.base if facts else None,
        "rests_on_the_base": bool(facts and facts.on_base),
        "self_test": _self_test(found) if found else "not run",
    }
    expected = {
        "tag_is_of_this_folder_and_model": True,
        "image_of_the_tag": "the deployed one",
        "steps_of_a_second_build": 0,
        "base": recipe.context.base,
        "rests_on_the_base": True,
        "self_test": "exit code 0",
    }
    wrong = [f"{name.replace('_', ' ')}: {value}" for name, value in observed.items() if value != expected[name]]
    size = f"{facts.size_bytes / 1e6:.0f} MB in {facts.layers} layers" if facts else "no size"
    message = f"{image.reference} has {size}, of which the first are those of {observed['base']}"
    return judge(
        not wrong,
        f"{'; '.join([message, *wrong] if wrong else [message, 'asking for it again built nothing'])}.",
        observed={"image": image.reference, **observed},
        expected=expected,
    )


def _self_test(image: images.Image) -> str:
    argv = image.recipe.context.self_test
    if argv is None:
        return "the Dockerfile does not end with one"
    code, said = images.run(image, argv)
    return f"exit code {code}" if code == 0 else f"exit code {code}: {' '.join(said.split())[-200:]}"
