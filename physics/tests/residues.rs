//! The builder, residue by residue: templates, minimised geometry, chirality, PDB files; sequences as users write them; disulfides.

use boltzmap_physics::builder::build_minimised;
use boltzmap_physics::forcefield::matching::match_residues;
use boltzmap_physics::minimise::MinimiseSettings;
use boltzmap_physics::sequence::{AMINO_ACIDS, Sequence, SequenceError, VARIANTS};
use boltzmap_physics::system::BornModel;
use boltzmap_physics::terms::vector;
use boltzmap_physics::{Element, ForceField, Topology, build_sequence, pdb};

fn points(positions: &[f64]) -> &[[f64; 3]] {
    positions.as_chunks::<3>().0
}

fn force_fields() -> [ForceField; 2] {
    [
        ForceField::amber99sbildn_obc2(),
        ForceField::ff14sb(Some(BornModel::Obc1), None),
    ]
}

/// Every residue and variant inside a chain, with either amide at the end, and at each charged end that force fields have.
fn sequences() -> Vec<String> {
    let mut all = Vec::new();
    let names = AMINO_ACIDS
        .iter()
        .map(|(_, name)| *name)
        .chain(VARIANTS.iter().map(|(name, _)| *name));
    for name in names {
        if name == "CYX" {
            continue;
        }
        all.push(format!("Ace-[{name}]-Nme"));
        all.push(format!("Ace-[{name}]-NH2"));
        if !["ASH", "GLH", "LYN", "CYM"].contains(&name) {
            all.push(format!("[{name}]A"));
            all.push(format!("A[{name}]"));
        }
    }
    all
}

/// The template that each residue matched.
fn template_names(force_field: &ForceField, topology: &Topology) -> Vec<String> {
    match_residues(force_field, topology)
        .expect("templates")
        .iter()
        .map(|assignment| force_field.templates[assignment.template].name.clone())
        .collect()
}

#[test]
fn every_residue_matches_its_own_template_in_both_force_fields() {
    for text in sequences() {
        let (topology, _) = build_sequence(&text).expect("it can be built");
        let sequence: Sequence = text.parse().expect("a sequence");
        for force_field in force_fields() {
            let found = template_names(&force_field, &topology);
            for (index, residue) in sequence.residues.iter().enumerate() {
                let name = if residue.name == "HIS" {
                    "HIE"
                } else {
                    residue.name
                };
                let capped = text.starts_with("Ace");
                let expected = match (capped, index) {
                    (true, _) => name.to_string(),
                    (false, 0) => format!("N{name}"),
                    (false, _) => format!("C{name}"),
                };
                let place = index + usize::from(capped);
                assert_eq!(found[place], expected, "{text}");
                // Atom names are those of the template, the hydrogens of NH₃⁺ aside.
                let template = force_field
                    .templates
                    .iter()
                    .find(|template| template.name == expected)
                    .expect("a template");
                for atom in topology
                    .atoms
                    .iter()
                    .filter(|atom| atom.residue_index == place)
                {
                    let known = template.atoms.iter().any(|other| other.name == atom.name);
                    assert!(
                        known || (atom.name == "H" && index == 0),
                        "{text}: {} is not in {expected}",
                        atom.name
                    );
                }
            }
        }
    }
}

/// Signed volumes of every centre with four different neighbours or a pair of hydrogens: what must not change.
fn handedness(topology: &Topology, positions: &[f64]) -> Vec<(usize, f64)> {
    let x = points(positions);
    let four = |(centre, around): (usize, &Vec<usize>)| {
        let [a, b, c, _] = around[..] else {
            return None;
        };
        let [a, b, c] = [a, b, c].map(|atom| vector::subtract(x[atom], x[centre]));
        Some((centre, vector::dot(a, vector::cross(b, c)).signum()))
    };
    topology
        .neighbours()
        .iter()
        .enumerate()
        .filter_map(four)
        .collect()
}

