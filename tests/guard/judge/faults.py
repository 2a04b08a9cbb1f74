"""Bundles whose model or detectors misbehave; the worker imports them by name, so they stand in a module."""

import base64
import os
import signal
import time

from titer.guard.judge.messages import Answer, Facts

FACTS = Facts(
    name="faulty",
    model_digest="a" * 64,
    bundle_version="1+0",
    classes=("normal", "pneumonia"),
    output="classes",
    detectors=("watch",),
    input={"kind": "image", "shape": [1, 8, 8], "unit": "", "value_range": [0.0, 255.0], "window": "stored"},
)


def fine(ask, score=0.0, chances=(0.25, 0.75)):
    count = len(ask.files) or len(ask.rows)
    watched = range(min(count, ask.sampled or count)) if ask.watched is None else ask.watched
    return Answer(
        inputs=count,
        probabilities=[list(chances)] * count if ask.infer else [None] * count,
        scores={"watch": [score if place in watched else None for place in range(count)]},
        thresholds={"watch": 1.0},
    )


def _opener(handler):
    return FACTS, handler


def well(_folder):
    return _opener(lambda asks: [fine(ask) for ask in asks])


def drawing(_folder):
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n a heat map").decode()
    return _opener(lambda asks: [fine(ask) if ask.explain is None else Answer(inputs=1, png=png) for ask in asks])


def slow(_folder):
    def handle(asks):
        time.sleep(60)
        return [fine(ask) for ask in asks]

    return _opener(handle)


def late(_folder):
    def handle(asks):
        time.sleep(0.5)
        return [fine(ask) for ask in asks]

    return _opener(handle)


def crashing(_folder):
    def handle(_asks):
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError

    return _opener(handle)


def crashing_on_poison(_folder):
    def handle(asks):
        if any(ask.rows is not None and ask.rows.max() > 200 for ask in asks):
            os.kill(os.getpid(), signal.SIGKILL)
        return [fine(ask) for ask in asks]

    return _opener(handle)


def raising(_folder):
    def handle(_asks):
        raise RuntimeError("the kernel of layer 3 failed")

    return _opener(handle)


def greedy(_folder):
    def handle(asks):
        import torch

        kept = [torch.ones(64 << 20, dtype=torch.uint8) for _ in range(64)]  # 4 GiB
        return [fine(ask) for ask in asks[: len(kept)]]

    return _opener(handle)


def no_number(_folder):
    return _opener(lambda asks: [fine(ask, score=float("nan")) for ask in asks])


def no_chance(_folder):
    return _opener(lambda asks: [fine(ask, chances=(float("nan"), float("nan"))) for ask in asks])


def silent(_folder):
    return _opener(lambda asks: [Answer(inputs=1, probabilities=[[0.5, 0.5]], thresholds={}) for _ in asks])


def alarmed(_folder):
    return _opener(lambda asks: [fine(ask, score=3.0) for ask in asks])


def refusing(_folder):
    from titer.core.errors import SpecError

    raise SpecError("model.safetensors is not the file that was pinned")


def dying(_folder):
    os._exit(3)
