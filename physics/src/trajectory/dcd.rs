//! DCD files as CHARMM and NAMD write them: Fortran records of either byte order, coordinates in Å as f32.
//!
//! A file is a header record (`CORD` and 20 integers), a title record, a record with the number of atoms, and for every frame
//! an optional record with the unit cell and one record each for x, y and z. Every record stands between two copies of its length.

use super::{Bytes, Frames, TrajectoryError};

const FORMAT: &str = "DCD";
/// ps per unit of time in the header: √(Da Å²/(kcal/mol)).
const TIME_UNIT: f64 = 0.048_888_21;
const HEADER: usize = 84;
/// Places among the header's integers.
const N_FRAMES: usize = 0;
const FIRST_STEP: usize = 1;
const INTERVAL: usize = 2;
const N_FIXED: usize = 8;
const TIMESTEP: usize = 9;
const HAS_CELL: usize = 10;
const HAS_FOURTH: usize = 11;
const VERSION: usize = 19;

struct Reader<'a> {
    bytes: Bytes<'a>,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn integer(&self, four: [u8; 4]) -> i32 {
        if self.big_endian {
            i32::from_be_bytes(four)
        } else {
            i32::from_le_bytes(four)
        }
    }

    fn real(&self, four: [u8; 4]) -> f32 {
        if self.big_endian {
            f32::from_be_bytes(four)
        } else {
            f32::from_le_bytes(four)
        }
    }

    /// The next record: `None` if the file ends inside, an error if its two lengths differ.
    fn record(&mut self) -> Result<Option<&'a [u8]>, String> {
        let Some(length) = self.bytes.four().map(|four| self.integer(four)) else {
            return Ok(None);
        };
        let length =
            usize::try_from(length).map_err(|_| "a record has a negative length".to_string())?;
        let (Some(content), Some(again)) = (self.bytes.take(length), self.bytes.four()) else {
            return Ok(None);
        };
        if self.integer(again) as u32 as usize != length {
            return Err("a record does not end with its length".into());
        }
        Ok(Some(content))
    }
}

/// Reads all frames.
///
/// # Errors
/// If the file is truncated, damaged or something else, or has fixed atoms.
pub fn read(bytes: &[u8]) -> Result<Frames, TrajectoryError> {
    let unusable = |what: String| TrajectoryError::Format {
        format: FORMAT,
        what,
    };
    let big_endian = match bytes.first_chunk() {
        Some([84, 0, 0, 0]) => false,
        Some([0, 0, 0, 84]) => true,
        _ => {
            return Err(unusable(
                "it does not start with a record of 84 bytes".into(),
            ));
        }
    };
    let mut reader = Reader {
        bytes: Bytes { rest: bytes },
        big_endian,
    };
    let mut header_record = || {
        let record = reader.record().map_err(unusable)?;
        record.ok_or_else(|| unusable("it ends within its header".into()))
    };
    let header = header_record()?;
    let _title = header_record()?;
    let atoms = header_record()?;
    let (words, _) = header.as_chunks::<4>();
    if header.len() != HEADER || words[0] != *b"CORD" {
        return Err(unusable("its first record is not CORD".into()));
    }
    let control = |place: usize| reader.integer(words[1 + place]);
    if control(N_FIXED) != 0 {
        return Err(unusable(
            "it has fixed atoms, which are not supported".into(),
        ));
    }
    let n_atoms = <[u8; 4]>::try_from(atoms)
        .ok()
        .and_then(|four| usize::try_from(reader.integer(four)).ok())
        .filter(|&n| n > 0)
        .ok_or_else(|| unusable("its number of atoms makes no sense".into()))?;
    let charmm = control(VERSION) != 0;
    let (has_cell, has_fourth) = (
        charmm && control(HAS_CELL) != 0,
        charmm && control(HAS_FOURTH) != 0,
    );
    let timestep = f64::from(reader.real(words[1 + TIMESTEP])) * TIME_UNIT;
    let (first, interval) = (f64::from(control(FIRST_STEP)), f64::from(control(INTERVAL)));
    let announced = usize::try_from(control(N_FRAMES)).unwrap_or(0);
    let mut frames = Frames {
        n_atoms,
        positions: Vec::new(),
        times: Vec::new(),
    };
    while !reader.bytes.rest.is_empty() {
        let frame = frames.times.len() + 1;
        let damaged = |what: String| TrajectoryError::Damaged {
            format: FORMAT,
            frame,
            what,
        };
        let mut next = || {
            reader
                .record()
                .map_err(damaged)?
                .ok_or(TrajectoryError::Truncated {
                    format: FORMAT,
                    frame,
                })
        };
        if has_cell {
            next()?;
        }
        let axes = [next()?, next()?, next()?];
        if has_fourth {
            next()?;
        }
        if axes.iter().any(|axis| axis.len() != 4 * n_atoms) {
            return Err(damaged(format!(
                "its coordinates are not those of {n_atoms} atoms"
            )));
        }
        let axes = axes.map(|axis| axis.as_chunks::<4>().0);
        for atom in 0..n_atoms {
            for axis in axes {
                frames.positions.push(0.1 * reader.real(axis[atom]));
            }
        }
        let step = first + interval * (frame - 1) as f64;
        frames.times.push((step * timestep) as f32);
    }
    // Programs that were stopped leave 0 there.
    if frames.times.len() < announced {
        return Err(TrajectoryError::Truncated {
            format: FORMAT,
            frame: frames.times.len() + 1,
        });
    }
    Ok(frames)
}

/// The bytes of a trajectory, little-endian, without a unit cell; `positions` is `[n, atoms, 3]`, nm, `interval` the time between frames
/// in ps; the first frame is at one interval.
///
/// # Errors
/// If a coordinate is not finite.
///
/// # Panics
/// If the positions are not whole frames.
pub fn write(n_atoms: usize, positions: &[f32], interval: f64) -> Result<Vec<u8>, TrajectoryError> {
    assert!(n_atoms > 0 && positions.len().is_multiple_of(3 * n_atoms));
    let n_frames = positions.len() / (3 * n_atoms);
    let mut bytes = Vec::with_capacity(4 * positions.len() + 24 * n_frames + 300);
    let mut record = |content: &[u8]| {
        let length = (content.len() as u32).to_le_bytes();
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(&length);
    };
    let mut control = [[0u8; 4]; 20];
    control[N_FRAMES] = (n_frames as i32).to_le_bytes();
    control[FIRST_STEP] = 1i32.to_le_bytes();
    control[INTERVAL] = 1i32.to_le_bytes();
    control[3] = (n_frames as i32).to_le_bytes();
    control[TIMESTEP] = ((interval / TIME_UNIT) as f32).to_le_bytes();
    control[VERSION] = 24i32.to_le_bytes();
    record(&[b"CORD".as_slice(), control.as_flattened()].concat());
    let mut title = b"Made by boltzmap".to_vec();
    title.resize(80, b' ');
    record(&[1i32.to_le_bytes().as_slice(), &title].concat());
    record(&(n_atoms as i32).to_le_bytes());
    for (index, frame) in positions.chunks_exact(3 * n_atoms).enumerate() {
        if let Some(value) = frame.iter().find(|x| !(10.0 * **x).is_finite()) {
            return Err(TrajectoryError::Coordinate {
                format: FORMAT,
                frame: index + 1,
                value: value.to_string(),
            });
        }
        for axis in 0..3 {
            let column: Vec<u8> = frame
                .iter()
                .skip(axis)
                .step_by(3)
                .flat_map(|x| (10.0 * x).to_le_bytes())
                .collect();
            record(&column);
        }
    }
    Ok(bytes)
}
