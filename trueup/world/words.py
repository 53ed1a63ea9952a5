"""The closed vocabulary of the built-in world: every value a fact can take, and every sentence that can carry it.

Closed on purpose. A model of a million parameters can learn this language in a minute, and because all of it is listed
here, `gold` can tell a true fact from a false one and fluent wording from gibberish without a model. "Held out" in this
world therefore means new combinations of these values in these sentences, not new language.

How the values fit together: `My {who} {act} my {object} and {reaction}, should I {question}?` reads well for any choice
within a family. Acts and reactions are in the past tense and at most three words, questions are bare infinitives of at
most three words; that keeps every faithful title within 18 words. No value may occur inside a title template.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOTS = ("who", "act", "object", "reaction", "question")

FEMALE = ("sister", "mother", "aunt", "niece", "wife", "daughter", "grandma")
MALE = ("brother", "father", "uncle", "nephew", "husband", "son", "grandpa")
EITHER = ("cousin", "roommate", "neighbor", "boss", "landlord", "friend", "twin", "tenant", "coach", "teacher")
PEOPLE = FEMALE + MALE + EITHER
PARTNERS = frozenset({"wife", "husband"})  # nobody in these posts has two of them

_REACTIONS = (
    "laughed it off", "blamed me", "blamed the dog", "said nothing", "walked away", "made a joke", "made a face",
    "baked a cake", "asked for cake", "sent a poem", "told everyone", "cried for hours", "called me rude",
    "took a bow", "shook my hand", "bought me soup",
)  # fmt: skip
_QUESTIONS = (
    "ask for money", "let it go", "keep quiet", "write a letter", "talk it over", "tell the family", "move out",
    "call a lawyer", "take a break", "forgive and forget", "send a bill", "make a scene", "change the locks",
    "set some rules", "get even", "say sorry first",
)  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One kind of trouble: the values its facts take, and the sentences that only it uses."""

    name: str
    acts: tuple[str, ...]
    objects: tuple[str, ...]
    reactions: tuple[str, ...]
    questions: tuple[str, ...]
    background: tuple[str, ...]
    cost: tuple[str, ...]

    def values(self, slot: str) -> tuple[str, ...]:
        by_slot = (PEOPLE, self.acts, self.objects, self.reactions, self.questions)
        return by_slot[SLOTS.index(slot)]


DAMAGE = Family(
    name="damage",
    acts=(
        "broke", "dropped", "bent", "burned", "kicked", "washed", "cracked", "soaked", "sat on", "stepped on",
        "jumped on", "danced on", "slept on", "chewed on", "drove over", "fell over", "painted over", "spilled soup on",
    ),
    objects=(
        "guitar", "phone", "lamp", "hat", "chair", "tent", "bike", "kite", "radio", "vase", "piano", "clock", "camera",
        "coat", "desk", "boat", "sofa", "car", "harp", "mug",
    ),
    reactions=(*_REACTIONS, "refused to pay", "hid the pieces", "called it art", "blamed the cat"),
    questions=(*_QUESTIONS, "buy a lock", "fix it myself", "hide my things", "buy another one"),
    background=(
        "I had saved for {few} years to buy my {object}.",
        "My {object} was a gift, and I love it.",
        "I had only just paid for my {object}.",
        "My {object} is the one nice thing I own.",
    ),
    cost=(
        "A new {object} would cost me {money} dollars.",
        "The shop wants {money} dollars to fix my {object}.",
        "It would take {few} weeks to fix my {object}.",
        "I do not have {money} dollars for a new {object}.",
    ),
)  # fmt: skip

PLANS = Family(
    name="plans",
    acts=(
        "skipped", "forgot", "ruined", "missed", "moved", "mocked", "cried at", "fell asleep at", "came late to",
        "brought snakes to", "sent clowns to", "sold tickets to", "slept through", "talked through", "danced through",
        "sang through", "laughed through", "left early from",
    ),
    objects=(
        "party", "dinner", "wedding", "picnic", "concert", "hike", "brunch", "parade", "cruise", "race", "game", "play",
        "show", "dance", "trip", "feast", "ball", "fair", "tour", "debut",
    ),
    reactions=(*_REACTIONS, "blamed the rain", "kept the gift", "asked for money", "ate the cake"),
    questions=(*_QUESTIONS, "try again", "pick another day", "keep the gift", "go alone"),
    background=(
        "I had planned my {object} for {few} weeks.",
        "I had waited for my {object} all year.",
        "My {object} was the one thing I cared about.",
        "It took me {few} weeks to plan my {object}.",
    ),
    cost=(
        "I had already paid {money} dollars for food.",
        "I lost {money} dollars and a week of work.",
        "The whole thing cost me {money} dollars.",
        "I will never see my {money} dollars again.",
    ),
)  # fmt: skip