fn assert_sound(text: &str, force_field: &ForceField) {
    let (_, ideal) = build_sequence(text).expect("it can be built");
    let built = build_minimised(text, force_field, MinimiseSettings::default())
        .expect("it can be minimised");
    let x = points(&built.positions);
    assert!(
        built.minimised.converged && built.minimised.energy.is_finite(),
        "{text}: {:?}",
        built.minimised
    );
    for bond in &built.system.bonds {
        let [i, j] = bond.atoms;
        let off = vector::distance(x[i], x[j]) - bond.length;
        let name = |atom: usize| &built.topology.atoms[atom].name;
        assert!(
            off.abs() < 0.005,
            "{text}: {}-{} is off by {off} nm",
            name(i),
            name(j)
        );
    }
    for angle in &built.system.angles {
        let [i, j, k] = angle.atoms.map(|atom| x[atom]);
        let off = (vector::angle(i, j, k) - angle.angle).to_degrees();
        // The rings of histidine, tryptophan and proline are pentagons of atoms with angles near 120°.
        assert!(off.abs() < 20.0, "{text}: an angle is off by {off}°");
    }
    assert_eq!(
        handedness(&built.topology, &ideal),
        handedness(&built.topology, &built.positions),
        "{text}"
    );
    for i in 0..x.len() {
        for j in i + 1..x.len() {
            let apart = vector::distance(x[i], x[j]);
            assert!(
                built.system.excluded.contains(&[i, j]) || apart > 0.17,
                "{text}: atoms {i} and {j} are {apart} nm apart"
            );
        }
    }
    for &[carbon, nitrogen] in &built.topology.bonds {
        let [a, b] = [carbon, nitrogen].map(|atom| &built.topology.atoms[atom]);
        let Some(alpha) = built.topology.find(b.residue_index, "CA") else {
            continue;
        };
        if a.residue_index != b.residue_index && a.name == "C" {
            let oxygen = built
                .topology
                .find(a.residue_index, "O")
                .expect("a carbonyl");
            let omega = vector::dihedral(x[oxygen], x[carbon], x[nitrogen], x[alpha]);
            assert!(omega.abs() < 0.6, "{text}: the peptide bond is not trans");
        }
    }
}

#[test]
fn every_residue_minimises_to_a_sound_geometry() {
    for text in sequences() {
        for force_field in force_fields() {
            assert_sound(&text, &force_field);
        }
    }
}

/// The rank of an atom in the sequence rules of Cahn, Ingold and Prelog as far as amino acids need them: atomic numbers of the
/// atom, of its neighbours (a double bond counting twice), and of theirs.
fn rank(topology: &Topology, neighbours: &[Vec<usize>], atom: usize, from: usize) -> Vec<Vec<u8>> {
    let number = |atom: usize| topology.atoms[atom].element.atomic_number();
    let substituents = |atom: usize, from: usize| {
        let mut numbers: Vec<u8> = neighbours[atom]
            .iter()
            .filter(|&&other| other != from)
            .map(|&other| number(other))
            .collect();
        // The carbonyl's double bond.
        if topology.atoms[atom].element == Element::C && neighbours[atom].len() == 3 {
            numbers.extend(
                neighbours[atom]
                    .iter()
                    .filter(|&&other| neighbours[other].len() == 1 && number(other) == 8)
                    .take(1)
                    .map(|_| 8),
            );
        }
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers
    };
    let mut beyond: Vec<Vec<u8>> = neighbours[atom]
        .iter()
        .filter(|&&other| other != from)
        .map(|&other| substituents(other, atom))
        .collect();
    beyond.sort_unstable_by(|a, b| b.cmp(a));
    let mut all = vec![vec![number(atom)], substituents(atom, from)];
    all.extend(beyond);
    all
}

/// `R` or `S` of a centre.
fn configuration(topology: &Topology, positions: &[f64], centre: usize) -> char {
    let neighbours = topology.neighbours();
    let mut around = neighbours[centre].clone();
    around.sort_by_key(|&atom| std::cmp::Reverse(rank(topology, &neighbours, atom, centre)));
    let x = points(positions);
    let [a, b, c] =
        [around[0], around[1], around[2]].map(|atom| vector::subtract(x[atom], x[centre]));
    // Seen with the lowest rank behind, three that turn clockwise are R.
    if vector::dot(a, vector::cross(b, c)) < 0.0 {
        'R'
    } else {
        'S'
    }
}

