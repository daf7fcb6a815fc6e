"""Ranks and stages forked from one process that has imported everything: they start at once, not in ten seconds."""

import os
import socket
import sys
from pathlib import Path

import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from deita_train.store.locks import PARENT_VARIABLE

TIMEOUT = 150


def rank_environment(rank, world_size, port):
    """The environment of a rank under torch's launcher; nothing for a single process."""
    if world_size == 1:
        return {}
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def start_ranks(processes, be_a_rank, folder, world_size, port):
    """Children at work on `be_a_rank(folder, rank, world_size, port)`, one for each rank."""
    ranks = [processes.Process(target=be_a_rank, args=(folder, rank, world_size, port)) for rank in range(world_size)]
    for rank in ranks:
        rank.start()
    return ranks


def launch_environment(config_file):
    """What `accelerate launch` adds to a rank's environment for a configuration of several processes."""
    command = ["--config_file", str(config_file), "--main_process_port", "0", "script.py"]
    arguments, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    if arguments.use_deepspeed:
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        environment = prepare_deepspeed_cmd_env(arguments)[1]
    else:
        environment = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in environment.items() if os.environ.get(name) != value}


def fork_ranks(processes, target, arguments, world_size, log, environment=None):
    """Call `target(*arguments)` in a child for each rank, on one thread each; their exit codes.

    What rank 0 printed lies in `log`, and what rank n printed beside it in `<log>n`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(world_size):
        variables = {**(environment or {}), **rank_environment(rank, world_size, port)}
        file = log if rank == 0 else log.with_name(f"{log.name}{rank}")
        ranks.append(processes.Process(target=_be_a_rank, args=(target, arguments, variables, file)))
        ranks[-1].start()
    ranks[0].join(TIMEOUT)
    for rank in ranks:
        rank.join(5)
        rank.kill()  # without rank 0 it would wait in a collective
        rank.join()
    return [rank.exitcode for rank in ranks]


def _be_a_rank(target, arguments, environment, log: Path):
    """Target of a child: nobody's stage, with its output in a file."""
    os.environ.pop(PARENT_VARIABLE, None)
    os.environ |= environment
    torch.set_num_threads(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    target(*arguments)
