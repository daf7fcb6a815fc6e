from fake_run import edit_json

from deita_train.report.results.groups import groups_of
from deita_train.report.results.summary import read_summary
from deita_train.report.sections.all_sections import sections_of


def test_stages_that_were_tried_again_are_named_with_their_number(run, undrawn):
    def notes():
        summary = read_summary(*run)
        return next(section for section in sections_of(summary, groups_of(summary)) if section.title == "Time").notes

    assert notes() == ()
    folder = next(run[1].glob("score*"))
    edit_json(folder / "metrics.json", lambda metrics: metrics.update(retries=2))
    (note,) = notes()
    assert f"({folder.name}) was tried again 2 times after faults that passed" in note