/// Configurations of the amino acids from the literature: Cα is S in L-amino acids, R in L-cysteine; L-isoleucine is (2S,3S),
/// L-threonine (2S,3R).
#[test]
fn chirality_is_that_of_the_literature() {
    for (letter, name) in AMINO_ACIDS {
        if name == "GLY" {
            continue;
        }
        for (d, text) in [false, true]
            .into_iter()
            .zip([format!("Ace-{letter}-Nme"), format!("Ace-d{letter}-Nme")])
        {
            for positions in [
                build_sequence(&text).expect("it can be built").1,
                build_minimised(
                    &text,
                    &ForceField::amber99sbildn_obc2(),
                    MinimiseSettings::default(),
                )
                .expect("it can be minimised")
                .positions,
            ] {
                let (topology, _) = build_sequence(&text).expect("it can be built");
                let at = |atom: &str| {
                    configuration(
                        &topology,
                        &positions,
                        topology.find(1, atom).expect("a centre"),
                    )
                };
                let mirror = |l: char| match (l, d) {
                    ('S', true) => 'R',
                    ('R', true) => 'S',
                    _ => l,
                };
                let alpha = if name == "CYS" { 'R' } else { 'S' };
                assert_eq!(at("CA"), mirror(alpha), "{text}");
                if name == "ILE" {
                    assert_eq!(at("CB"), mirror('S'), "{text}");
                }
                if name == "THR" {
                    assert_eq!(at("CB"), mirror('R'), "{text}");
                }
            }
        }
    }
}

#[test]
fn mirror_images_have_equal_energies() {
    let force_field = ForceField::amber99sbildn_obc2();
    for (l, d) in [("Ace-W-Nme", "Ace-dW-Nme"), ("Ace-IT-NH2", "Ace-dIdT-NH2")] {
        let energy = |text: &str| {
            let (topology, positions) = build_sequence(text).expect("it can be built");
            let system = force_field.system(&topology).expect("parameters");
            boltzmap_physics::energy_reference(&system, &positions).total()
        };
        let (l, d) = (energy(l), energy(d));
        assert!((l - d).abs() < 1e-9 * l.abs(), "{l} {d}");
    }
}

#[test]
fn longer_peptides_are_sound() {
    let force_field = ForceField::ff14sb(Some(BornModel::Obc2), None);
    for text in [
        "GYDPETGTWG",
        "Ace-WWWRRR-Nme",
        "Ace-PPPP-NH2",
        "KLVFFAE",
        "Ace-dAPdPFW-Nme",
    ] {
        assert_sound(text, &force_field);
    }
}

#[test]
fn disulfides_close() {
    let force_field = ForceField::amber99sbildn_obc2();
    for text in [
        "Ace-CGGC-Nme:1-4",
        "CAAC:1-4",
        "Ace-CPGGdAC-NH2:1-6",
        "CCGGACC:1-7,2-6",
    ] {
        assert_sound(text, &force_field);
        let (topology, _) = build_sequence(text).expect("it can be built");
        let names = template_names(&force_field, &topology);
        assert_eq!(
            names.iter().filter(|name| name.ends_with("CYX")).count(),
            text.matches('C').count(),
            "{text}: {names:?}"
        );
    }
}

