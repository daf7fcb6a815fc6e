"""What the tests of passes share, on top of each module's own `made`: a folder with a model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture
def work(made, tmp_path):
    """A folder of the test's own, with the module's model in it."""
    (tmp_path / "model").symlink_to(made / "model")
    return tmp_path


@pytest.fixture(scope="module")
def plain(made):
    """The model and the tokenizer as anybody would load them."""
    model = AutoModelForCausalLM.from_pretrained(made / "model", dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(made / "model")
