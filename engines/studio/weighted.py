"""
The prompts of one request, read: what is weighted in them, whether the family can draw that, and what it costs. How
brackets are read is engines/messages/prompts.py's, what is done with the weights sampler.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.errors import OptionError, TooManyWeights
from engines.families import Family
from engines.messages import Generate, prompts
from engines.messages.prompts import Prompt

# At 0 words are as if they were not there. At 2 pictures of the built-in network are sane with three weights at once;
# 2.5 changes hardly anything more. A1111's users stay within 0.1 to 2.
LOWEST, HIGHEST = 0.0, 2.0
MOST_WEIGHTS = 3  # in a prompt, where each takes a run of the network in every step


@dataclass(frozen=True)
class WeightedPrompts:
    """`negative` None: nobody reads it. `runs`: of the network in a step, for all that is asked for."""

    prompt: Prompt
    negative: Prompt | None
    runs: int

    @classmethod
    def of(cls, r: Generate, family: Family, guided: bool) -> WeightedPrompts:
        """OptionError: a weight is out of range. TooManyWeights: there are more than this family draws."""
        prompt, negative = prompts.read(r.prompt), prompts.read(r.negative) if guided else None
        read = [prompt] if negative is None else [prompt, negative]
        for weight in (weight for some in read for weight in some.weights):
            if not LOWEST <= weight <= HIGHEST:
                raise OptionError("weight", f"{weight:g}", f"{LOWEST:g} … {HIGHEST:g}")
        if family.weighs == "rows":
            return cls(prompt, negative, len(read))
        if (most := max(len(some.weights) for some in read)) > MOST_WEIGHTS:
            raise TooManyWeights(most, MOST_WEIGHTS)
        return cls(prompt, negative, sum(1 + len(some.weights) for some in read))
