"""What stands around each figure of the page: title, what to look for, and the technical report's figure it answers."""

from dataclasses import dataclass

from dasd_assets.report.findings import ReportData
from dasd_assets.report.wording import cut_off_direction, sawtooth
from dasd_resources.recipe import Recipe


@dataclass(frozen=True)
class Caption:
    """Of one figure. look: what to look for. answers: the technical report's figure, and what it found."""

    title: str
    look: str
    answers: str


def captions(data: ReportData, recipe: Recipe) -> dict[str, Caption]:
    """Name of a figure -> its caption, in the order of the page."""
    shown = data.response
    which = "No response is selected yet." if shown is None else f"Shown: {shown.name}, below in full."
    gone = ", ".join(name for name in data.trained["name"] if name not in data.losses)
    multiple = f"{recipe.mixed_policy.length_cap:g}"
    return {
        "accuracy": Caption(
            "Accuracy on held-out questions, model by model",
            "Whether each stage stands above the one before it, and how much is left to the teacher. A bar is the mean "
            "over all answers, its whisker one standard error over questions; the table above says which differ.",
            "§7, accuracy after every stage: 47.4 % for the undistilled student on AIME25, then 74.0, 83.0 and 83.3 %.",
        ),
        "response_probabilities": Caption(
            "How probable the teacher finds its own responses",
            "A response's probability is the geometric mean of its tokens'. A higher temperature should lie further to "
            "the left and be wider; each selected set should follow the set it was selected from.",
            "Figure 3 (a high temperature covers more of what the teacher may say) and Figure 10 (selection by "
            "divergence hardly changes the distribution).",
        ),
        "sentence_probabilities": Caption(
            "One response, sentence by sentence",
            f"{which} A green pair is a teacher sentence: probable to the teacher, improbable to the student before "
            "training. Those are what the student has to learn; grey ones it knows.",
            "Figure 5, with the types that can be told before training: shared and boosted sentences are both close.",
        ),
        "teacher_sentences_by_position": Caption(
            "Where in a response the teacher sentences stand",
            "Whether the line of correct responses lies above that of incorrect ones. All questions are pooled here, "
            "and easy ones are among the correct more often: a difference may be the questions'.",
            "Figure 6, where correct answers have more teacher sentences at nearly every position.",
        ),
        "cut_off_rate": Caption(
            "How often the distilled student's own answers are cut off",
            f"Its answers may have {multiple} times the tokens of the teacher's; those that reach that are cut off, "
            f"and the teacher continues them. {cut_off_direction(data.rollouts)}",
            "Figure 7, where the rate grows with the length of the teacher's response.",
        ),
        "training_loss": Caption(
            "Training loss, stage by stage",
            f"Each line should fall and flatten. {sawtooth(recipe)}"
            + (f" Without a line: {gone}, whose files are gone." if gone else ""),
            "Figure 3, where the set of the high temperature has a higher loss, converges more slowly, and ends "
            "better: a low loss is no proof of a good model.",
        ),
    }
