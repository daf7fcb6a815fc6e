"""Which stand-ins a rehearsal needs, and how they come into the recipe. They are made in a child process."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deita_train.run.rehearsal.at_hand import Reach
from deita_train.run.rehearsal.rewriting import Rewriter, in_words, variants
from deita_train.run.rehearsal.sites import (
    OF_ORIGIN,
    DataSite,
    ModelSite,
    columns_of,
    data_sites,
    model_sites,
    named_sources,
)

SCORE_FILES = ("scores.complexity", "scores.quality", "embeddings.file")
_TEXT = "no network and no GPU"


@dataclass(frozen=True)
class Request:
    """What a child is to make, as plain data.

    Attributes:
        models: by key, the model's name, commit, place in the recipe and whether it may execute its own code.
        data: by key, the fields of `data/first_rows.WantedRows`.
        tables: by dotted path, the user's tables of scores and embeddings that are cut to the pool's rows.
        pools: keys of the data whose rows the tables belong to.
    """

    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    pools: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether everything is at hand, so that the recipe can be planned as it is."""
        of_hub = all(one["commit"] is not None or Path(one["name"]).exists() for one in self.models.values())
        return of_hub and all(one["reach"] not in ("none", "url") for one in self.data.values())


@dataclass(frozen=True)
class StandIns:
    """What was made, by the keys of the request: for each model and dataset its files and what they are."""

    models: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, Mapping[str, Any]]

    def real_names(self) -> dict[str, str]:
        """By the path of each made file, what it stands for."""
        models = {made[kind]: made["name"] for made in self.models.values() for kind in ("shape", "miniature")}
        rows = {made["file"]: made["name"] for made in (*self.data.values(), *self.tables.values())}
        return {str(path): name for path, name in (models | rows).items() if path is not None}


def request_for(data: Mapping[str, Any], reach: Reach) -> Request:
    """What a recipe's stand-ins are made from; a name that nobody knows is left to the plan, which refuses it."""
    request = Request()
    for variant in variants(data):
        recipe = Rewriter(variant)
        trusted = recipe.at("trust_remote_code") or []
        for site in model_sites(recipe):
            name, revision = recipe.at(site.path), recipe.at(f"{site.section}.revision")
            if reach.of_model(name, revision) != "unknown":
                commit = reach.commit("model", name, revision) if reach.of_model(name, revision) == "hub" else None
                wanted = {"name": name, "commit": commit, "where": site.path, "label": site.label,
                          "trust_code": name in trusted}  # fmt: skip
                request.models.setdefault(model_key(recipe, site), wanted)
        for data_site in data_sites(recipe):
            dataset = recipe.at(f"{data_site.path}.dataset")
            if dataset is not None and reach.of_data(dataset, recipe.at(f"{data_site.path}.revision")) != "unknown":
                key = data_key(recipe, data_site)
                request.data.setdefault(key, _wanted(recipe, data_site, reach))
                if data_site.label == "pool" and key not in request.pools:
                    request.pools.append(key)
        request.tables.update({path: recipe.at(path) for path in SCORE_FILES if isinstance(recipe.at(path), str)})
    return request


def model_key(recipe: Rewriter, site: ModelSite) -> str:
    """By which a model is told from others."""
    return json.dumps([recipe.at(site.path), recipe.at(f"{site.section}.revision")])


def data_key(recipe: Rewriter, site: DataSite) -> str:
    """By which what is read at a place is told from others."""
    section = recipe.at(site.path)
    said = {name: section.get(name) for name in ("dataset", *OF_ORIGIN, "format", "instruction_share", "label")}
    return json.dumps([site.path, said], sort_keys=True)


def _wanted(recipe: Rewriter, site: DataSite, reach: Reach) -> dict[str, Any]:
    section: dict[str, Any] = recipe.at(site.path)
    files = section.get("data_files") or ()
    share = section.get("instruction_share")
    return {
        "label": site.label,
        "role": site.role,
        "dataset": section["dataset"],
        "rows": site.rows,
        "read": {
            "revision": section.get("revision"),
            "split": section.get("split"),
            "config": section.get("name"),
            "data_files": [files] if isinstance(files, str) else list(files),
        },
        "reach": reach.of_data(section["dataset"], section.get("revision")),
        "format": section.get("format"),
        "roles": section.get("roles") or {},
        "instruction_share": share,
        "dimension": site.dimension,
        "ranked": bool(section.get("rank_within_instruction")),
        "needs_ids": site.label == "pool" and any(recipe.has(path) for path in SCORE_FILES),
        "sources": named_sources(recipe) if site.label == "pool" else [],
        "columns": columns_of(recipe) if site.label == "pool" else _label(section),
    }


