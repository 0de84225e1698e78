"""Every flag there is, as data: when it is raised, what it means, and what to do. docs/flags.md is made from this.

Sources: Carlini et al. 2019 ("On Evaluating Adversarial Robustness"), Athalye et al. 2018 ("Obfuscated Gradients"),
Tramèr et al. 2020 ("On Adaptive Attacks"), Croce & Hein's checks of AutoAttack.
"""

from __future__ import annotations

from dataclasses import dataclass

from robustdml.results import Flag, Grade

#: What each grade says, the gravest first.
GRADES: dict[Grade, str] = {
    "invalid": "no robust recall can be read off this run for the model: its headline number is withheld",
    "grave": "the number is likely to be wrong or to mislead",
    "note": "a limit of the run that a reader should know",
}


@dataclass(frozen=True)
class FlagKind:
    """A kind of flag.

    Args:
        slug: its name in results.
        grade: see `GRADES`.
        title: for headings.
        condition: when it is raised, as half a sentence.
        explanation: why that matters.
        remedy: what to do, where the flag itself does not say something more exact.
    """

    slug: str
    grade: Grade
    title: str
    condition: str
    explanation: str
    remedy: str

    def flag(
        self, message: str, *, remedy: str | None = None, model: str | None = None, attack: str | None = None
    ) -> Flag:
        """One of this kind."""
        return Flag(
            slug=self.slug,
            grade=self.grade,
            title=self.title,
            message=message,
            remedy=self.remedy if remedy is None else remedy,
            model=model,
            attack=attack,
        )


