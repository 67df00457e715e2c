"""Where a model's neurons are: the feed-forward network (FFN) of each layer of the language model."""

from lm_eval_amplify.architecture.feed_forward import FeedForward
from lm_eval_amplify.architecture.folding import dimension_of_neurons, fold_obstacle, structural_obstacle
from lm_eval_amplify.architecture.search import find_feed_forwards
from lm_eval_amplify.architecture.sites import Change
from lm_eval_amplify.architecture.token_order import check_token_by_token, evaluating, input_device

__all__ = [
    "Change",
    "FeedForward",
    "check_token_by_token",
    "dimension_of_neurons",
    "evaluating",
    "find_feed_forwards",
    "fold_obstacle",
    "input_device",
    "structural_obstacle",
]
