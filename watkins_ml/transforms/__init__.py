"""Transforms of training data: one module a transform, named as in recipes; `registry` finds them."""
