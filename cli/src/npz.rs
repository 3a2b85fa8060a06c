//! Arrays in `.npz` and `.npy` files.
//!
//! Written archives are uncompressed ZIP files without dates: the same arrays give the same bytes. Archives that
//! numpy writes, compressed or not, are read. Errors are one sentence that names the file and the array.

mod zip;

use std::path::{Path, PathBuf};

use npyz::{Order, WriterBuilder};
use thiserror::Error;

use crate::run_dir;

/// What can be wrong with an array file.
#[derive(Debug, Error)]
pub enum ArrayError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no archive, or incomplete.
    #[error("{} is not a complete npz file: {reason}", path.display())]
    Archive {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The archive lacks an array.
    #[error("{} holds no array '{name}' (it holds: {held})", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// Which array.
        name: String,
        /// The arrays it holds.
        held: String,
    },
    /// The array is damaged or of a kind that is not read.
    #[error("{what} is not a usable array: {reason}")]
    Array {
        /// The file, and the array inside it.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The array has another shape.
    #[error("{what} has the shape {found}, expected {expected}")]
    Shape {
        /// The file, and the array inside it.
        what: String,
        /// The array's shape.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// A value is not finite.
    #[error("{what} has the value {value} at index {index:?}")]
    NotFinite {
        /// The file, and the array inside it.
        what: String,
        /// NaN or an infinity.
        value: f64,
        /// Where.
        index: Vec<usize>,
    },
}

/// An element type of arrays.
pub trait Element: npyz::AutoSerialize + npyz::Serialize + Copy {
    /// Reads an array of any type that converts to this one without changing a value's meaning.
    fn read(file: npyz::NpyFile<&[u8]>) -> Result<Vec<Self>, String>;
    /// The value as f64, for checks.
    fn to_f64(self) -> f64;
}

macro_rules! element {
    ($type:ty, $($code:literal => $stored:ty: $convert:expr),+) => {
        impl Element for $type {
            fn read(file: npyz::NpyFile<&[u8]>) -> Result<Vec<Self>, String> {
                let code = code(&file);
                match code.as_str() {
                    $($code => {
                        let values: Vec<$stored> = file.into_vec().map_err(incomplete)?;
                        #[allow(clippy::redundant_closure_call)]
                        Ok(values.into_iter().map($convert).collect())
                    })+
                    other => Err(format!(
                        "its element type is {other}, expected {}", [$($code),+].join(" or "))),
                }
            }

            fn to_f64(self) -> f64 {
                f64::from_element(self)
            }
        }
    };
}

/// Lossy conversions of every element type to f64, for checks only.
trait FromElement<T> {
    fn from_element(value: T) -> Self;
}

macro_rules! from_element {
    ($($type:ty => $convert:expr),+) => {
        $(impl FromElement<$type> for f64 { fn from_element(value: $type) -> f64 { ($convert)(value) } })+
    };
}
from_element!(f32 => f64::from, f64 => |x| x, i64 => |x| x as f64, u8 => f64::from, bool => |x| f64::from(u8::from(x)));

element!(f64, "f8" => f64: |x| x, "f4" => f32: f64::from);
element!(f32, "f4" => f32: |x| x, "f8" => f64: |x| x as f32);
element!(i64, "i8" => i64: |x| x, "i4" => i32: i64::from);
element!(u8, "u1" => u8: |x| x);
element!(bool, "b1" => bool: |x| x);

/// Kind and size of an array's elements, such as `f8`; the byte order is left to the reader.
fn code(file: &npyz::NpyFile<&[u8]>) -> String {
    match file.dtype() {
        npyz::DType::Plain(plain) => {
            let text = plain.to_string();
            text.trim_start_matches(['<', '>', '|', '=']).to_owned()
        }
        other => other.descr(),
    }
}

fn incomplete(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it is truncated".to_owned(),
        _ => error.to_string(),
    }
}

/// An array with its shape, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    /// Length of every axis.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Vec<T>,
}

fn parse<T: Element>(bytes: &[u8], what: &str) -> Result<Array<T>, ArrayError> {
    let fail = |reason: String| ArrayError::Array {
        what: what.to_owned(),
        reason,
    };
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err(fail("it is not in the npy format".into()));
    }
    let file = npyz::NpyFile::new(bytes).map_err(|error| fail(incomplete(error)))?;
    let shape: Vec<usize> = file.shape().iter().map(|&axis| axis as usize).collect();
    // A damaged header must not make us reserve memory for elements that the file cannot hold.
    let elements = shape
        .iter()
        .try_fold(1_usize, |product, &axis| product.checked_mul(axis));
    if elements.is_none_or(|elements| elements > bytes.len()) {
        return Err(fail("it is truncated".into()));
    }
    let order = file.order();
    let values = T::read(file).map_err(fail)?;
    let values = match order {
        Order::C => values,
        Order::Fortran => row_major(&values, &shape),
    };
    Ok(Array { shape, values })
}