/// Atom names shuffled within residues, residues of any name, atoms in any order within them: the molecule is the same.
#[test]
fn pdb_files_are_understood_whatever_their_names_and_order() {
    for text in [
        "GYDPETGTWG",
        "Ace-KMR[HIP]CS-Nme",
        "CFVNQLICW:1-8",
        "Ace-[ASH]dI[LYN]-NH2",
    ] {
        let (topology, positions) = build_sequence(text).expect("it can be built");
        let written = pdb::write(&topology, &positions).expect("it can be written");
        let mut residues: Vec<Vec<String>> = vec![Vec::new(); topology.n_residues()];
        let atoms = written
            .lines()
            .filter(|line| line.starts_with("ATOM") || line.starts_with("HETATM"));
        for (line, atom) in atoms.zip(&topology.atoms) {
            residues[atom.residue_index].push(line.to_string());
        }
        let mut scrambled = String::new();
        for (index, lines) in residues.iter().enumerate() {
            let n = lines.len();
            for k in 0..n {
                // 7 shares no factor with these numbers of atoms unless it divides them.
                let from = if n.is_multiple_of(7) {
                    n - 1 - k
                } else {
                    7 * k % n
                };
                let (name, line) = (&lines[k][12..16], &lines[from]);
                // Every second residue keeps its name.
                let residue = if index % 2 == 0 { "UNK" } else { &line[17..20] };
                scrambled += &format!(
                    "{}{name}{}{residue}{}\n",
                    &line[..12],
                    &line[16..17],
                    &line[20..]
                );
            }
        }
        let (read, x) = pdb::read(&scrambled).expect(text);
        let (plain, y) = pdb::read(&written).expect(text);
        assert_ne!(read, plain);
        for force_field in force_fields() {
            let energy = |topology: &Topology, positions: &[f64]| {
                let system = force_field.system(topology).expect(text);
                boltzmap_physics::energy_reference(&system, positions)
            };
            let (ours, theirs) = (energy(&read, &x), energy(&plain, &y));
            // Impropers, whose order of atoms decides their energy, are not invariant.
            for (a, b) in [
                (ours.bond, theirs.bond),
                (ours.angle, theirs.angle),
                (ours.nonbonded, theirs.nonbonded),
                (ours.generalized_born, theirs.generalized_born),
            ] {
                assert!(
                    (a - b).abs() < 1e-9 * b.abs().max(1.0),
                    "{text}: {a} is not {b}"
                );
            }
        }
    }
}

#[test]
fn sequences_can_be_written_in_many_ways() {
    let parse = |text: &str| text.parse::<Sequence>().expect(text);
    for (text, canonical) in [
        ("Ace-Ala-Nme", "Ace-A-Nme"),
        ("ace-ala-nme", "Ace-A-Nme"),
        ("ACE-ALA-GLY-NME", "Ace-AG-Nme"),
        ("Ace-ALA-Nme", "Ace-ALA-Nme"),
        ("Ac-AA-NHMe", "Ace-AA-Nme"),
        ("Ace-A-NHE", "Ace-A-NH2"),
        ("Ala-d-Ala-Hip", "AdA[HIP]"),
        ("Ala-D-Ala-L-Val", "AdAV"),
        ("Asp-dPhe-GLH-Gly", "DdF[GLH]G"),
        ("AdAA", "AdAA"),
        ("A[d-HIP][dval]A", "Ad[HIP]dVA"),
        ("AdGA", "AGA"),
        ("Cyx-Gly-Cyx", "CGC:1-3"),
        ("CGGC:4-1", "CGGC:1-4"),
        ("Ace-CGCAACC-Nme:1-7, 3-6", "Ace-CGCAACC-Nme:1-7,3-6"),
        ("A[CYM]A", "A[CYM]A"),
    ] {
        let sequence = parse(text);
        assert_eq!(sequence.to_string(), canonical, "{text}");
        assert_eq!(parse(canonical), sequence, "{text}");
    }
}

#[test]
fn impossible_sequences_say_why() {
    let error = |text: &str| text.parse::<Sequence>().expect_err(text);
    for (text, word) in [
        ("CGGC:1-5", "no residue 5"),
        ("CGGC:1-2", "GLY"),
        ("CGGC:1", "pair"),
        ("CCCC:1-2,2-3", "two of them"),
        ("CGGC:1-1", "two of them"),
        ("CGGC:0-4", "no residue 0"),
        ("A[CYX]A", "no partner"),
        ("C[CYX]C[CYX][CYX]", "no partner"),
    ] {
        let error = error(text);
        assert!(
            matches!(error, SequenceError::Disulfide { .. }),
            "{text}: {error}"
        );
        assert!(error.to_string().contains(word), "{text}: {error}");
    }
    for text in ["A", "[ASH]A", "A[LYN]", "dA", "[GLH]-Nme"] {
        assert!(
            matches!(error(text), SequenceError::NoTerminal { .. }),
            "{text}"
        );
    }
    assert!(matches!(
        error("Ad"),
        SequenceError::UnknownResidue { letter: 'd', .. }
    ));
    assert!(matches!(
        error("AÅ"),
        SequenceError::UnknownResidue { letter: 'Å', .. }
    ));
}
