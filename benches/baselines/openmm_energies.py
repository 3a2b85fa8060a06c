"""Energies and forces of built peptides against OpenMM's Reference platform, term by term.

Optional: needs `pip install openmm` (8.6 was used) and a built `boltzmap`; without OpenMM it says so and succeeds.

    python benches/baselines/openmm_energies.py target/release/boltzmap [--sequences SEQ ...] [--write FILE.json]

For every sequence, `boltzmap build` makes the structure, `boltzmap energy` evaluates it and four conformations distorted by
normal noise, and OpenMM evaluates the same. The file is read by OpenMM's own PDB reader, so that bonds, templates, parameters and
formulas are all compared. Prints the largest deviation of each system and fails if one is above 1e-10: energies relative to
max(1 kJ/mol, |E|), forces relative to the largest component. With --write, OpenMM's numbers for one distorted conformation of each
(positions rounded to 1e-5 nm; energies by term; the forces' projection on cos(k), k counting coordinates, and their largest component)
are written for `physics/tests/openmm.rs`, which compares with them when OpenMM is not there.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

TOLERANCE = 1e-10
WRITTEN = 3
SEQUENCES = [
    "Ace-A-Nme", "Ace-RND-Nme", "Ace-CQE-NH2", "Ace-GHI-Nme", "Ace-LKM-Nme", "Ace-FPS-Nme", "Ace-TWYV-Nme",
    "ARNDCQE", "GHILKMF", "PSTWYVA", "RA", "NC", "DE", "QG", "EH", "IL", "KM", "FP", "ST", "WY", "VR", "HD", "MK", "YF", "CQ", "LW",
    "Ace-[ASH][GLH]-Nme", "Ace-[HID][HIE][HIP]-Nme", "Ace-[LYN]A[CYM]-Nme", "[HID]A[HIP]", "[HIP]A[HIE]",
    "Ace-CGGC-Nme:1-4", "CAAC:1-4", "Ace-dAFdWI-Nme", "GYDPETGTWG", "Ace-dT[d-HIP]-NH2", "Ace-PPP-Nme",
]
FORCE_FIELDS = {
    "amber99sbildn+obc2": ["amber99sbildn.xml", "amber99_obc.xml"],
    "ff14sb+obc1": ["amber14/protein.ff14SB.xml", "implicit/obc1.xml"],
    "ff14sb+obc2": ["amber14/protein.ff14SB.xml", "implicit/obc2.xml"],
}
CUTOFFS = [None, 1.0]
TERMS = {
    "bond": ["HarmonicBondForce"],
    "angle": ["HarmonicAngleForce"],
    "torsion": ["PeriodicTorsionForce"],
    "nonbonded": ["NonbondedForce"],
    "gb": ["GBSAOBCForce", "CustomGBForce"],
}


def openmm_context(openmm, app, unit, pdb, files, cutoff):
    method = app.NoCutoff if cutoff is None else app.CutoffNonPeriodic
    options = {} if cutoff is None else {"nonbondedCutoff": cutoff * unit.nanometer}
    system = app.ForceField(*files).createSystem(
        pdb.topology, nonbondedMethod=method, constraints=None, rigidWater=False, removeCMMotion=False, **options
    )
    groups = {}
    for index, force in enumerate(system.getForces()):
        force.setForceGroup(index)
        groups[force.__class__.__name__] = index
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(system, openmm.VerletIntegrator(0.001), platform), groups


def compare(modules, boltzmap, sequence, directory):
    openmm, app, unit = modules
    path = directory / "built.pdb"
    subprocess.run([boltzmap, "--quiet", "build", sequence, "--out", path], check=True, capture_output=True)
    pdb = app.PDBFile(str(path))
    start = np.array(pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    noise = np.random.default_rng(7)
    conformations = np.stack([start] + [start + noise.normal(0, sigma, start.shape) for sigma in (0.002, 0.005, 0.01, 0.02)])
    conformations = np.round(conformations, 5)
    np.save(directory / "x.npy", conformations)
    record = {"sequence": sequence, "positions": [float(value) for value in conformations[WRITTEN].ravel()], "systems": []}
    worst = 0.0
    for name, files in FORCE_FIELDS.items():
        for cutoff in CUTOFFS:
            command = [boltzmap, "--quiet", "energy", path, "--force-field", name, "--positions", directory / "x.npy"]
            command += ["--out", directory / "e.npz"] + ([] if cutoff is None else ["--cutoff", str(cutoff)])
            subprocess.run(command, check=True, capture_output=True)
            ours = np.load(directory / "e.npz")
            context, groups = openmm_context(openmm, app, unit, pdb, files, cutoff)
            written = {"force_field": name, "cutoff": cutoff}
            record["systems"].append(written)
            for index, x in enumerate(conformations):
                context.setPositions(x)
                for term, classes in TERMS.items():
                    mask = sum(1 << groups[c] for c in classes if c in groups)
                    state = context.getState(getEnergy=True, groups=mask)
                    theirs = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
                    error = abs(ours[term][index] - theirs) / max(1.0, abs(theirs))
                    worst = max(worst, error)
                    if index == WRITTEN:
                        written[term] = theirs
                    if error > TOLERANCE:
                        print(f"  {sequence} {name} cutoff {cutoff}: {term} of conformation {index}: {ours[term][index]} for {theirs}")
                forces = context.getState(getForces=True).getForces(asNumpy=True)
                forces = forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
                if index == WRITTEN:
                    written["force_projection"] = float(forces.ravel() @ np.cos(np.arange(forces.size)))
                    written["largest_force"] = float(np.abs(forces).max())
                error = np.abs(ours["forces"][index] - forces).max() / np.abs(forces).max()
                worst = max(worst, error)
                if error > TOLERANCE:
                    print(f"  {sequence} {name} cutoff {cutoff}: forces of conformation {index} differ by {error:.1e}")
    return worst, len(start), record


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("boltzmap", type=lambda path: str(pathlib.Path(path).resolve()))
    parser.add_argument("--sequences", nargs="+", default=SEQUENCES)
    parser.add_argument("--write", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        import openmm
        from openmm import app, unit
    except ImportError:
        print("OpenMM is not installed; nothing compared (pip install openmm)")
        return 0
    worst, records = 0.0, []
    for sequence in arguments.sequences:
        with tempfile.TemporaryDirectory() as directory:
            error, atoms, record = compare((openmm, app, unit), arguments.boltzmap, sequence, pathlib.Path(directory))
        print(f"{sequence:24} {atoms:4} atoms: {error:.1e}", flush=True)
        worst = max(worst, error)
        records.append(json.dumps(record, separators=(",", ":")))
    if arguments.write:
        arguments.write.write_text("[\n" + ",\n".join(records) + "\n]\n")
    print(f"largest deviation {worst:.1e} (OpenMM {openmm.__version__})")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