/// Reorders column-major elements.
fn row_major<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    (0..values.len())
        .map(|index| {
            values[indices(index, shape)
                .iter()
                .zip(&strides)
                .map(|(i, stride)| i * stride)
                .sum::<usize>()]
        })
        .collect()
}

/// The index on every axis of a row-major position.
fn indices(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        index[axis] = position % shape[axis].max(1);
        position /= shape[axis].max(1);
    }
    index
}

fn show_shape(shape: &[usize]) -> String {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", axes.join(", "))
}

impl<T: Element> Array<T> {
    /// Checks the shape; `None` stands for any length.
    fn expect_shape(self, expected: &[Option<usize>], what: &str) -> Result<Array<T>, ArrayError> {
        let fits = self.shape.len() == expected.len()
            && self
                .shape
                .iter()
                .zip(expected)
                .all(|(found, expected)| expected.is_none_or(|axis| axis == *found));
        if fits {
            return Ok(self);
        }
        let axes: Vec<String> = expected
            .iter()
            .map(|axis| axis.map_or_else(|| "n".to_owned(), |axis| axis.to_string()))
            .collect();
        Err(ArrayError::Shape {
            what: what.to_owned(),
            found: show_shape(&self.shape),
            expected: format!("[{}]", axes.join(", ")),
        })
    }

    /// Index of the first value that is not finite.
    pub fn first_not_finite(&self) -> Option<Vec<usize>> {
        let position = self
            .values
            .iter()
            .position(|value| !value.to_f64().is_finite())?;
        Some(indices(position, &self.shape))
    }
}

/// Reads one array from a `.npy` file.
pub fn read_npy<T: Element>(
    path: &Path,
    expected: &[Option<usize>],
) -> Result<Array<T>, ArrayError> {
    let bytes = std::fs::read(path).map_err(|source| ArrayError::Read {
        path: path.to_owned(),
        source,
    })?;
    let what = path.display().to_string();
    parse::<T>(&bytes, &what)?.expect_shape(expected, &what)
}

/// An opened `.npz` file.
pub struct NpzFile {
    path: PathBuf,
    members: Vec<(String, Vec<u8>)>,
}

impl NpzFile {
    /// Reads a file whole and checks its checksums.
    pub fn open(path: &Path) -> Result<NpzFile, ArrayError> {
        let bytes = std::fs::read(path).map_err(|source| ArrayError::Read {
            path: path.to_owned(),
            source,
        })?;
        let members = zip::read(&bytes)
            .map_err(|reason| ArrayError::Archive {
                path: path.to_owned(),
                reason,
            })?
            .into_iter()
            .map(|(name, data)| (name.strip_suffix(".npy").unwrap_or(&name).to_owned(), data))
            .collect();
        Ok(NpzFile {
            path: path.to_owned(),
            members,
        })
    }

    /// The names of the arrays, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| name.as_str())
    }

    /// Whether the file holds an array of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.names().any(|held| held == name)
    }

    /// Reads an array; `None` in `expected` stands for any length.
    pub fn array<T: Element>(
        &self,
        name: &str,
        expected: &[Option<usize>],
    ) -> Result<Array<T>, ArrayError> {
        let Some((_, bytes)) = self.members.iter().find(|(held, _)| held == name) else {
            return Err(ArrayError::Missing {
                path: self.path.clone(),
                name: name.to_owned(),
                held: self.names().collect::<Vec<_>>().join(", "),
            });
        };
        let what = self.describe(name);
        parse::<T>(bytes, &what)?.expect_shape(expected, &what)
    }

    /// Reads an array and refuses NaN and infinities.
    pub fn finite<T: Element>(
        &self,
        name: &str,
        expected: &[Option<usize>],
    ) -> Result<Array<T>, ArrayError> {
        let array = self.array::<T>(name, expected)?;
        match array.first_not_finite() {
            None => Ok(array),
            Some(index) => {
                let position = index
                    .iter()
                    .zip(&array.shape)
                    .fold(0, |position, (i, axis)| position * axis + i);
                Err(ArrayError::NotFinite {
                    what: self.describe(name),
                    value: array.values[position].to_f64(),
                    index,
                })
            }
        }
    }

    fn describe(&self, name: &str) -> String {
        format!("the array '{name}' of {}", self.path.display())
    }
}

/// An `.npz` file in the making.
#[derive(Default)]
pub struct NpzWriter {
    members: Vec<(String, Vec<u8>)>,
}

