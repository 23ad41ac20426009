import pytest

from pipeline.core.errors import UserError
from pipeline.core.params import search_space
from pipeline.core.params.dotted import flat, nested
from pipeline.core.params.load import validate
from pipeline.core.params.search_url import resolved, without_secrets

BAD = {
    "learning_rat": ([1], "train has no such key; write learning_rate."),
    "sampler": ({"low": 1, "high": 2}, "train takes no number there, so it has no range; give"),
    "learning_rate": (
        {"low": "1e-4", "high": 0.1},
        "expected a number, found '1e-4' (write 0.0001",
    ),
    "batch_size": ({"low": 4, "high": 8.5}, "high: expected a whole number, found 8.5"),
    "weight_decay": ({"low": 0, "high": 1, "log": True}, "low (0) must be above 0 where log is"),
    "lambda_start": ({"low": 0.6, "high": 0.2}, "low (0.6) must be below high (0.2)."),
    "dice_weight": ({"low": 0.5, "high": 1.5}, "1.5 can't be tried: train.dice_weight: 1.5 is not"),
    "image_size": ([128, 100], "100 can't be tried: train.image_size: 100 is not allowed"),
    "gate": (["spatial", "spatia"], "'spatia' can't be tried: train.gate: 'spatia' is not allowed"),
    "ema_decay": (3, "3: expected choices, such as [1, 4, 8], a range, such as {low: 0.1,"),
    "lr_power": ([], "[]: expected choices"),
    "clip_norm": ({"low": 1, "hihg": 2}, "expected choices, such as"),
    "lora_rank": ([4, 4], "a choice is there twice"),
    "augment.noise": ({"low": 0, "high": 2}, "2 can't be tried: train.augment.noise: 2 is not"),
    "augment.crop_side": ([1], "only single values are searched; remove it."),
    "betas": ([1], "only single values are searched; remove it."),
    "epochs": ([1, 2], "search.epochs says how long a trial is; remove it."),
    "seed": ([1, 2], "the best of several seeds is luck, not a setting; remove it."),
    "model": (["unet"], "other models are other runs, the arms of a study; remove it."),
    "workers": ([1, 2], "it says how the work is done, or something that a trial does in its"),
    "model_options.features": ([8], "train has no such key; remove it"),
}


def problems(**search) -> list[str]:
    with pytest.raises(UserError) as caught:
        validate({"search": search}, "mine.yaml")
    return caught.value.problems


def test_every_problem_of_a_space_is_listed_at_once():
    found = problems(space={key: given for key, (given, _) in BAD.items()})
    assert len(found) == len(BAD)
    for key, (_, reason) in BAD.items():
        (line,) = [line for line in found if line.startswith(f"mine.yaml: search.space.{key}: ")]
        assert reason in line


def test_any_key_of_train_has_a_space():
    given = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "batch_size": {"low": 4, "high": 16},
        "clip_norm": [None, 1.0],
        "micro_batch": ["auto", 4],
        "mask_attention": [True, False],
        "augment.noise": {"low": 0, "high": 0.1},
        "lora_rank": None,
    }
    found = validate({"search": {"space": given}}, "mine.yaml").search.space
    knobs = search_space.knobs(found)
    assert knobs["learning_rate"] == search_space.Limits(1e-4, 1e-2, True, False)
    assert knobs["batch_size"] == search_space.Limits(4, 16, False, True)
    assert knobs["clip_norm"] == [None, 1.0] and "lora_rank" not in knobs
    assert set(knobs) == {*given, "dice_weight", "lambda_start"} - {"lora_rank"}  # the defaults'


def test_options_of_the_model_can_be_searched():
    knob = {"model_options.adapter_ratio": {"low": 0.1, "high": 0.5}}
    adapter = {"train": {"model": "sam_adapter"}}
    without = knob | {"lora_rank": None, "lambda_start": None}
    validate(adapter | {"search": {"space": without}}, "mine.yaml")
    with pytest.raises(UserError, match="adapter_ratio: 2 can't be tried: train.model_options"):
        wide = without | {"model_options.adapter_ratio": {"low": 0.1, "high": 2}}
        validate(adapter | {"search": {"space": wide}}, "mine.yaml")


def test_what_the_model_lacks_is_not_tuned():
    with pytest.raises(UserError) as caught:
        validate({"train": {"model": "samed"}, "search": {"space": {"gate": ["spatial"]}}}, "")
    assert [line.split(": ")[1] for line in caught.value.problems] == [
        "search.space.lambda_start",
        "search.space.gate",
    ]


def test_nested_and_flat_undo_each_other():
    values = {"augment.noise": 0.1, "lora_rank": 4, "augment.crop": 0.5}
    assert nested(values)["augment"] == {"noise": 0.1, "crop": 0.5}
    assert flat(nested(values)) == values


@pytest.mark.parametrize("key", ["lora_rank", "dice_weight"])
def test_earlier_keys_say_how_they_are_written(key):
    (line,) = problems(**{key: [0.5, 0.9]})
    assert f"it is written search.space: {{{key}: " in line


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:geheim@host/db",
        "mysql+pymysql://me:geheim@host/db",
        "redis://:geheim@host",
        "postgresql://host/db?user=me&password=geheim",
    ],
)
def test_a_password_in_the_parameters_is_refused_and_not_shown(url):
    (line,) = problems(storage=url)
    assert "holds a password" in line and "$NAME" in line and "geheim" not in line


def test_other_storages_are_refused():
    (line,) = problems(storage="oracle://host/db")
    assert "expected null, the name of an environment variable ($HSAM_STORAGE), or a URL" in line


def test_a_storage_names_variables(monkeypatch):
    monkeypatch.setenv("PASSWORD_OF_DB", "a/b@c")
    monkeypatch.setenv("WHOLE", "postgresql://me:geheim@host/db")
    url = "postgresql://me:$PASSWORD_OF_DB@host/db"
    assert validate({"search": {"storage": url}}, "").search.storage == url
    assert resolved(url) == "postgresql://me:a%2Fb%40c@host/db"
    assert without_secrets("no a/b@c or a%2Fb%40c", url).count("$PASSWORD_OF_DB") == 2
    validate({"search": {"storage": "$WHOLE"}}, "")
    assert resolved("$WHOLE") == "postgresql://me:geheim@host/db"
    assert "geheim" not in without_secrets("failed for me:geheim", "$WHOLE")
    monkeypatch.delenv("WHOLE")
    with pytest.raises(UserError, match="variable WHOLE, which is not set"):
        resolved("$WHOLE")
