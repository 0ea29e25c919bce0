"""A network of a user's own is trained, validated and used like ours."""

import pytest
from user_net import TwoConvs

import bmjax


def test_a_user_network_trains_predicts_and_goes_on(
    tiny_experiment, phantom_raw, tmp_path
):
    experiment = tiny_experiment.replace(
        {"model": TwoConvs(), "optimizer.num_steps": 3}
    )
    run = tmp_path / "run"
    done = bmjax.train(experiment, workdir=run, num_devices=1)
    assert done.validation is not None and done.validation.ok
    again = bmjax.train(experiment, workdir=run, num_devices=1)
    assert again.step == 3
    case = "BraTS-PHM-00004-000"
    ask = {"images": phantom_raw, "out": tmp_path / "out", "cases": (case,)}
    with pytest.raises(ValueError, match="--allow user_net"):
        bmjax.predict(run, **ask)
    (result,) = bmjax.predict(run, **ask, allow=("user_net",))
    assert result.error is None and result.path.is_file()
