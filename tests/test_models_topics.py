"""Topics that are known are found again."""

import pytest
import torch
import torch.nn.functional as F

import pyrovae as pv
from pyrovae.data.synthetic import topics
from pyrovae.evaluation import best_matching


@pytest.mark.parametrize("mixture", [False, True], ids=["product of experts", "mixture"])
def test_topics_are_matched(mixture):
    """Shares of words of every topic beside those that the documents were drawn of: cosines of the best matching."""
    data = pv.data.load("topics")
    known = torch.tensor(topics.topic_words()).flatten(1).float()
    torch.manual_seed(0)
    vae = pv.models.TopicModel.build(data, 8, mixture=mixture)
    pv.fit(vae, data, epochs=40, learning_rate=1e-2, compile="never", progress=False)
    cosine = F.cosine_similarity(known[:, None], vae.topics.words.detach().flatten(1)[None], dim=-1)
    rows, columns = best_matching(cosine)
    assert cosine[rows, columns].min() > 0.95
