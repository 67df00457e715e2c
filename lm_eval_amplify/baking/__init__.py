"""An amplified model as an ordinary checkpoint, which any engine runs."""

from lm_eval_amplify.baking.run import MULTIPLE_OF, Baked, bake

__all__ = ["MULTIPLE_OF", "Baked", "bake"]
