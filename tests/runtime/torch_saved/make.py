"""How the files beside this one were made, with torch 2.15.0 and 2.13.0 on a CPU."""

import collections

import numpy as np
import torch

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
own = net.state_dict()
base = torch.arange(24.0).reshape(4, 6)
arrays = collections.OrderedDict(
    own,
    transposed=base.t(),
    slice=base[1:3, 2:5],
    scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 3),
    half=base.half() / 3,
    bf16=(base / 3).bfloat16(),
    double=base.double() / 3,
    param=torch.nn.Parameter(base.clone()),
)
np.savez("expected.npz", **{k: v.detach().float().numpy() for k, v in arrays.items()})
arrays._metadata = own._metadata
torch.save(arrays, "zip.pth")
torch.save(arrays, "old.pth", _use_new_zipfile_serialization=False)
torch.save(net, "whole.pth")  # a module, not its state dict

adam = torch.optim.Adam(net.parameters())
net(torch.rand(2, 3, 8, 8)).sum().backward()
adam.step()
run = {
    "epoch": 3,
    "arch": "x",
    "perf": np.float64(0.5),
    "state_dict": collections.OrderedDict(
        (f"module.{name}", x) for name, x in net.state_dict().items()
    ),
    "optimizer": adam.state_dict(),
}
torch.save(run, "run.pth.tar")
graph = {"module.W": base, "module.bias": base[0].clone()}
torch.save(
    run | {"gcn_state_dict": graph, "gcn_optimizer": adam.state_dict()}, "dag.pth"
)
