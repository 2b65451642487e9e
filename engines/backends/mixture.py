"""
Parts of a bundle on different engines, where the parts say that this is faster: one engine may have the faster
convolutions, and another the faster attention. What such a mixture draws and how long it takes is proved like any
other's; here it is only found out whether it is worth a proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engines.backends.arrangement import Arrangement
from engines.bundle import Bundle
from engines.messages.status import Verdict

WORTH = 1.1  # the fastest takes so many times as long as the mixture would, or it is not worth a proof


def work_s(bundle: Bundle, run_s: Mapping[str, float]) -> float:
    """Return what the runs of a usual picture take: its steps, its preview and its decode; of a restorer, one run."""
    steps = bundle.sampling.steps if bundle.sampling else 0
    times = {"denoiser": steps, "decoder": 1, "preview_decoder": 1, "restorer": 1}
    return sum(run_s[role] * count for role, count in times.items() if role in run_s)


def mixture(bundle: Bundle, proved: Sequence[tuple[Arrangement, Verdict]]) -> tuple[Arrangement, bool] | None:
    """
    Return each role's part where it was the fastest of what was `proved`, and whether that is worth a proof. What was
    not timed, as words of a prompt, stays on the fastest. None: all is the fastest on one of them; or what was proved
    was disturbed, or on devices between which numbers would be copied.
    """
    timed = [(way, verdict) for way, verdict in proved if verdict.run_s and not verdict.disturbed]
    if len(timed) < 2 or len({verdict.device for _, verdict in timed}) > 1:
        return None
    fastest, verdict = min(timed, key=lambda pair: work_s(bundle, pair[1].run_s))
    placed, run_s = [], dict[str, float]()
    for part, engine in fastest.placed:
        of_role = [(v.run_s[part.role], way) for way, v in timed if part.role in v.run_s]
        if of_role:
            run_s[part.role], way = min(of_role, key=lambda pair: pair[0])
            part, engine = next(pair for pair in way.placed if pair[0].role == part.role)
        placed.append((part, engine))
    found = Arrangement(tuple(placed))
    if any(found.parts == way.parts and found.name == way.name for way, _ in proved):
        return None
    return found, work_s(bundle, run_s) * WORTH < work_s(bundle, verdict.run_s)
