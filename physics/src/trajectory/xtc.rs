//! GROMACS's compressed trajectories: coordinates rounded to 10⁻³ nm.
//!
//! A frame is a big-endian header and a stream of bits, in which an atom is either a whole triple of integers within the frame's
//! bounds or, in runs, a small triple relative to the atom before. The writer is the `molly` crate's; the reader is our own, because
//! damaged bits must be an error here.

use super::{Bytes, Frames, TrajectoryError};

const FORMAT: &str = "XTC";
/// Coordinates are multiples of 1/1000 nm.
const PRECISION: f32 = 1000.0;
/// Farthest coordinate written, nm: beyond, frames need more than 24 bits for an axis.
const LARGEST: f32 = 8000.0;
/// Magic numbers: frames with 32-bit and with 64-bit lengths.
const MAGIC: [i32; 2] = [1995, 2023];
/// The sizes of small triples: s³ fits in as many bits as the index says.
const SIZES: [u32; 73] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 101, 128, 161, 203, 256,
    322, 406, 512, 645, 812, 1024, 1290, 1625, 2048, 2580, 3250, 4096, 5060, 6501, 8192, 10321,
    13003, 16384, 20642, 26007, 32768, 41285, 52015, 65536, 82570, 104_031, 131_072, 165_140,
    208_063, 262_144, 330_280, 416_127, 524_287, 660_561, 832_255, 1_048_576, 1_321_122, 1_664_510,
    2_097_152, 2_642_245, 3_329_021, 4_194_304, 5_284_491, 6_658_042, 8_388_607, 10_568_983,
    13_316_085, 16_777_216,
];
const FIRST_SIZE: usize = 9;
/// Frames of at most so many atoms are not compressed.
const FEW_ATOMS: usize = 9;

/// Reads all frames.
///
/// # Errors
/// If the file is truncated, damaged or something else.
pub fn read(bytes: &[u8]) -> Result<Frames, TrajectoryError> {
    let mut bytes = Bytes { rest: bytes };
    let mut frames = Frames {
        n_atoms: 0,
        positions: Vec::new(),
        times: Vec::new(),
    };
    while !bytes.rest.is_empty() {
        let frame = frames.times.len() + 1;
        read_frame(&mut bytes, frame, &mut frames)?;
    }
    if frames.times.is_empty() {
        return Err(TrajectoryError::Format {
            format: FORMAT,
            what: "it is empty".into(),
        });
    }
    Ok(frames)
}

fn read_frame(
    bytes: &mut Bytes<'_>,
    frame: usize,
    frames: &mut Frames,
) -> Result<(), TrajectoryError> {
    let truncated = || TrajectoryError::Truncated {
        format: FORMAT,
        frame,
    };
    let damaged = |what: &str| TrajectoryError::Damaged {
        format: FORMAT,
        frame,
        what: what.into(),
    };
    let integer =
        |bytes: &mut Bytes<'_>| bytes.four().map(i32::from_be_bytes).ok_or_else(truncated);
    let real = |bytes: &mut Bytes<'_>| bytes.four().map(f32::from_be_bytes).ok_or_else(truncated);
    let magic = integer(bytes)?;
    if !MAGIC.contains(&magic) {
        return Err(if frame == 1 {
            TrajectoryError::Format {
                format: FORMAT,
                what: format!("it starts with {magic} instead of 1995 or 2023"),
            }
        } else {
            damaged("it does not start with 1995 or 2023")
        });
    }
    let count = integer(bytes)?;
    let _step = integer(bytes)?;
    let time = real(bytes)?;
    bytes.take(36).ok_or_else(truncated)?;
    if integer(bytes)? != count || count <= 0 {
        return Err(damaged(
            "its two numbers of atoms differ or are not positive",
        ));
    }
    let n = count as usize;
    if frame == 1 {
        frames.n_atoms = n;
    } else if frames.n_atoms != n {
        return Err(damaged("it has another number of atoms than the first"));
    }
    frames.times.push(time);
    if n <= FEW_ATOMS {
        for _ in 0..3 * n {
            frames.positions.push(real(bytes)?);
        }
        return Ok(());
    }
    let precision = real(bytes)?;
    if !(precision > 0.0 && precision.is_finite()) {
        return Err(damaged("its precision is not positive"));
    }
    let mut bounds = [0; 6];
    for bound in &mut bounds {
        *bound = integer(bytes)?;
    }
    let small = integer(bytes)?;
    let length = if magic == MAGIC[0] {
        integer(bytes)? as u32 as u64
    } else {
        let words = [integer(bytes)?, integer(bytes)?];
        u64::from(words[0] as u32) << 32 | u64::from(words[1] as u32)
    };
    let padded = usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_next_multiple_of(4))
        .ok_or_else(truncated)?;
    let data = bytes.take(padded).ok_or_else(truncated)?;
    // Every atom takes at least a bit: damaged counts must not reserve memory.
    if n > 8 * data.len() * 3 {
        return Err(damaged("it has fewer bits than atoms"));
    }
    let [low, high] = [[0, 1, 2], [3, 4, 5]].map(|places| places.map(|place: usize| bounds[place]));
    decode(
        data,
        n,
        low,
        high,
        small,
        1.0 / precision,
        &mut frames.positions,
    )
    .ok_or_else(|| damaged("its bits make no sense"))
}