impl NpzWriter {
    /// An empty archive.
    pub fn new() -> NpzWriter {
        NpzWriter::default()
    }

    /// Adds an array. The number of values must be the product of the shape.
    #[must_use]
    pub fn array<T: Element>(mut self, name: &str, shape: &[usize], values: &[T]) -> NpzWriter {
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "array '{name}' of shape {shape:?}"
        );
        self.members
            .push((format!("{name}.npy"), to_npy(shape, values)));
        self
    }

    /// Writes the file under a temporary name and renames it.
    pub fn write(self, path: &Path) -> anyhow::Result<()> {
        let bytes = zip::write(&self.members)
            .map_err(|reason| anyhow::anyhow!("{}: {reason}", path.display()))?;
        run_dir::write_atomically(path, &bytes)
    }
}

/// An array in the npy format.
fn to_npy<T: Element>(shape: &[usize], values: &[T]) -> Vec<u8> {
    let shape: Vec<u64> = shape.iter().map(|&axis| axis as u64).collect();
    let mut bytes = Vec::with_capacity(128 + std::mem::size_of_val(values));
    let written = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&shape)
        .writer(&mut bytes)
        .begin_nd()
        .and_then(|mut writer| {
            writer.extend(values.iter().copied())?;
            writer.finish()
        });
    written.expect("writing to memory does not fail");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> NpzWriter {
        NpzWriter::new()
            .array("x", &[2, 3], &[1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.5])
            .array("y", &[2], &[1.5_f32, f32::NAN])
            .array("n", &[], &[-7_i64])
            .array("b", &[3], &[true, false, true])
            .array("u", &[0], &[] as &[u8])
    }

    #[test]
    fn arrays_survive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.npz");
        sample().write(&path).unwrap();
        let first = std::fs::read(&path).unwrap();
        sample().write(&path).unwrap();
        assert_eq!(
            first,
            std::fs::read(&path).unwrap(),
            "the same arrays give the same bytes"
        );
        let file = NpzFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["x", "y", "n", "b", "u"]);
        let x = file.finite::<f64>("x", &[None, Some(3)]).unwrap();
        assert_eq!(
            (x.shape, x.values),
            (vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.5])
        );
        assert_eq!(
            file.array::<f32>("x", &[None, None]).unwrap().values[5],
            6.5
        );
        assert_eq!(file.array::<i64>("n", &[]).unwrap().values, [-7]);
        assert_eq!(
            file.array::<bool>("b", &[None]).unwrap().values,
            [true, false, true]
        );
        assert!(file.array::<u8>("u", &[None]).unwrap().values.is_empty());

        let shape = file
            .array::<f64>("x", &[None, Some(4)])
            .unwrap_err()
            .to_string();
        assert!(
            shape.ends_with("has the shape [2, 3], expected [n, 4]"),
            "{shape}"
        );
        let not_finite = file.finite::<f64>("y", &[None]).unwrap_err().to_string();
        assert!(not_finite.contains("NaN at index [1]"), "{not_finite}");
        let missing = file.array::<f64>("z", &[None]).err().unwrap().to_string();
        assert!(
            missing.contains("no array 'z' (it holds: x, y, n, b, u)"),
            "{missing}"
        );
        let kind = file.array::<f64>("b", &[None]).unwrap_err().to_string();
        assert!(
            kind.contains("its element type is b1, expected f8 or f4"),
            "{kind}"
        );
    }

    #[test]
    fn every_truncation_and_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.npz");
        NpzWriter::new()
            .array("x", &[4], &[1.0_f64, 2.0, 3.0, 4.0])
            .write(&path)
            .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(
                NpzFile::open(&path).is_err(),
                "cut to {length} of {}",
                bytes.len()
            );
        }
        let data = bytes.len() - 22 - 46 - "x.npy".len() - 8;
        let mut flipped = bytes.clone();
        flipped[data] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let message = NpzFile::open(&path).err().unwrap().to_string();
        assert!(message.contains("checksum"), "{message}");
    }

    #[test]
    fn column_major_arrays_are_reordered() {
        // [[1, 2, 3], [4, 5, 6]] stored by columns.
        assert_eq!(row_major(&[1, 4, 2, 5, 3, 6], &[2, 3]), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn damaged_npy_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.npy");
        let bytes = to_npy(&[2, 2], &[1.0_f64, 2.0, 3.0, 4.0]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(
            read_npy::<f64>(&path, &[None, Some(2)]).unwrap().values,
            [1.0, 2.0, 3.0, 4.0]
        );
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(
                read_npy::<f64>(&path, &[None, None]).is_err(),
                "cut to {length}"
            );
        }
    }
}
