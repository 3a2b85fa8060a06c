"""OpenMM's side of `boltzmap bench physics`: energies with forces, and Langevin steps, of one system on one platform.

    python physics_openmm.py SPECIFICATION.json

The specification names a PDB file, ffxml files, the cutoff, and an npz file with the conformations. The process reads one JSON object
per line and answers each with one:

    {"op": "prepare", "platform": NAME, "threads": N, "compared": M}   energies and forces of the first M conformations, as npy files
    {"op": "energies", "count": K}     seconds for K conformations, one per call, with their forces
    {"op": "steps", "count": K}        seconds for K steps of LangevinMiddle
    {"op": "exit"}

Nothing runs between two answers.
"""

import json
import os
import sys
import time
import traceback

import numpy as np
import openmm
from openmm import app, unit


class Side:
    """One system on one platform."""

    def __init__(self, specification, platform, threads):
        pdb = app.PDBFile(specification["pdb"])
        cutoff = specification["cutoff_nm"]
        method = app.NoCutoff if cutoff is None else app.CutoffNonPeriodic
        options = {} if cutoff is None else {"nonbondedCutoff": cutoff * unit.nanometer}
        system = app.ForceField(*specification["files"]).createSystem(
            pdb.topology, nonbondedMethod=method, constraints=None, rigidWater=False, removeCMMotion=False, **options
        )
        integrator = openmm.LangevinMiddleIntegrator(
            specification["temperature_k"], specification["friction_per_ps"], specification["timestep_fs"] * 1e-3
        )
        chosen = openmm.Platform.getPlatformByName(platform)
        properties = {"Threads": str(threads)} if platform == "CPU" else {}
        self.context = openmm.Context(system, integrator, chosen, properties)
        self.integrator = integrator
        self.conformations = np.load(specification["conformations"])["positions"].astype(np.float64)
        self.at = 0
        self.context.setPositions(self.conformations[0])
        self.context.setVelocitiesToTemperature(specification["temperature_k"], 1)

    def evaluate(self, conformation):
        self.context.setPositions(conformation)
        state = self.context.getState(getEnergy=True, getForces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        return energy, forces

    def energies(self, count):
        n = len(self.conformations)
        start = time.perf_counter()
        for k in range(count):
            self.evaluate(self.conformations[(self.at + k) % n])
        seconds = time.perf_counter() - start
        self.at = (self.at + count) % n
        return seconds

    def steps(self, count):
        start = time.perf_counter()
        self.integrator.step(count)
        # Waits until the steps are done, should a platform run ahead.
        self.context.getState(getEnergy=True)
        return time.perf_counter() - start


def main():
    with open(sys.argv[1]) as file:
        specification = json.load(file)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What libraries print does not belong to the protocol.

    def reply(**values):
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    reply(ok=True, versions={"openmm": openmm.__version__, "numpy": np.__version__})
    side = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "prepare":
                side = None
                side = Side(specification, request["platform"], request["threads"])
                results = [side.evaluate(x) for x in side.conformations[: request["compared"]]]
                folder = os.path.dirname(os.path.abspath(sys.argv[1]))
                paths = [os.path.join(folder, f"{name}-{os.getpid()}.npy") for name in ("energies", "forces")]
                np.save(paths[0], np.array([energy for energy, _ in results]))
                np.save(paths[1], np.stack([forces for _, forces in results]))
                # A context that has taken no step yet does more than the next ones.
                side.steps(10)
                reply(ok=True, energies=paths[0], forces=paths[1])
            elif request["op"] == "energies":
                reply(ok=True, seconds=side.energies(request["count"]))
            elif request["op"] == "steps":
                reply(ok=True, seconds=side.steps(request["count"]))
            elif request["op"] == "exit":
                break
            else:
                reply(ok=False, error=f"unknown request {request['op']}")
        except Exception as error:  # noqa: BLE001: the other side decides what a failure means
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}".strip()
            reply(ok=False, error=text.splitlines()[0][:300])


if __name__ == "__main__":
    main()
