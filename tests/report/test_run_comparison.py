"""Runs side by side, from artefacts made here; differences against numpy by hand."""

import datasets
import numpy as np
import pytest

from deita_train.errors import UserError
from deita_train.evaluation.results import Result
from deita_train.report.results.run_comparison import ComparedRun
from deita_train.report.results.summary import Artefact
from deita_train.report.run_page import comparison_tables, read_runs, write_comparison

MINUS = "\N{MINUS SIGN}"


@pytest.fixture
def artefact(tmp_path):
    """Writes an artefact with a table."""
    made = []

    def write(rows, parents=None, config=None, **metrics):
        folder = tmp_path / str(len(made))
        made.append(folder)
        datasets.Dataset.from_list(rows).save_to_disk(str(folder / "data"))
        manifest = {"id": folder.name, "config": config or {}, "parents": parents or {}, "content_digest": str(rows)}
        return Artefact(folder, manifest, metrics)

    return write


def losses(artefact, sums, tokens):
    return artefact(
        [{"id": f"r{n}", "loss": s, "tokens": t} for n, (s, t) in enumerate(zip(sums, tokens, strict=True))]
    )


def tasks(artefact, scores, digest, shots=0, **config):
    result = Result(float(np.mean(scores)), 0.1, 0.9, len(scores), "share").as_metric()
    rows = [{"id": f"arc/{n}", "task": "arc", "score": float(score)} for n, score in enumerate(scores)]
    facts = {"arc": {"digest": digest, "shots": shots, "version": "1"}}
    config = {"harness": "0.4.13", "chat_template": None, "seed": 1, **config}
    return artefact(rows, config=config, title="Tasks", results={"arc": result}, tasks=facts)


def judged(artefact, scores, first=0, model="m", text="Why?", answers=None, **parents):
    """The stages of a model whose answers are judged."""
    result = Result(float(np.mean(scores)), None, None, len(scores), "score").as_metric()
    rows = [
        {"id": f"q{n}/1", "question_id": f"q{n}", "score": float(score)} for n, score in enumerate(scores, start=first)
    ]
    questions = artefact([{"id": row["question_id"], "turns": [text]} for row in rows])
    settings = {"max_new_tokens": 64, "temperature": 0.0, "chat_template": text, **(answers or {})}
    given = artefact([{"id": "q", "answer": str(scores)}], {"questions": questions.id}, settings)
    parents = {"questions": questions.id, "answers": given.id, **parents}
    config, figures = {"model": model, "answers_of": "x"}, {"overall": result}
    return {
        "questions.mt_bench": questions,
        "generate.mt_bench.sft": given,
        "mt_bench.sft": artefact(rows, parents, config, title="MT-Bench", results=figures),
    }


def of(*runs):
    return comparison_tables([ComparedRun("AB"[place], stages) for place, stages in enumerate(runs)])


def test_the_loss_per_token_is_paired_row_by_row_with_tokens_as_weights(artefact):
    random = np.random.default_rng(4)
    tokens = random.integers(1, 40, 50)
    first, second = tokens * 2.0, tokens * random.normal(1.5, 0.1, 50)
    tables, sentences = of(
        {"evaluate.base": losses(artefact, [1.0], [1]), "evaluate.sft": losses(artefact, first, tokens.tolist())},
        {"evaluate.dpo": losses(artefact, second, tokens.tolist())},
    )
    figures, differences = tables
    assert figures.titles == ("figure", "A (SFT)", "B (DPO)", "questions")
    assert figures.rows[0][:2] == ("loss per token (lower is better)", "2.000 (2.000 to 2.000)")
    ((title, runs, text, questions, interval),) = differences.rows
    mean = float((second - first).sum() / tokens.sum())
    assert (title, runs) == ("Held-out rows", f"B (DPO) {MINUS} A (SFT)")
    assert text.startswith(f"{MINUS}{-mean:.4f}") and (questions, interval) == ("50", "excludes zero")
    assert sentences == []


def test_preference_accuracy_is_over_pairs_with_tokens_of_both(artefact):
    def pairs(margins):
        return artefact([
            {"id": f"p{n}", "chosen_log_prob": m, "rejected_log_prob": 0.0, "chosen_tokens": min(n, 1),
             "rejected_tokens": 2}
            for n, m in enumerate(margins)
        ])  # fmt: skip

    tables, sentences = of(
        {"evaluate_pairs.sft": pairs([1.0, 1.0, -1.0, 1.0, -1.0])},
        {"evaluate_pairs.sft": pairs([1.0, 1.0, 1.0, -1.0, -1.0])},
    )
    assert tables[0].rows[0][1:3] == ("50.0% (0.0 to 100.0)", "50.0% (0.0 to 100.0)")
    assert tables[1].rows[0][2].startswith("0.0 (") and tables[1].rows[0][3:] == ("4", "holds zero")
    assert sentences == [
        "Held-out pairs: the interval holds zero: these questions do not tell B (SFT) and A (SFT) apart."
    ]


