"""Collections: from completion sets to items, again and again the same; golds; progress; the way through the API."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from trueup import api
from trueup.config import load
from trueup.errors import ConfigError, DataError, RunError, TrueupError, WorkspaceError
from trueup.feedback import relabel
from trueup.feedback.collect import Filling, collect, merged
from trueup.feedback.desk import Desk
from trueup.feedback.golds import MANY, agreed_golds, read_golds
from trueup.feedback.leaks import LeakFinder
from trueup.feedback.status import leaking, status
from trueup.records import Prompt
from trueup.store import people, queue

NOW = 1_700_000_000.0


def config(*sets: str):
    return load("collection", sets=["calibration_share=0", *sets])


@pytest.fixture
def candidates(workspace):
    """`candidates(10, 4)`: a completion set of 10 prompts with 4 completions each."""

    def made(prompts: int = 10, k: int = 4, model: str = "", texts=None):
        rows = [
            {
                "prompt": Prompt.user(f"question {i}").to_json(),
                "completions": [
                    {"text": text, "finished": j % 2 == 0, "model": model or "m"}
                    for j, text in enumerate(texts or [f"answer {i} {model} {j}" for j in range(k)])
                ],
            }
            for i in range(prompts)
        ]
        content = "\n".join(map(json.dumps, rows)).encode()
        return workspace.put("completions", {"rows.jsonl": content}, meta={"rows": prompts, "m": model})

    return made


def all_items(workspace, name: str):
    return queue.items(workspace.database, queue.collection(workspace.database, name).id, limit=10_000)


def add(workspace, name, source, settings=None, **more):
    return collect(workspace, name, settings or config(), [source], now=NOW, **more)


# Items


@pytest.mark.parametrize(("per_prompt", "expected"), [(1, 1), (3, 3), (6, 6), (20, 6)])
def test_pairs_are_drawn_without_repeating_one(workspace, candidates, per_prompt, expected):
    made = add(workspace, "c", candidates(5, 4), filling=Filling(items_per_prompt=per_prompt))
    items = all_items(workspace, "c")
    assert made.items == made.added == len(items) == 5 * expected
    assert all(len(set(item.texts)) == 2 for item in items)
    assert len({(item.prompt.id, frozenset(item.texts)) for item in items}) == 5 * expected
    assert {item.why["probability"] for item in items} == {round(expected / 6, 8)}


def test_which_pair_and_which_side_is_left_to_chance(workspace, candidates):
    add(workspace, "c", candidates(60, 4))
    chosen = Counter(tuple(int(text[-1]) for text in item.texts) for item in all_items(workspace, "c"))
    assert len({frozenset(pair) for pair in chosen}) == 6 and 20 < sum(a < b for a, b in chosen.elements()) < 40


def test_identical_completions_are_never_put_side_by_side_and_counted(workspace, candidates):
    source = candidates(3, texts=["the same", " the same\n", "another", ""])
    made = add(workspace, "c", source, filling=Filling(items_per_prompt=5))
    assert [set(item.texts) for item in all_items(workspace, "c")] == [{"the same", "another"}] * 3
    assert made.left_out == {"completions that repeat another or are empty": 6}
    with pytest.raises(DataError, match="3 prompts with fewer than two different"):
        add(workspace, "d", candidates(3, texts=["one", "one"]))


@pytest.mark.parametrize(
    ("task", "per_item", "k", "shown"),
    [
        ("ranking", 0, 4, 4),
        ("ranking", 0, 12, 9),
        ("ranking", 3, 4, 3),
        ("rating", 0, 4, 4),
        ("thumbs", 1, 4, 1),
        ("edit", 1, 1, 1),
    ],
)
def test_the_other_tasks_show_several_completions_up_to_nine(workspace, candidates, task, per_item, k, shown):
    add(workspace, "c", candidates(4, k), config(f"task={task}"), filling=Filling(per_item=per_item))
    assert [len(set(item.texts)) for item in all_items(workspace, "c")] == [shown] * 4


def test_what_is_known_of_a_completion_stays_with_it(workspace, candidates):
    add(workspace, "c", candidates(10, 3), config("task=ranking"))
    for item in all_items(workspace, "c"):
        assert item.models == ("m",) * 3
        assert item.finished == tuple(int(text[-1]) % 2 == 0 for text in item.texts)


def test_several_models_are_mixed_and_compared_with_each_other_first(workspace, candidates):
    one, two = candidates(10, 2, "one"), candidates(10, 2, "two")
    collect(workspace, "c", config(), [one, two], now=NOW, filling=Filling(items_per_prompt=4))
    items = all_items(workspace, "c")
    assert len(items) == 40 and all(set(item.models) == {"one", "two"} for item in items)
    source = workspace.get(items[0].completions)
    assert source.parents == {"completions": one.id, "completions 2": two.id}
    assert [len(group) for group in merged(workspace, [source])[1]] == [4] * 10
    left = Counter(item.models[0] for item in items)
    assert 8 < left["one"] < 32


def test_the_same_call_again_adds_nothing_and_one_that_was_cut_off_is_completed(workspace, candidates):
    source = candidates(30, 4)
    add(workspace, "c", source, filling=Filling(limit=12))
    first = all_items(workspace, "c")
    assert add(workspace, "c", source, filling=Filling(limit=12)).added == 0
    assert add(workspace, "c", source).added == 18
    assert all_items(workspace, "c")[:12] == first and {each.why["probability"] for each in first} == {
        round(12 / 30 / 6, 8)
    }


def test_another_seed_asks_in_another_order(workspace, candidates):
    source = candidates(30, 2)
    for seed in (0, 1):
        add(workspace, f"c{seed}", source, filling=Filling(seed=seed))
    orders = [[item.prompt.id for item in all_items(workspace, name)] for name in ("c0", "c1")]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]


def test_calibration_controls_and_the_split_go_by_prompt(workspace, candidates):
    settings = load("collection", sets=["calibration_share=0.3", "overlap=2", "control_every=9"])
    source = candidates(200, 3)
    collect(workspace, "c", settings, [source], now=NOW, filling=Filling(items_per_prompt=2, heldout=0.25))
    items = all_items(workspace, "c")
    roles, splits = {}, {}
    for item in items:
        roles.setdefault(item.prompt.id, set()).add((item.role, item.overlap))
        splits.setdefault(item.prompt.id, set()).add(item.split)
    assert all(len(found) == 1 for found in (*roles.values(), *splits.values()))
    shares = Counter(role for found in roles.values() for role, _ in found)
    assert {pair for found in roles.values() for pair in found} == {("main", 2), ("calibration", 3), ("control", MANY)}
    assert 35 < shares["calibration"] < 75 and 8 < shares["control"] < 35
    assert 30 < sum(found == {"heldout"} for found in splits.values()) < 70


def test_a_collection_is_not_changed_under_people(workspace, candidates):
    source = candidates()
    add(workspace, "c", source, guideline="# One")
    with pytest.raises(WorkspaceError, match="'c' already, with another ties, overlap"):
        add(workspace, "c", source, config("ties=false", "overlap=2"))
    add(workspace, "c", source, guideline="# Two")
    found = queue.collection(workspace.database, "c")
    assert [each["text"] for each in queue.guidelines(workspace.database, found.id)] == ["# One", "# Two"]


def test_a_collection_from_before_a_setting_existed_has_its_default(workspace, candidates):
    older = {key: value for key, value in config().model_dump(mode="json").items() if key != "per_day"}
    queue.create_collection(workspace.database, "c", older, "", NOW)
    assert add(workspace, "c", candidates()).added == 10
    with pytest.raises(WorkspaceError, match="with another per_day"):
        add(workspace, "c", candidates(), config("per_day=5"))


def test_what_cannot_be_asked_is_refused_before_anything_is_made(workspace, candidates):
    prompts = workspace.put("prompts", {"rows.jsonl": b"{}\n"})
    with pytest.raises(TrueupError, match="kind 'prompts', not 'completions'"):
        add(workspace, "c", prompts)
    for settings, filling in ((config(), Filling(per_item=3)), (config(), Filling(heldout=1.0))):
        with pytest.raises(ConfigError):
            add(workspace, "c", candidates(), settings, filling=filling)
    with pytest.raises(DataError, match="--golds|known answers"):
        add(workspace, "c", candidates(), config("gold_every=10"))
    with pytest.raises(DataError, match="nothing to judge"):
        collect(workspace, "c", config(), [], now=NOW)
    assert queue.collections(workspace.database) == []


# Words that give a model away


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("As an AI language model, I cannot.", ["as an ai language model"]),
        ("I am ChatGPT by openai.", ["chatgpt", "openai"]),
        ("GPT-4o and Llama3 and Qwen2.5", ["gpt-4", "llama", "qwen"]),
        ("my-model says so", ["my-model"]),
        ("The bardic falconer saw llamas", []),
        ("A plain answer", []),
    ],
)
def test_words_that_give_a_model_away_are_found_as_whole_words(text, words):
    assert LeakFinder(["my-model", ""])(text) == words


def test_leaks_are_pointed_out_and_not_hidden(workspace, candidates):
    made = add(workspace, "c", candidates(2, texts=["I, ChatGPT, think so", "No"]))
    assert made.leaks == 2 == made.items and status(workspace, "c", NOW).leaks == 2
    found = queue.collection(workspace.database, "c").id
    assert leaking(workspace, found)[0]["words"] == ["chatgpt"]


def test_a_prompt_stays_on_its_side_with_more_completions_and_in_every_collection(workspace, candidates):
    def sides(name):
        return {(item.prompt.id, item.split) for item in all_items(workspace, name)}

    add(workspace, "c", candidates(60, 2), filling=Filling(heldout=0.3))
    first = sides("c")
    assert len({side for _, side in first}) == 2
    add(workspace, "c", candidates(60, 2, model="n"), filling=Filling(heldout=0.8, seed=1))
    assert sides("c") == first and len(all_items(workspace, "c")) == 120
    for share in (0.0, 0.1, 0.9):
        name = f"d{share:g}"
        add(workspace, name, candidates(80, 2, model="n"), filling=Filling(heldout=share, seed=1))
        assert sides(name) >= first, "whatever share is held out here"
    assert {prompt for prompt, _ in sides("d0.1")} == {prompt for prompt, _ in sides("d0.9")}
    assert sides("d0") == sides("d0.1") == sides("d0.9"), "the other prompts were decided by the first of the three"


def test_a_group_of_prompts_is_on_one_side_in_every_collection(workspace):
    def source(model):
        rows = [
            {
                "prompt": Prompt.user(f"question {i}", group=f"g{i // 4}").to_json(),
                "completions": [{"text": f"{model} {j}"} for j in range(2)],
            }
            for i in range(80)
        ]
        content = "\n".join(map(json.dumps, rows)).encode()
        return workspace.put("completions", {"rows.jsonl": content})

    add(workspace, "c", source("one"), filling=Filling(heldout=0.3, limit=20))
    add(workspace, "d", source("two"), filling=Filling(heldout=0.6))
    sides = {}
    for item in [*all_items(workspace, "c"), *all_items(workspace, "d")]:
        sides.setdefault(item.prompt.meta["group"], set()).add(item.split)
    assert len(sides) == 20 and all(len(side) == 1 for side in sides.values())


def test_filling_is_noted_when_something_came_of_it(workspace, candidates):
    from trueup.store import audit

    source = candidates(5, 2)
    for _ in range(2):
        add(workspace, "c", source)
    made, filled = audit.entries(workspace.database)
    assert (made["action"], filled["action"]) == ("made a collection", "filled a collection")
    assert filled["details"] == {"artifact": source.id, "added": 5, "checks": 0} and filled["person"] == ""


# Golds


def gold_file(folder, rows):
    path = folder / "golds.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_golds_of_a_file_are_first_for_the_qualification_then_hidden(workspace, candidates, tmp_path):
    rows = [
        {"prompt": "a", "completions": ["x", "y"], "ranks": [2, 1], "why": "y is true"},
        {"prompt": [{"role": "user", "content": "b"}], "chosen": "x", "rejected": "y"},
        {"prompt": {"messages": [{"role": "user", "content": "c"}]}, "completions": ["x", "y"], "ranks": [1, 1]},
    ]
    settings = config("qualification=2", "gold_every=5")
    golds = read_golds(workspace, gold_file(tmp_path, rows), settings)
    assert [gold.role for gold in golds] == ["qualification", "qualification", "gold"]
    assert golds[0].key == {"ranks": [2, 1], "why": "y is true"} and {gold.overlap for gold in golds} == {MANY}
    assert add(workspace, "c", candidates(), settings, golds=golds).golds == 3
    add(workspace, "c", candidates(), settings, golds=read_golds(workspace, gold_file(tmp_path, rows), settings))
    assert Counter(item.role for item in all_items(workspace, "c")) == {"main": 10, "qualification": 2, "gold": 1}
    with pytest.raises(DataError, match="3 golds, and 4 are needed"):
        read_golds(workspace, gold_file(tmp_path, rows), config("qualification=3", "gold_every=5"))


def test_golds_need_something_that_can_be_wrong(workspace, candidates, tmp_path):
    single = gold_file(tmp_path, [{"prompt": "a", "completions": ["x"], "ranks": [1]}])
    with pytest.raises(DataError, match="no completions for a thumbs task"):
        read_golds(workspace, single, config("task=thumbs", "gold_every=5"))
    golds = read_golds(workspace, gold_file(tmp_path, [{"prompt": "a", "chosen": "x", "rejected": "y"}]), config())
    with pytest.raises(ConfigError, match="rewritten"):
        add(workspace, "c", candidates(), config("task=edit", "qualification=1"), golds=golds)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"prompt": "a"},
        {"prompt": "", "chosen": "x", "rejected": "y"},
        {"prompt": [{"role": "user"}], "chosen": "x", "rejected": "y"},
        {"prompt": [{"role": "pirate", "content": "a"}], "chosen": "x", "rejected": "y"},
        {"prompt": 3, "chosen": "x", "rejected": "y"},
        {"prompt": "a", "chosen": "x"},
        {"prompt": "a", "chosen": "x", "rejected": " "},
        {"prompt": "a", "completions": ["x", "y", "z"], "ranks": [1, 2, 3]},
        {"prompt": "a", "completions": ["x", "y"], "ranks": [1]},
        {"prompt": "a", "completions": ["x", "y"], "ranks": [1, 2.0]},
        {"prompt": "a", "completions": ["x", "y"], "ranks": "12"},
        {"prompt": "a", "completions": ["x", "y"], "ranks": [1, 2], "why": 3},
        [1, 2],
    ],
)
def test_a_gold_that_is_none_is_named_by_its_line(workspace, tmp_path, row):
    good = {"prompt": "a", "chosen": "x", "rejected": "y"}
    with pytest.raises(DataError, match="2") as caught:
        read_golds(workspace, gold_file(tmp_path, [good, row]), config())
    assert "golds.jsonl" in caught.value.message


def test_items_on_which_three_people_agree_become_golds(workspace, candidates):
    settings = load("collection", sets=["overlap=3", "max_overlap=3", "repeat_share=0"])
    collect(workspace, "c", settings, [candidates(12, 2)], now=NOW)
    desk = Desk(workspace, "c", lambda: NOW)
    with pytest.raises(DataError, match="no item on which 3 people agree"):
        agreed_golds(workspace, "c", config("gold_every=5"))
    for number, name in enumerate(("Ada", "Bea", "Cid")):
        who = people.add_person(workspace.database, name, "annotator", NOW).id
        while (view := desk.next(who)) is not None:
            i = int(view.prompt[0]["content"].split()[1])
            favourite = 1 if i < 4 else 0 if i < 8 else number % 2
            places = [int(text[-1]) for text in view.completions]
            choice = 0 if i == 0 else -1 if places[0] == favourite else 1
            desk.answer(who, view.assignment, "k", {"choice": choice})
    golds = agreed_golds(workspace, "c", config("gold_every=5"))
    assert sorted(int(gold.prompt.text.split()[1]) for gold in golds) == [1, 2, 3, 4, 5, 6, 7]
    for gold in golds:
        favourite = 1 if int(gold.prompt.text.split()[1]) < 4 else 0
        assert int(gold.texts[gold.key["ranks"].index(1)][-1]) == favourite
    flagged = next(item for item in all_items(workspace, "c") if item.prompt.id == golds[0].prompt.id)
    queue.quarantine(workspace.database, flagged.id, "flagged: personal data", NOW)
    left = agreed_golds(workspace, "c", config("gold_every=5"))
    assert len(left) == 6 and flagged.prompt.id not in [gold.prompt.id for gold in left]


def test_what_people_agreed_on_checks_only_a_task_that_it_fits(workspace, candidates):
    settings = load("collection", sets=["task=ranking", "overlap=3", "max_overlap=3", "repeat_share=0"])
    collect(workspace, "c", settings, [candidates(2, 4)], now=NOW)

    def everybody_agrees():
        for name in ("Ada", "Bea", "Cid"):
            known = {each.name: each.id for each in people.people(workspace.database)}
            who = known.get(name) or people.add_person(workspace.database, name, "annotator", NOW).id
            desk = Desk(workspace, "c", lambda: NOW)
            while (view := desk.next(who)) is not None:
                ranks = [sorted(view.completions).index(text) + 1 for text in view.completions]
                desk.answer(who, view.assignment, "k", {"ranks": ranks, "confirmed": True})

    everybody_agrees()
    assert [len(gold.texts) for gold in agreed_golds(workspace, "c", settings)] == [4, 4]
    with pytest.raises(DataError, match="none of the 2 items on which people agree in 'c' fits a pair task"):
        agreed_golds(workspace, "c", config("gold_every=5"))
    collect(workspace, "c", settings, [candidates(1, 2, "other")], now=NOW)
    everybody_agrees()
    assert [len(gold.texts) for gold in agreed_golds(workspace, "c", config("gold_every=5"))] == [2]


# Progress


def test_status_counts_rows_and_says_what_its_time_assumes(workspace, candidates):
    add(workspace, "c", candidates(20, 2), config("repeat_share=0"))
    before = status(workspace, "c", NOW)
    assert (before.judgements, before.needed, before.hours_left) == (0, 20, None)
    assert before.assumption == "nobody has judged yet"
    clock = iter(range(10**6))
    desk = Desk(workspace, "c", lambda: NOW + 10 * next(clock))
    who = people.add_person(workspace.database, "Ada", "annotator", NOW)
    for _ in range(5):
        view = desk.next(who.id)
        desk.answer(who.id, view.assignment, "k", {"choice": 1})
    desk.next(who.id)
    found = status(workspace, "c", NOW + 10 * next(clock))
    assert (found.judgements, found.needed, found.working) == (5, 15, 1)
    assert found.items == {"main": {"open": 15, "full": 5, "quarantined": 0}}
    (worker,) = found.people
    assert (worker.judge, worker.done) == (who.judge, 5) and found.seconds == worker.seconds > 0
    assert found.hours_left == round(15 * found.seconds / 3600, 2)
    assert found.assumption.startswith("if 1 person works without a pause and a judgement takes ")


# A demo's own candidates


def test_relabel_makes_its_collection_once_of_what_the_demo_called_candidates(workspace, candidates):
    with pytest.raises(TrueupError, match="no completions called 'candidates'"):
        relabel.start(workspace, NOW)
    workspace.set_name("candidates", candidates(30, 4))
    name = relabel.start(workspace, NOW)
    items = all_items(workspace, name)
    assert relabel.start(workspace, NOW + 1) == name and all_items(workspace, name) == items
    assert len(items) == 30 and {item.overlap for item in items} == {1}
    assert 2 < sum(item.split == "heldout" for item in items) < 18


# Through the API


def test_collect_samples_each_model_once_and_takes_it_again(workspace, checkpoint, monkeypatch):
    from small import add_small_data

    from trueup import wiring

    add_small_data(workspace, workspace.path, prompts=12)
    models = [str(checkpoint("Llama", seed)) for seed in (1, 2)]
    made = {"prompts": "prompts", "models": models, "per_prompt": 1, "sampling": {"max_new_tokens": 4}, "limit": 5}
    found = api.collect(workspace, "c", **made, calibration_share=0.0, overlap=2)
    items = all_items(workspace, "c")
    assert found.items == 5 - found.left_out.get("prompts with fewer than two different completions", 0) > 0
    assert all(len(set(item.models)) == 2 and item.overlap == 2 for item in items)
    assert {item.why["probability"] for item in items} == {round(5 / 12, 8)}
    monkeypatch.setattr(wiring, "execute", None)
    assert api.collect(workspace, "c", **made, calibration_share=0.0, overlap=2).added == 0
    assert api.status(workspace, "c").needed == 2 * len(items)


def test_what_cannot_be_sampled_is_refused_before_a_run_is_recorded(workspace, checkpoint, monkeypatch):
    from small import add_small_data

    def no_device(settings):
        raise RunError("there is no such device")

    add_small_data(workspace, workspace.path, prompts=4)
    monkeypatch.setattr("trueup.models.device.place", no_device)
    with pytest.raises(RunError, match="no such device"):
        api.collect(workspace, "c", prompts="prompts", models=[str(checkpoint("Llama"))], per_prompt=2)
    assert list(workspace.run_rows()) == []


def test_collect_says_where_completions_may_come_from(workspace, candidates):
    for given in ({}, {"completions": ["x"], "prompts": "y", "models": ["z"]}, {"prompts": "y"}, {"models": ["z"]}):
        with pytest.raises(ConfigError, match="either from completion sets, or from prompts"):
            api.collect(workspace, "c", **given)
    with pytest.raises(ConfigError, match="2 to 9 in all"):
        api.collect(workspace, "c", prompts="y", models=["z"], per_prompt=10)
    with pytest.raises(DataError, match="neither a file of golds nor a collection"):
        api.collect(workspace, "c", completions=[candidates()], golds="nowhere")
    with pytest.raises(ConfigError, match="ties has a meaning only"):
        api.collect(workspace, "c", completions=[candidates()], task="thumbs", ties=False)