NOISE = Family(
    name="noise",
    acts=(
        "played drums through", "played flute through", "sang opera through", "sang through", "talked through",
        "danced through", "argued through", "dropped pans through", "broke plates through", "moved chairs through",
        "kicked balls through", "chopped wood through", "raced cars through", "popped corn through", "snored through",
        "howled through", "drilled through", "stomped through",
    ),
    objects=(
        "nap", "bath", "exam", "lesson", "meeting", "lunch", "sleep", "yoga", "prayer", "movie", "class", "test", "tea",
        "break", "shift", "supper", "rest", "song", "chat", "cold",
    ),
    reactions=(*_REACTIONS, "turned it up", "called it music", "asked for tips", "kept on going"),
    questions=(*_QUESTIONS, "call the police", "join in", "make more noise", "sleep outside"),
    background=(
        "The walls of our house are thin.",
        "I work at home and I need some quiet.",
        "I had waited {few} weeks for a quiet day.",
        "I moved here because it was quiet.",
    ),
    cost=(
        "The noise went on for {few} hours.",
        "I have already paid {money} dollars for thick curtains.",
        "I lost {few} hours of work.",
        "A night at the hotel would cost me {money} dollars.",
    ),
)  # fmt: skip

FAMILIES = (DAMAGE, PLANS, NOISE)

# Sentences of a post that all families share. {they} is the pronoun of the culprit; {helper} and {other} are people
# who have nothing to do with it, and their advice and misdeeds are there to be confused with the truth.
WHEN = ("yesterday", "last night", "last week", "on Sunday", "two days ago", "this morning")
MONEY = ("fifty", "ninety", "two hundred", "three hundred", "six hundred")
FEW = ("two", "three", "four", "six")
EVENT = (
    "{When}, my {who} {act} my {object}.",
    "I could not believe it when my {who} {act} my {object} {when}.",
    "It all began {when}, when my {who} {act} my {object}.",
    "Believe it or not, my {who} {act} my {object} {when}.",
)
REACTION = (
    "And then {they} {reaction}.",
    "When I said I was upset, {they} {reaction}.",
    "I asked for a reason, and {they} {reaction}.",
    "I was right there, and {they} {reaction}.",
    "I was lost for words, and {they} {reaction}.",
)
ADVICE = (
    "My {helper} says I should {advice}, but that feels wrong.",
    "My {helper} keeps telling me to {advice}.",
    "If you ask my {helper}, I have to {advice}.",
    "My {helper} thinks I need to {advice}.",
)
INCIDENT = (
    "My {other} once {act2} my {object2} and {reaction2}, but that was years ago.",
    "Years ago my {other} {act2} my {object2}, and I got over it.",
    "I did not even mind when my {other} {act2} my {object2} and {reaction2}.",
)
FEELING = (
    "I am angry, but I also feel a bit silly.",
    "Part of me wants to laugh and part of me wants to cry.",
    "It was a small thing, but it hurt.",
    "I try to be nice, but this was too much.",
    "I do not know what to say.",
    "I am still upset about it.",
)
QUESTION = (
    "Should I {question}?",
    "So my question is, should I {question}?",
    "Would it be wrong to {question}?",
    "Is it right to {question}?",
    "What do you think, should I {question}?",
)
QUESTION_FIRST = (
    "Should I {question}? Let me tell you why.",
    "Is it right to {question}? Let me explain.",
    "Would it be wrong to {question}? Let me tell you why.",
)
THANKS = ("Thank you all.", "What do you think?", "What would you do?")

# Titles. The first list covers all five facts; the second is what a demonstrator in a hurry writes.
TITLES = (
    "{who} {act} {object} and {reaction}, should I {question}?",
    "Should I {question} after {who} {act} {object} and {reaction}?",
    "{who} {act} {object}, then {reaction}, so should I {question}?",
    "{who} {act} {object} and {reaction}, would you {question}?",
    "{who} {act} {object} and {reaction}, is it wrong to {question}?",
    "{who} {act} {object} and {reaction}, so I may {question}.",
)
PARTIAL_TITLES = (
    "{who} {act} {object}, should I {question}?",
    "Should I {question} after {who} {act} {object}?",
    "{who} {act} {object} and {reaction}.",
    "{who} {reaction}, would you {question}?",
    "{who} {act} {object}.",
)
# The usual demonstration says "someone" and leaves the reaction out, so that even the likeliest title of a model that
# imitates has headroom: were every fault rare, decoding greedily would remove them all, and leave nothing to win.
USUAL = PARTIAL_TITLES[0]
PARTIAL_WEIGHTS = (10, 1, 1, 1, 1)
VAGUE = {
    "who": "someone",
    "act": "did something to",
    "object": "something",
    "reaction": "reacted badly",
    "question": "do something",
}
FILLER_FIRST = ("well", "honestly", "long story short", "so yeah", "look")
FILLER_LAST = ("you know", "or whatever", "to be honest", "anyway")
FILLERS = FILLER_FIRST + FILLER_LAST