_ALL: tuple[FlagKind, ...] = (
    # Of the model, before any attack.
    FlagKind(
        "stochastic",
        "invalid",
        "The model draws at random",
        "two calls with the same images give different embeddings, and equal ones where the random seed is equal",
        "Each attack is judged by one draw, so the worst of many attacks is also the worst of many draws: a recall "
        "that falls with every draw, whatever the model resists; a gradient through one draw need not help.",
        "Fix what is drawn (dropout off, a fixed seed or a mean of draws inside the model), or attack with an "
        "expectation over transformation, such as --attacks 'mi(samples=16)', and quote that attack's own row.",
    ),
    FlagKind(
        "hidden-state",
        "invalid",
        "The model changes as it is called",
        "embeddings of the same images change from call to call though the random seed is equal, or buffers change in "
        "evaluation mode",
        "What is judged is another model than the one that was attacked.",
        "Freeze the state (counters, running statistics, caches) in evaluation mode.",
    ),
    FlagKind(
        "batch-dependent",
        "invalid",
        "The embedding depends on the rest of the batch",
        "an image alone has another embedding than the same image in a batch",
        "A query is deployed alone, and it was attacked among others: neither number is that of the deployed model.",
        "Use statistics fixed in training (BatchNorm in evaluation mode, no normalisation over the batch).",
    ),
    FlagKind(
        "gradient-branch",
        "invalid",
        "The model answers differently when a gradient is asked for",
        "the embedding with gradients enabled is another than without",
        "Attacks climb one function and are judged by another, so the attack is on a model that nobody deploys.",
        "Deploy and attack the same branch: remove what depends on torch.is_grad_enabled() or requires_grad.",
    ),
    FlagKind(
        "no-gradient",
        "invalid",
        "The model gives no gradient",
        "the embedding does not depend on the image differentiably (torch.no_grad, detach, NumPy inside)",
        "Gradient attacks cannot run; what is left of a worst case is what noise reaches.",
        "Take @torch.no_grad(), .detach() and inference mode out of the forward pass; where that cannot be, use "
        "--attacks blackbox and say so.",
    ),
    FlagKind(
        "zero-gradients",
        "invalid",
        "Gradients are zero",
        "for half of the images or more the gradient of the margin is exactly zero",
        "Rounding, thresholds and saturation have no slope: gradient attacks stand still and report the clean recall.",
        "Attack the model without the rounding step or with a straight-through gradient, and judge the images by the "
        "deployed model; compare with --attacks blackbox.",
    ),
    FlagKind(
        "nan-gradients",
        "grave",
        "Gradients are not numbers",
        "a gradient of the margin holds NaN or infinity",
        "An attack that meets NaN may stand still without a word.",
        "Look for a square root, a norm or a logarithm at zero; add a small constant inside it.",
    ),
    FlagKind(
        "misleading-gradients",
        "invalid",
        "Gradients do not say where to go",
        "signed gradient steps of 1/255 and less raise the margin more than random steps in fewer than 70 % of cases",
        "Honest models reach 88 to 100 %, masked ones 12 to 50 %: gradient attacks see little of such a model.",
        "Look for noise, a detached part or a replaced backward pass; use --attacks blackbox and attacks transferred "
        "from the model without it.",
    ),
    FlagKind(
        "gradient-mismatch",
        "grave",
        "Steps gain other than the gradient foretells",
        "small steps along the gradient raise the margin by less than 20 % or more than 160 % of what it foretells",
        "Honest models gain 50 to 100 % of it. Less is saturation or a false gradient, more a part that is detached.",
        "Look for saturation (sigmoid, tanh, clamp), steep steps, or a part of the model behind detach().",
    ),
    FlagKind(
        "saturated-outputs",
        "grave",
        "Outputs are saturated",
        "a quarter or more of all output values sit at one largest or smallest value",
        "There the slope is zero or nearly so, and gradient attacks stand still where an attacker need not.",
        "Take the embedding before the sigmoid, tanh, sign or clamp, or attack it there.",
    ),
    FlagKind(
        "input-quantised",
        "grave",
        "The model rounds its input",
        "changes of less than half a level of 255, 127, 63, 31, 15 or 7 change no embedding",
        "Rounding has no slope, so gradient attacks see none, unless a straight-through gradient was put there; it "
        "does not protect, for changes of a whole level pass.",
        "Attack the model without the rounding and judge the images by the model with it.",
    ),
    FlagKind(
        "embedding-length",
        "invalid",
        "Embeddings are too short or too long for float32",
        "an embedding's length is below 1e-10 or above 1e17, or it cannot be brought to length 1",
        "Cosine similarities of such embeddings are rounding errors, clean ones too.",
        "Normalise inside the model, in float32, before the values leave its range.",
    ),
    FlagKind(
        "class-probabilities",
        "grave",
        "The embedding looks like class probabilities",
        "outputs are non-negative and sum to 1 in every row",
        "A softmax over training classes is no embedding: it saturates, and it says little of unseen classes.",
        "Remove the classifier and its softmax; take the features before it.",
    ),
    FlagKind(
        "classifier-head",
        "note",
        "A classifier may have been left on",
        "the last linear layer gives the embedding, with as many values as there are training classes, or 1000",
        "Logits of training classes are a poor embedding of unseen classes.",
        "Take the features before that layer, unless its size is meant.",
    ),
    FlagKind(
        "survives-anything",
        "invalid",
        "A budget that allows any image does not break it",
        "under twenty gradient steps at eps = 0.5, where any image can be made grey, queries are still answered "
        "rightly (more than chance and two points)",
        "No model can resist that, so the attacks fail on this one, at small budgets too.",
        "Look for masked gradients, and compare with --attacks blackbox.",
    ),
    FlagKind(
        "not-examined",
        "note",
        "A check of the model could not be made",
        "the model raised an error when it was asked for what a check needs, such as a single image",
        "Nothing is known of what that check looks for.",
        "Let the model take batches of any size.",
    ),
    FlagKind(
        "collapse",
        "grave",
        "The embeddings have collapsed",
        "the mean cosine of the gallery is above 0.995, or its effective rank below 1.2",
        "All embeddings are nearly the same: differences are close to rounding, and distances mean little.",
        "Do not call it robust. Train it with a lower learning rate or a smaller training eps.",
    ),
    FlagKind(
        "near-chance",
        "grave",
        "It finds little even with clean queries",
        "the clean headline is at most twice chance, and no more than a tenth of the way from chance to 1",
        "There is nothing that attacks could destroy.",
        "There is nothing to be robust about: check preprocessing (images are in [0, 1]) and training.",
    ),
    FlagKind(
        "other-preprocessing",
        "grave",
        "Images were not prepared as the model says",
        "--image-size overruled what the model declares",
        "A model that sees other images than it was made for has other recalls.",
        "Its recalls, also the clean one, may be others for that reason alone. Leave --image-size out.",
    ),
    FlagKind(
        "preprocessing-contradicted",
        "grave",
        "Its images are not normalised as it says",
        "the model declares a mean and a standard deviation, and the first layers get the pixels normalised otherwise, "
        "or not at all",
        "A network that gets other numbers than it was trained on is another network, clean and attacked.",
        "Normalise inside the model as it declares, or correct the declaration.",
    ),
    # Of the data.
    FlagKind(
        "copies-in-gallery",
        "grave",
        "Queries lie in the gallery under another name",
        "a query is equal to a gallery image, pixel for pixel, other than itself, or nearly: the colours of 8 x 8 "
        "cells correlate by 0.997 or more, and a perceptual hash differs in 6 of 63 bits or fewer",
        "Such a query finds its copy, clean and attacked, whatever the model has learned.",
        "Remove the copies from the queries or from the gallery, or leave them out with --leave-out-copies.",
    ),
    FlagKind(
        "copies-disagree",
        "grave",
        "Copies have different labels",
        "a query and an equal image of the gallery have different labels",
        "One of the two labels is wrong, and no model can answer such a query rightly.",
        "Correct the labels, or remove both images (--leave-out-copies does).",
    ),
    FlagKind(
        "copies-in-training",
        "grave",
        "Test images lie among the training images",
        "a test image is equal, or nearly (as above), to a training image of the data set",
        "A model that was trained on this data set has seen it, and retrieval is measured on what is unseen.",
        "Remove them from the test, or leave them out with --leave-out-copies; for a model trained elsewhere it is no "
        "harm.",
    ),
    FlagKind(
        "no-wrong-answer",
        "grave",
        "No answer is wrong",
        "every gallery image that a query searches is relevant to it",
        "Any model, a random one too, has a recall of 1, and no attack can lower it.",
        "Add images of other classes to the gallery.",
    ),
    FlagKind(
        "sampled-queries",
        "note",
        "A sample of the queries was used",
        "--max-queries left queries out",
        "Another sample has other recalls.",
        "The intervals say how far a sample can be off. Leave --max-queries out for all queries.",
    ),
    FlagKind(
        "few-queries",
        "note",
        "There are hardly any queries",
        "fewer than 10 images of the data set are queries",
        "Each query is worth more than ten points, and another handful has other recalls.",
        "Take the width of the intervals for what it says. Add images of the test classes.",
    ),
    FlagKind(
        "embeddings-alone",
        "note",
        "Embeddings alone were given",
        "--embeddings was given, and no model",
        "An attack changes an image and asks the model what becomes of its embedding: without the model nothing can be "
        "said of robustness.",
        "Give the model itself and its images to attack it.",
    ),
    # Of the attacks.
    FlagKind(
        "unsound-attack",
        "grave",
        "An attack changed what is not its own",
        "an attack changed the model, the gallery, this program or the state of its process, or tried to end it",
        "What it changed was restored, so that no other attack met it; nothing of this attack is counted.",
        "Do not use that attack, or mend it: an attack returns images and leaves everything else alone.",
    ),
    FlagKind(
        "attack-failed",
        "grave",
        "An attack failed",
        "an attack raised an error, ran out of time or returned no image",
        "A worst case without it may be too high.",
        "The worst case leaves this attack out and may be too high. Repeat the command to try it again.",
    ),
    FlagKind(
        "stage-failed",
        "grave",
        "A stage of an attack failed",
        "a stage of a cascade raised an error",
        "What that stage alone breaks still counts as right.",
        "The other stages were run; the recall may be too high without it.",
    ),
    FlagKind(
        "no-gradient-attack",
        "invalid",
        "No gradient attack could run",
        "all gradient attacks on a model failed",
        "What is left is what an attacker reaches without looking.",
        "Read why they failed, and mend the model or the attacks; or use --attacks blackbox and say so.",
    ),
    FlagKind(
        "no-margin-attack",
        "grave",
        "No gradient attack on the margin was run",
        "no gradient attack that was judged has the goal 'margin'",
        "It breaks far more queries than attacks with other goals.",
        "Add the attack 'margin', or use --attacks all.",
    ),
    FlagKind(
        "one-goal",
        "note",
        "All gradient attacks pursue one goal",
        "all gradient attacks that were judged have the same goal",
        "A model may resist it and fall to another.",
        "Run attacks with several goals, or --attacks all.",
    ),
    FlagKind(
        "gradient-masking",
        "grave",
        "Less knowledge wins",
        "an attack without gradients, or one gradient step, reaches a recall more than half a point below that of the "
        "stronger gradient attacks; or it breaks queries (more than 1 %, and more than one) that none of them breaks, "
        "or a stage without gradients breaks as many of those that the gradient stages before it left",
        "What knows less can only do worse, unless gradients mislead: then the worst case is too high.",
        "Do not trust gradient attacks on this model; look for steps without a useful gradient.",
    ),
    FlagKind(
        "not-monotone",
        "note",
        "A larger budget breaks less",
        "a gradient attack on the margin with many steps leaves a recall more than two points higher at a larger eps",
        "Whatever lies in the smaller ball lies in the larger one: the attack has not converged there.",
        "Use --effort thorough, or more steps. The worst case is not touched: it counts smaller balls in.",
    ),
    FlagKind(
        "not-converged",
        "note",
        "More steps help",
        "an attack with at least twice the steps or restarts, and all else equal, reaches a recall more than a point "
        "lower; or the longest gradient stage of an attack in stages still breaks more than 1 % of the queries, and "
        "more of them than chance explains (a binomial test at 5 %)",
        "An attack that has not converged leaves a recall that more of the same would lower.",
        "Quote the stronger of the two, or use --effort thorough.",
    ),
    FlagKind(
        "rounding-undoes",
        "note",
        "Rounding to 8 bits undoes the attack",
        "of the queries that an attack broke more than one, and more than 1 % of all, are answered rightly again once "
        "their images are rounded to 8 bits",
        "Such images exist as numbers and not as files: the recall is lower than that of images one can save.",
        "Say which of the two an attacker can send; at budgets below 1/255 no saved image differs from the clean one.",
    ),
    FlagKind(
        "large-eps",
        "invalid",
        "A budget that allows any image does not break it",
        "the worst case at an L-infinity eps of 0.5 or more is above chance and two points",
        "Within eps = 0.5 any image can be made grey, which no model can tell apart: the attacks have failed.",
        "Look for masked gradients, and compare with --attacks blackbox.",
    ),
    FlagKind(
        "budget-exceeded",
        "note",
        "An attack left its budget",
        "an attack returned images outside of the budget or of [0, 1]",
        "They were projected back before they were judged.",
        "The recall shown is within the budget. Report the attack's fault to its authors.",
    ),
    FlagKind(
        "no-attempt",
        "grave",
        "An attack did not try",
        "more than 5 % of the queries that are right when clean came back unchanged",
        "A query that was not attacked says nothing of robustness.",
        "Look at the attack's settings; the worst case uses the other attacks for these queries.",
    ),
    # Of the run, and of several in one report.
    FlagKind(
        "model-not-run",
        "grave",
        "A model was not run",
        "the evaluation was stopped before the model",
        "Nothing is known of it.",
        "Repeat the command to go on with it.",
    ),
    FlagKind(
        "panel-failed",
        "grave",
        "What was asked for beside the attacks is missing",
        "a certificate or another panel raised an error",
        "Its numbers are not on the page; those of the attacks do not depend on them.",
        "See the reason; the others ran.",
    ),
    FlagKind(
        "different-versions",
        "note",
        "Runs of different versions",
        "merged runs were made by different versions of robustdml",
        "Numbers may have changed their meaning between them.",
        "Read the changelog between them, or evaluate all models with one version.",
    ),
    FlagKind(
        "different-attacks",
        "grave",
        "A model has not met all attacks",
        "merged runs have different attacks or budgets",
        "A worst case over fewer attacks is higher for that reason alone.",
        "Evaluate all models in one run with one list of attacks and budgets.",
    ),
)

#: By slug.
FLAG_KINDS: dict[str, FlagKind] = {kind.slug: kind for kind in _ALL}


def described() -> str:
    """All kinds in Markdown, by grade, as docs/flags.md has them."""
    lines: list[str] = []
    for grade, meaning in GRADES.items():
        lines += [f"### {grade.capitalize()}: {meaning}", ""]
        for kind in FLAG_KINDS.values():
            if kind.grade == grade:
                lines += [
                    f"**`{kind.slug}`** {kind.title}. Raised if {kind.condition}. {kind.explanation} "
                    f"*What to do:* {kind.remedy}",
                    "",
                ]
    return "\n".join(lines)
