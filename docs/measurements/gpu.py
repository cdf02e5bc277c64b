"""Measures training steps on the GPUs of this machine: their speed, and the share of its peak.

``python docs/measurements/gpu.py`` prints what it skips, and why; without a GPU that is all.
``--device cpu --smallest`` runs the same code on a CPU, to check the script.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from ebflow.anchor import Anchor
from ebflow.architectures import ARCHITECTURES
from ebflow.bijections.base import products
from ebflow.loss import Loss, LossModule, Progress
from ebflow.objectives import dsm, lazy_ml
from ebflow.randomness import RowGenerator

MODELS = {  # name: architecture, shape of an event, rows of a batch
    "dense, D = 784": ("dense", (784,), 4096),
    "dense, D = 3072": ("dense", (3072,), 4096),
    "convolutional, 3×32×32": ("convolutional", (3, 32, 32), 256),
    "autoregressive, D = 10": ("autoregressive", (10,), 4096),
}
SMALLEST = {"dense, D = 8": ("dense", (8,), 16)}
PRECISIONS = ("highest", "high", "bfloat16")  # float32, TF32 and mixed precision
Step = Callable[[], None]


def training_step(model: tuple, objective: str, device: torch.device, parallel: bool) -> Step:
    """Returns a function that does one step of Adam on random rows."""
    architecture, shape, rows = model
    flow = ARCHITECTURES[architecture](shape).to(device)
    anchor = Anchor(flow)
    loss = dsm if objective == "dsm" else partial(lazy_ml, anchor=anchor)
    module = LossModule(flow, Loss(loss, anchor=anchor))
    if parallel:
        module = DistributedDataParallel(module, broadcast_buffers=False)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-6, fused=True)
    x, count = torch.randn(rows, *shape, device=device), iter(range(10**9))

    def step() -> None:
        number = next(count)
        optimizer.zero_grad(set_to_none=True)
        losses, _ = module(x, None, RowGenerator(0, number), Progress(number))
        losses.mean().backward()
        optimizer.step()

    return step


def seconds(call: Step, device: torch.device, repeats: int = 30) -> float:
    """Returns the seconds of a call, the mean of several after a few others."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(5):
        call()
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - start) / repeats


def operations(call: Step) -> int:
    """Returns the floating-point operations of the products of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def peak(precision: str, device: torch.device, size: int) -> float:
    """Returns the operations per second of one large matrix product."""
    a, b = torch.randn(2, size, size, device=device)
    with products(precision, device.type):
        return 2 * size**3 / seconds(lambda: a @ b, device)


def measure(device: torch.device, models: dict[str, tuple], size: int) -> None:
    """Prints a table of steps on one device."""
    print("| model | objective | precision | ms a step | rows a second | share of the peak |")
    print("|---|---|---|---|---|---|")
    for precision in PRECISIONS:
        most = peak(precision, device, size)
        for name, model in models.items():
            for objective in ("lazy_ml", "dsm"):
                step = training_step(model, objective, device, parallel=False)
                with products(precision, device.type):
                    step()  # the first one refreshes the normalizer
                    count, spent = operations(step), seconds(step, device)
                row = f"{1e3 * spent:.2f} | {model[2] / spent:,.0f} | {count / spent / most:.0%}"
                print(f"| {name} | `{objective}` | {precision} | {row} |", flush=True)
        print(f"| *a product of {size}²* | | {precision} | | | {most / 1e12:.2f} TFLOP/s |")


def worker(rank: int, world: int, folder: str) -> None:
    """Measures steps of all GPUs together; the first one prints."""
    torch.cuda.set_device(rank)
    device, store = torch.device("cuda", rank), f"file://{folder}/store"
    torch.distributed.init_process_group("nccl", store, rank=rank, world_size=world)
    for name, model in MODELS.items():
        alone, together = (
            seconds(training_step(model, "dsm", device, parallel), device)
            for parallel in (False, True)
        )
        if rank == 0:
            print(
                f"| {name} | {1e3 * alone:.2f} | {1e3 * together:.2f} | {alone / together:.0%} |"
            )
    torch.distributed.destroy_process_group()


def measure_together(world: int) -> None:
    """Prints a table of steps on all GPUs, each with a batch of its own (NCCL)."""
    print(
        f"\n| model, `dsm` | ms a step, one GPU | {world} GPUs | efficiency |\n|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(worker, (world, folder), nprocs=world)


def main() -> None:
    """Prints all tables, and what is skipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smallest", action="store_true", help="tiny models, to check the script")
    options = parser.parse_args()
    device, count = torch.device(options.device), torch.cuda.device_count()
    if device.type == "cuda" and not count:
        print(f"skipped: speed on a GPU (PyTorch {torch.__version__} sees no CUDA device)")
        print("skipped: several GPUs by NCCL (the same reason)")
        sys.exit(0)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}\n")
    measure(device, SMALLEST if options.smallest else MODELS, 256 if options.smallest else 8192)
    if count > 1:
        measure_together(count)
    else:
        print(f"\nskipped: several GPUs by NCCL (found {count}, expected two or more)")


if __name__ == "__main__":
    main()