/// Bits, most significant first.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn next(&mut self, n: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..n {
            let byte = self.data.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// Three integers below `sizes` in one number of n bits, whose bytes come lowest first.
    fn triple(&mut self, n: u32, sizes: [u64; 3]) -> Option<[i64; 3]> {
        let mut value = 0u128;
        let (mut done, mut left) = (0, n);
        while left > 0 {
            let some = left.min(8);
            value |= u128::from(self.next(some)?) << done;
            done += some;
            left -= some;
        }
        let [_, second, third] = sizes.map(u128::from);
        let last = value % third;
        let rest = value / third;
        let found = [rest / second, rest % second, last];
        let narrow = |value: u128| i64::try_from(value).ok();
        Some([narrow(found[0])?, narrow(found[1])?, narrow(found[2])?])
    }
}

/// How many bits hold a number.
fn bit_length(value: u128) -> u32 {
    128 - value.leading_zeros()
}

fn decode(
    data: &[u8],
    n: usize,
    low: [i32; 3],
    high: [i32; 3],
    small: i32,
    unit: f32,
    positions: &mut Vec<f32>,
) -> Option<()> {
    let mut bits = Bits { data, at: 0 };
    let mut sizes = [0u64; 3];
    for axis in 0..3 {
        sizes[axis] = u64::try_from(i64::from(high[axis]) - i64::from(low[axis]) + 1).ok()?;
        if sizes[axis] == 0 {
            return None;
        }
    }
    let separate = sizes.iter().any(|&size| size > 0xff_ffff);
    let together = bit_length(sizes.iter().map(|&size| u128::from(size)).product());
    let mut small = usize::try_from(small).ok()?;
    let size_of = |index: usize| SIZES.get(index).copied().filter(|&size| size > 0);
    let mut size = size_of(small)?;
    let end = positions.len() + 3 * n;
    let mut put = |coordinate: [i64; 3]| {
        if positions.len() + 3 > end {
            return None;
        }
        positions.extend(coordinate.map(|value| value as f32 * unit));
        Some(positions.len() == end)
    };
    let mut run = 0;
    let mut finished = false;
    while !finished {
        let mut whole = if separate {
            let mut found = [0; 3];
            for axis in 0..3 {
                found[axis] = i64::from(bits.next(bit_length(u128::from(sizes[axis])))?);
            }
            found
        } else {
            bits.triple(together, sizes)?
        };
        for axis in 0..3 {
            whole[axis] += i64::from(low[axis]);
        }
        let mut change = 0;
        if bits.next(1)? == 1 {
            let code = bits.next(5)?;
            run = code / 3;
            change = code as i32 % 3 - 1;
        }
        if run == 0 {
            finished = put(whole)?;
        }
        let mut previous = whole;
        for place in 0..run {
            let offset = bits.triple(small as u32, [u64::from(size); 3])?;
            for axis in 0..3 {
                previous[axis] += offset[axis] - i64::from(size / 2);
            }
            finished = put(previous)?;
            // The first small atom comes before the whole one, which suits water.
            if place == 0 {
                finished = put(whole)?;
            }
        }
        small = small.checked_add_signed(change as isize)?;
        if change != 0 && !finished {
            size = size_of(small).filter(|_| small >= FIRST_SIZE)?;
        }
    }
    Some(())
}

/// The bytes of a trajectory; `positions` is `[n, atoms, 3]`, nm, and `times` `[n]`, ps. There is no box.
///
/// # Errors
/// If a coordinate is not finite or beyond ±8000 nm.
///
/// # Panics
/// If the lengths do not fit.
pub fn write(n_atoms: usize, positions: &[f32], times: &[f32]) -> Result<Vec<u8>, TrajectoryError> {
    assert_eq!(positions.len(), 3 * n_atoms * times.len());
    let mut writer = molly::XTCWriter::new(Vec::new());
    for (index, (frame, &time)) in positions.chunks_exact(3 * n_atoms).zip(times).enumerate() {
        if let Some(value) = frame.iter().find(|x| !x.is_finite() || x.abs() > LARGEST) {
            return Err(TrajectoryError::Coordinate {
                format: FORMAT,
                frame: index + 1,
                value: value.to_string(),
            });
        }
        let frame = molly::Frame {
            step: index as u32,
            time,
            boxvec: [0.0; 9],
            precision: PRECISION,
            positions: frame.to_vec(),
        };
        writer
            .write_frame(&frame)
            .expect("writing to memory succeeds");
    }
    // The compression loses atoms whose neighbours in the file are hundreds of nm away; a file that does not say what it should is refused.
    let back = read(&writer.file)?;
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.51 / PRECISION + 4e-7 * b.abs();
    let off = back
        .positions
        .iter()
        .zip(positions)
        .position(|pair| !close(pair));
    match off {
        None => Ok(writer.file),
        Some(at) => Err(TrajectoryError::Coordinate {
            format: FORMAT,
            frame: at / (3 * n_atoms) + 1,
            value: positions[at].to_string(),
        }),
    }
}