def _label(section: Mapping[str, Any]) -> dict[str, str]:
    """The column of a scorer's label."""
    return {section["label"]: "number"} if section.get("label") else {}


def put_real(recipe: Rewriter, made: StandIns) -> None:
    """Put stand-ins where nothing is at hand, so that the recipe can be planned at its real size without a network."""
    for site in model_sites(recipe):
        found = made.models.get(model_key(recipe, site))
        if found is not None and found["shape"] is not None:
            _forget_trust(recipe, recipe.at(site.path))
            recipe.put(site.path, found["shape"], _TEXT)
            recipe.drop(f"{site.section}.revision", _TEXT)
    for data_site in data_sites(recipe):
        rows = _rows(recipe, data_site, made)
        if rows is not None and not rows["is_own"]:
            _put_file(recipe, data_site, rows, _TEXT)


def put_small(recipe: Rewriter, made: StandIns) -> None:
    """Put a miniature in the place of every model, and few rows in the place of every dataset."""
    for site in model_sites(recipe):
        found = made.models.get(model_key(recipe, site))
        if found is None:
            continue
        if site.section.startswith("llm."):
            continue  # a server on loopback answers
        _forget_trust(recipe, recipe.at(site.path))
        words = f"a miniature: {found['words']}"
        recipe.drop(f"{site.section}.revision", "the miniature has none")
        if site.field == "sentence_transformer":
            recipe.drop(site.path, "its pooling is not rehearsed")
            recipe.put(f"{site.section}.model", found["miniature"], "in place of the sentence-transformers model",
                       words=words)  # fmt: skip
        else:
            recipe.put(
                site.path, found["miniature"], "a model of this architecture in the memory of a CPU", words=words
            )
    for data_site in data_sites(recipe):
        rows = _rows(recipe, data_site, made)
        if rows is not None:
            _put_file(recipe, data_site, rows, "a minute's work")
    for path, table in made.tables.items():
        if recipe.has(path):
            recipe.put(path, table["file"], "as many rows as the small pool has", words=table["words"])


def _forget_trust(recipe: Rewriter, name: str) -> None:
    """A stand-in executes no code of its own."""
    trusted = recipe.at("trust_remote_code")
    if trusted and name in trusted:
        others = [one for one in trusted if one != name]
        if others:
            recipe.put("trust_remote_code", others, "a stand-in has no code of its own")
        else:
            recipe.drop("trust_remote_code", "a stand-in has no code of its own")


def _rows(recipe: Rewriter, site: DataSite, made: StandIns) -> Mapping[str, Any] | None:
    if recipe.at(f"{site.path}.dataset") is None:
        return None
    return made.data.get(data_key(recipe, site))


def _put_file(recipe: Rewriter, site: DataSite, rows: Mapping[str, Any], reason: str) -> None:
    """A made file in the place of a dataset, with what tells of an origin that the file does not have."""
    section: dict[str, Any] = recipe.at(site.path)
    said = ", ".join(f"{name} {in_words(section[name])}" for name in ("revision", "split", "name") if section.get(name))
    is_stream = bool(section.get("streaming"))
    dataset = f"{section['dataset']}{f' ({said})' if said else ''}"
    before = len(recipe.replacements)
    for name in (*OF_ORIGIN, *(["sample"] if is_stream else [])):
        recipe.drop(f"{site.path}.{name}", reason)
    recipe.put(f"{site.path}.dataset", rows["file"], reason, words=rows["words"])
    # One line for all of it.
    last = recipe.replacements[-1]
    recipe.replacements[before:] = [type(last)(last.path, dataset, last.stand_in, last.reason)]


def as_plain(request: Request) -> dict[str, Any]:
    """A request for another process."""
    return asdict(request)
