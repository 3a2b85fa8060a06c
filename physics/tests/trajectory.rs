//! Trajectory formats: round trips, the other implementation of XTC, foreign variants of DCD, damage.

use boltzmap_kernels::random::Stream;
use boltzmap_physics::trajectory::{TrajectoryError, dcd, xtc};
use proptest::prelude::*;

/// Frames of a chain of atoms `step` nm apart, spread by chance.
fn frames(n_frames: usize, n_atoms: usize, step: f64, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, 1, 1);
    let mut positions = Vec::new();
    for _ in 0..n_frames {
        let mut at = [0.0; 3];
        for _ in 0..n_atoms {
            for x in &mut at {
                *x += step * stream.standard_normal();
                positions.push(*x as f32);
            }
        }
    }
    positions
}

proptest! {
    #[test]
    fn xtc_reads_back_to_its_precision(
        n_frames in 1..4usize,
        n_atoms in 1..60usize,
        // From atoms in one place, over chemical distances, to hundreds of nm.
        step in prop::sample::select(vec![0.0, 0.01, 0.1, 1.0, 10.0, 200.0]),
        seed in 0..1000u64,
    ) {
        let positions = frames(n_frames, n_atoms, step, seed);
        let times: Vec<f32> = (0..n_frames).map(|i| 0.5 * i as f32).collect();
        let written = xtc::write(n_atoms, &positions, &times);
        // Neighbours hundreds of nm apart may be refused, never garbled.
        prop_assert!(written.is_ok() || step > 100.0);
        prop_assume!(written.is_ok());
        let bytes = written.unwrap();
        let read = xtc::read(&bytes).unwrap();
        prop_assert_eq!((read.n_atoms, &read.times), (n_atoms, &times));
        // The other reader reads the same.
        let mut reader = molly::XTCReader::new(bytes.as_slice());
        for frame in reader.read_all_frames().unwrap().iter().zip(read.positions.chunks(3 * n_atoms)) {
            prop_assert_eq!(frame.0.positions.as_slice(), frame.1);
        }
        for (a, b) in read.positions.iter().zip(&positions) {
            prop_assert!((a - b).abs() <= 0.5001e-3 + 4e-7 * b.abs(), "{} {}", a, b);
        }
    }

    #[test]
    fn damage_is_an_error_or_other_numbers_but_never_a_panic(
        at in 0..2000usize,
        value in any::<u8>(),
        cut in 0..2000usize,
    ) {
        let positions = frames(3, 25, 0.1, 5);
        for bytes in [
            xtc::write(25, &positions, &[0.0, 1.0, 2.0]).unwrap(),
            dcd::write(25, &positions, 1.0).unwrap(),
        ] {
            let mut changed = bytes.clone();
            let place = at % bytes.len();
            changed[place] = value;
            let _ = (xtc::read(&changed), dcd::read(&changed));
            let end = cut % bytes.len();
            let _ = (xtc::read(&bytes[..end]), dcd::read(&bytes[..end]));
        }
    }
}

#[test]
fn truncation_names_the_frame() {
    let positions = frames(3, 25, 0.1, 5);
    let bytes = xtc::write(25, &positions, &[0.0, 1.0, 2.0]).unwrap();
    let error = xtc::read(&bytes[..bytes.len() - 1]).unwrap_err();
    assert_eq!(
        error,
        TrajectoryError::Truncated {
            format: "XTC",
            frame: 3
        }
    );
    let bytes = dcd::write(25, &positions, 1.0).unwrap();
    let error = dcd::read(&bytes[..bytes.len() - 1]).unwrap_err();
    assert_eq!(
        error,
        TrajectoryError::Truncated {
            format: "DCD",
            frame: 3
        }
    );
    // Cut between frames: the header says how many there should be.
    let frame = 3 * (4 * 25 + 8);
    let error = dcd::read(&bytes[..bytes.len() - frame]).unwrap_err();
    assert_eq!(
        error,
        TrajectoryError::Truncated {
            format: "DCD",
            frame: 3
        }
    );
    for empty in [
        &b""[..],
        b"PDB",
        b"a text file that is long enough to hold a header",
    ] {
        assert!(matches!(
            xtc::read(empty),
            Err(TrajectoryError::Format { .. } | TrajectoryError::Truncated { .. })
        ));
        assert!(matches!(
            dcd::read(empty),
            Err(TrajectoryError::Format { .. })
        ));
    }
    assert!(xtc::write(1, &[f32::NAN, 0.0, 0.0], &[0.0]).is_err());
    assert!(dcd::write(1, &[f32::INFINITY, 0.0, 0.0], 1.0).is_err());
}

#[test]
fn dcd_reads_back_in_either_byte_order_and_with_a_unit_cell() {
    let positions = frames(4, 7, 0.1, 2);
    let bytes = dcd::write(7, &positions, 0.2).unwrap();
    let close = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .all(|(a, b)| (a - b).abs() <= 2e-7 * b.abs())
    };
    let read = dcd::read(&bytes).unwrap();
    assert!(read.n_atoms == 7 && close(&read.positions, &positions));
    for (index, time) in read.times.iter().enumerate() {
        assert!((time - 0.2 * (index + 1) as f32).abs() < 1e-5, "{time}");
    }
    // All numbers are of four bytes, but for the texts.
    let text = [4..8, 92 + 8..92 + 4 + 4 + 80];
    let mut swapped = bytes.clone();
    for (word, four) in swapped.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        if !text.iter().any(|range| range.contains(&(4 * word))) {
            four.reverse();
        }
    }
    assert_eq!(dcd::read(&swapped).unwrap(), read);
    // A unit cell of six f64 before each frame's coordinates.
    let header = 92 + 92 + 12;
    let mut with_cell = bytes[..header].to_vec();
    with_cell[8 + 4 * 10] = 1;
    for frame in bytes[header..].chunks(3 * (4 * 7 + 8)) {
        with_cell.extend(48u32.to_le_bytes());
        with_cell.extend([0; 48]);
        with_cell.extend(48u32.to_le_bytes());
        with_cell.extend(frame);
    }
    assert_eq!(dcd::read(&with_cell).unwrap(), read);
}
