"""The sections of a recipe that measure each row of the pool: scores, embeddings and perplexity."""

from typing import Literal, Self

from pydantic import model_validator

from deita_train.recipe.data_sections import Count, Section, Share
from deita_train.recipe.model_sections import Pass, Rendered, ScorerTraining


class Scorer(Pass):
    """One scorer: a published model or one that the run trains, and how it passes over the pool [paper 2.3, 2.4]."""

    model: str | None = None
    """A published scorer: a folder or a Hub id. Either this or `train`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Without it, the commit of the first start is kept for the run."""
    train: ScorerTraining | None = None
    """Trains the scorer. Either this or `model`."""
    max_length: Count | None = None
    """Longest prompt in tokens, longer ones are shortened; by default the model's context, and 2,048 at most."""
    parity: bool = False
    """Matches the public code: no prompt is shortened, and one beyond the model's context has no score."""
    max_unscored_share: Share = 0.01
    """Share of turns without a score above which the stage fails."""
    min_digit_mass: Share = 0.1
    """Probability that a scorer must give to the six digits on average; with less, the stage fails."""
    reuse_rows: bool = True
    """Takes over scores that this scorer gave the same turns in another pool of the same runs folder."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.model is None) == (self.train is None):
            raise ValueError("state either model: (a published scorer) or train:, and not both")
        return self

    @model_validator(mode="after")
    def _nothing_to_shorten_to(self) -> Self:
        if self.parity and self.max_length is not None:
            raise ValueError(
                "max_length would have no effect beside parity: true, which shortens nothing; leave it out"
            )
        return self


class Scorers(Section):
    """The two scorers; one may be left out where `select` does not need it."""

    complexity: Scorer | None = None
    """Scores each turn's instruction from 1 to 6 [paper 2.3]."""
    quality: Scorer | None = None
    """Scores each turn's response from 1 to 6 [paper 2.4]."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.complexity is None and self.quality is None:
            raise ValueError("name at least one scorer: complexity: or quality:")
        return self


class ScoreFiles(Section):
    """Scores made elsewhere, in place of `scorers`."""

    complexity: str | None = None
    """A table with the columns `id` and `complexity_scores`, a list with one score for each turn."""
    quality: str | None = None
    """A table with the columns `id` and `quality_scores`, a list with one score for each turn."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.complexity is None and self.quality is None:
            raise ValueError("name a file for at least one dimension: complexity: or quality:")
        return self


class Embedding(Pass, Rendered):
    """The encoder that turns a conversation into a vector [paper 2.5]."""

    model: str | None = None
    """A transformers model: a folder, a Hub id, or `base`. Either this or `sentence_transformer`."""
    sentence_transformer: str | None = None
    """A model of the library sentence-transformers, with its own pooling and prompts: a folder or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Without it, the commit of the first start is kept for the run."""
    max_length: Count | None = None
    """Tokens at which a conversation is cut; by default the model's context, and 2,048 at most."""
    pooling: Literal["last_token", "mean", "weighted_mean"] = "last_token"
    """Last hidden state at the last token, as in the paper, its mean over all tokens, or that mean with later tokens
    weighing more (SGPT, RDS+)."""
    storage: Literal["float32", "float16"] = "float32"
    """Number format of the stored vectors; float16 halves the disk space."""
    center: bool = False
    """Subtracts the pool's mean before similarities are taken; small models need it."""
    whiten: bool = False
    """Divides the principal components of the pool's vectors by their deviations before similarities are taken
    (CRDS)."""
    whiten_dimensions: Count = 512
    """Most components that `whiten` keeps; far fewer than the pool has rows."""
    reuse_rows: bool = True
    """Takes over vectors that the same encoder made of the same rows in another pool of the same runs folder."""
    rows: Literal["walked", "all"] | None = None
    """Which rows are embedded: `all`, or those that the walk of `select.method: deita` looks at. By default `walked`
    where nothing else reads embeddings, and `all` elsewhere (docs/selection.md)."""

    @model_validator(mode="after")
    def _one_encoder(self) -> Self:
        if (self.model is None) == (self.sentence_transformer is None):
            raise ValueError("state either model: (of transformers) or sentence_transformer:, and not both")
        unused = [name for name in (*Rendered.model_fields, "pooling") if name in self.model_fields_set]
        if self.sentence_transformer is not None and unused:
            raise ValueError(f"{', '.join(unused)} would have no effect beside sentence_transformer:; leave it out")
        _check_whitening(self)
        return self


class EmbeddingFile(Section):
    """Embeddings made elsewhere, in place of `embedding`."""

    file: str
    """A table with the columns `id` and `embedding`, a list of numbers."""
    center: bool = False
    """Subtracts the pool's mean before similarities are taken."""
    whiten: bool = False
    """Divides the principal components of the pool's vectors by their deviations before similarities are taken
    (CRDS)."""
    whiten_dimensions: Count = 512
    """Most components that `whiten` keeps; far fewer than the pool has rows."""

    @model_validator(mode="after")
    def _whitened_or_centred(self) -> Self:
        _check_whitening(self)
        return self


class Perplexity(Pass, Rendered):
    """The model under which answers are measured: their perplexity, and IFD, how much the instruction helps."""

    model: str
    """A folder, a Hub id, or `base`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model. Without it, the commit of the first start is kept for the run."""
    max_length: Count | None = None
    """Tokens at which a conversation is cut; by default the model's context, and 2,048 at most."""
    ifd: Literal["perplexities", "losses"] = "perplexities"
    """IFD divides the perplexity by that of the answers alone, as Superfiltering does, or the mean loss, as Cherry."""


def _check_whitening(section: Embedding | EmbeddingFile) -> None:
    """Refuse what would have no effect beside `whiten`, or without it."""
    if section.whiten and section.center:
        raise ValueError("center would have no effect beside whiten: true, which subtracts the mean too; leave it out")
    if not section.whiten and "whiten_dimensions" in section.model_fields_set:
        raise ValueError("whiten_dimensions would have no effect without whiten: true; leave it out")