def test_rows_with_other_tokens_are_not_paired(artefact):
    tables, sentences = of(
        {"evaluate.sft": losses(artefact, [2.0, 3.0], [1, 2])}, {"evaluate.sft": losses(artefact, [2.0, 3.0], [1, 3])}
    )
    assert len(tables) == 1
    assert sentences == ["Held-out rows: B (SFT) and A (SFT) are not paired: 1 of 2 rows have other numbers of tokens."]


def test_tasks_are_paired_by_the_digest_of_their_questions(artefact):
    first = {"lm_eval.sft": tasks(artefact, [0, 0, 0, 0], "d")}
    tables, sentences = of(first, {"lm_eval.sft": tasks(artefact, [1, 1, 1, 1], "d")})
    assert tables[1].rows == (
        ("Tasks: arc", f"B (SFT) {MINUS} A (SFT)", "+100.0 (100.0 to 100.0)", "4", "excludes zero"),
    )
    assert not sentences
    tables, sentences = of(first, {"lm_eval.sft": tasks(artefact, [1, 1, 1, 1], "e")})
    assert len(tables) == 1
    assert sentences == ["Tasks: arc: B (SFT) and A (SFT) are not paired: the questions differ."]


@pytest.mark.parametrize(
    ("shots", "config", "refusal"),
    [
        (0, {"chat_template": "t"}, "only one was asked through a chat template"),
        (0, {"harness": "0.4.14"}, "the versions of the harness differ"),
        (0, {"seed": 2}, None),
        (5, {"seed": 2}, "the examples are drawn by other seeds"),
    ],
)
def test_tasks_are_paired_only_if_they_were_asked_in_the_same_way(artefact, shots, config, refusal):
    first, other = tasks(artefact, [0, 0], "d", shots), tasks(artefact, [1, 1], "d", shots, **config)
    tables, sentences = of({"lm_eval.sft": first}, {"lm_eval.sft": other})
    if refusal is None:
        assert len(tables) == 2 and not sentences
    else:
        assert len(tables) == 1 and sentences == [f"Tasks: B (SFT) and A (SFT) are not paired: {refusal}."]


def test_two_templates_are_two_models_and_no_other_questions(artefact):
    first, other = (tasks(artefact, [0, 1], "d", chat_template=template) for template in ("t", "u"))
    tables, _ = of({"lm_eval.sft": first}, {"lm_eval.sft": other})
    assert len(tables) == 2


@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        ({"first": 1}, "the questions differ (1 only of the one, 1 only of the other)"),
        ({"model": "n"}, "they are judged otherwise (model)"),
        ({"baseline": "b"}, "they are compared with other answers"),
        ({"text": "Who?"}, "the questions differ under the same names"),
        ({"answers": {"max_new_tokens": 65}}, "they were answered otherwise (max_new_tokens)"),
        ({"answers": {"temperature": 0.7}}, "they were answered otherwise (temperature)"),
    ],
)
def test_judged_answers_are_paired_by_questions_and_judge(artefact, more, refusal):
    first = judged(artefact, [4, 5])
    tables, sentences = of(first, judged(artefact, [6, 7], answers={"chat_template": "t", "seed": 2}))
    assert tables[1].rows[0][2] == "+2.00 (2.00 to 2.00)" and not sentences
    tables, sentences = of(first, judged(artefact, [6, 7], **more))
    assert len(tables) == 1 and sentences == [f"MT-Bench: B (SFT) and A (SFT) are not paired: {refusal}."]


def test_a_run_without_a_benchmark_has_a_dash(artefact):
    tables, sentences = of(judged(artefact, [4, 5]), {})
    assert tables[0].rows == (("overall", "4.50", "\N{EN DASH}", "2"),) and len(tables) == 1 and not sentences
    with pytest.raises(UserError, match="A, B: no run has measured a model"):
        of({}, {})


def test_the_page_lies_beside_the_runs_own_report(artefact, tmp_path):
    tables, sentences = of(*(judged(artefact, scores) for scores in ([4, 6], [5, 5])))
    folders = [tmp_path / "runs" / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir(parents=True)
    page = write_comparison(folders[:2], tables, sentences)
    assert page.parent == folders[0] / "compared" and page.name.startswith("two-")
    text = page.read_text()
    assert text.startswith("# one \\| two\n") and "**MT-Bench**" in text and "holds zero" in text
    assert write_comparison(folders[:2], tables, sentences) == page
    assert write_comparison([folders[0], folders[2]], tables, sentences) != page
    assert [path.name for path in folders[0].iterdir()] == ["compared"]


def test_a_run_named_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="is named twice"):
        read_runs([(tmp_path, tmp_path), (tmp_path / "x" / "..", tmp_path)])
