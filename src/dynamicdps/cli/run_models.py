"""`dynamicdps models`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from dynamicdps.cli.commands import AddModel, ListModels, ShowModel
from dynamicdps.cli.progress import out, say
from dynamicdps.conditional import CONDITIONAL_KINDS, load_conditional
from dynamicdps.json_file import read_json
from dynamicdps.models.added_models import add_model, check_model
from dynamicdps.models.model_file import ModelFile, read_model
from dynamicdps.models.names import KINDS, bundled_folder, known_models, user_folder
from dynamicdps.priors import load_prior
from dynamicdps.priors.layout import load_layout
from dynamicdps.report.facts import CARD, text_of
from dynamicdps.segmentation import load_brain_network


def run_list(_: ListModels) -> None:
    table = Table("name", "kind", "contrast", "degradation", "from")
    for name, path in sorted(known_models().items()):
        try:
            card = read_json(path.with_suffix(".json"))
        except (OSError, ValueError):
            continue
        source = "bundled" if path.parent == bundled_folder() else "added"
        table.add_row(
            *(escape(str(word)) for word in (name, card["kind"], card.get("contrast", "-"), card.get("degradation", "-"), source))
        )
    out.print(table)
    say(f"added models lie in {user_folder()}; show a card: dynamicdps models show NAME")


def run_show(arguments: ShowModel) -> None:
    model = read_model(arguments.name, KINDS)
    rows = [("name", model.name), ("kind", model.card["kind"]), ("file", str(model.path)), *_rows(model)]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        say(f"{label:{width}}  {value}")


def _rows(model: ModelFile) -> list[tuple[str, str]]:
    """All that a card says, with the labels of the report where it has them."""
    known = {"name", "kind", "sha256"}
    rows = [(CARD.get(key, key.replace("_", " ")), text_of(value)) for key, value in model.card.items() if key not in known]
    return [*rows, (CARD["sha256"], str(model.card["sha256"]))]


def run_add(arguments: AddModel) -> None:
    model = check_model(arguments.file, arguments.sha256)
    # That the weights fit the card's network shows only when it is built.
    loaders: dict[str, Callable[[Path], Any]] = {"prior": load_prior, "segmenter": load_brain_network, "layout": load_layout}
    loaders |= dict.fromkeys(CONDITIONAL_KINDS, load_conditional)
    loaders[model.card["kind"]](model.path)
    place = add_model(model)
    say(f"{model.name}: {model.card['kind']}, SHA-256 {model.card['sha256']}\n{place}")
