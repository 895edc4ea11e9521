//! Arrays of a `.npz` archive: calibration data, test data, labels.
//!
//! Takes what `numpy.savez` and `savez_compressed` write (the `.npy` format 1.0 to 3.0). Gives [`Array`]s, all real
//! types as `f32`, all integers and booleans as `i64`. Refuses other types (texts, objects, records, complex
//! numbers, `float128`), data that is not finite where a model would read it, and archives that claim more than they
//! hold: memory grows with the bytes that are really there.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::shape;

/// Why data could not be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Error {
    /// The file is missing or is no archive.
    #[error("cannot read `{}`: {why}", path.display())]
    #[diagnostic(help("it must be a .npz file as numpy.savez writes it"))]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No array of that name.
    #[error("`{}` holds no array `{key}`; it has {names}", path.display())]
    Missing {
        /// The archive.
        path: PathBuf,
        /// What was asked for.
        key: String,
        /// What there is.
        names: String,
    },
    /// An array that cannot be read.
    #[error("array `{key}` of `{}`: {why}", path.display())]
    #[diagnostic(help(
        "save it as a plain array of numbers: numpy.savez(path, {key}=array.astype('float32'))"
    ))]
    Array {
        /// The archive.
        path: PathBuf,
        /// Name of the array.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// No array has the shape that the model reads.
    #[error("`{}` holds no array for an input of shape {wanted:?} per sample; it has {arrays}", path.display())]
    #[diagnostic(help("name the array by `--input KEY`; its first axis counts samples"))]
    NoInput {
        /// The archive.
        path: PathBuf,
        /// Shape of one sample.
        wanted: Vec<usize>,
        /// Names and shapes of all arrays.
        arrays: String,
    },
    /// The shape of an array is not what the model reads.
    #[error("array `{key}` of `{}` has shape {found:?}, the model reads {wanted:?} per sample", path.display())]
    #[diagnostic(help(
        "its first axis must count samples and the others be those of the model's input, in the same order"
    ))]
    Shape {
        /// The archive.
        path: PathBuf,
        /// Name of the array.
        key: String,
        /// Its shape.
        found: Vec<usize>,
        /// Shape of one sample.
        wanted: Vec<usize>,
    },
    /// A sample that is not a number.
    #[error("array `{key}` of `{}` holds {value} at index {index:?}", path.display())]
    #[diagnostic(help("clean the data: every number must be finite"))]
    NotFinite {
        /// The archive.
        path: PathBuf,
        /// Name of the array.
        key: String,
        /// Position, one number for each axis.
        index: Vec<usize>,
        /// NaN or an infinity.
        value: f32,
    },
    /// Labels that do not belong to the samples.
    #[error("labels `{key}` of `{}`: {why}", path.display())]
    #[diagnostic(help("labels are integers, one for each sample"))]
    Labels {
        /// The archive.
        path: PathBuf,
        /// Name of the array.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// Numbers of an [`Array`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// From any real type.
    F32(Vec<f32>),
    /// From any integer type or booleans.
    I64(Vec<i64>),
}

/// A named array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its key in the archive.
    pub name: String,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// As many numbers as the shape says.
    pub data: Data,
}

/// An open archive. Arrays are read when they are asked for.
pub struct Archive {
    path: PathBuf,
    names: Vec<String>,
    // Reading moves the position in the file.
    zip: Mutex<npyz::npz::NpzArchive<BufReader<File>>>,
}

/// Largest array that is read, in bytes.
const LARGEST: usize = 1 << 31;

impl Archive {
    /// Opens an archive and lists its arrays.
    ///
    /// # Errors
    /// [`Error::Archive`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let zip = npyz::npz::NpzArchive::open(path)
            .map_err(|error| Error::Archive { path: path.into(), why: error.to_string() })?;
        let mut names: Vec<String> = zip.array_names().map(String::from).collect();
        names.sort();
        Ok(Self { path: path.into(), names, zip: Mutex::new(zip) })
    }

    /// Keys of all arrays, sorted.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Reads an array.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Array`].
    pub fn array(&self, name: &str) -> Result<Array, Error> {
        let (header, bytes) = self.read(name, LARGEST)?;
        let fail = |why: String| self.array_error(name, why);
        let data = header.numbers(&bytes).map_err(fail)?;
        Ok(Array { name: name.into(), shape: header.shape, data })
    }

    /// The samples for a model input: the array called `key`, or the first (by name) whose shape fits.
    /// `item_shape` is the shape of the model's input without its leading batch axis of 1. An array fits if its shape
    /// is `[samples, item_shape..]` or `[samples, 1, item_shape..]`. Integers become `f32`.
    ///
    /// # Errors
    /// [`Error::NoInput`], [`Error::Shape`], [`Error::NotFinite`] and those of [`Archive::array`].
    pub fn input(&self, key: Option<&str>, item_shape: &[usize]) -> Result<Array, Error> {
        let fits = |shape: &[usize]| match shape {
            [_, 1, rest @ ..] if rest == item_shape => true,
            [_, rest @ ..] => rest == item_shape,
            [] => false,
        };
        let name = match key {
            Some(key) => key.to_string(),
            None => self.first_fit(item_shape, fits)?,
        };
        let array = self.array(&name)?;
        if !fits(&array.shape) || array.shape[0] == 0 {
            let wanted = item_shape.to_vec();
            return Err(Error::Shape { path: self.path.clone(), key: name, found: array.shape, wanted });
        }
        let data = match array.data {
            Data::F32(data) => data,
            Data::I64(data) => data.into_iter().map(|x| x as f32).collect(),
        };
        if let Some(flat) = data.iter().position(|x| !x.is_finite()) {
            let (index, value) = (shape::unravel(flat, &array.shape), data[flat]);
            return Err(Error::NotFinite { path: self.path.clone(), key: name, index, value });
        }
        Ok(Array { data: Data::F32(data), ..array })
    }

    /// The labels called `key`, one for each of `samples` samples; `None` without a key.
    ///
    /// # Errors
    /// [`Error::Labels`] and those of [`Archive::array`].
    pub fn labels(&self, key: Option<&str>, samples: usize) -> Result<Option<Vec<i64>>, Error> {
        let Some(key) = key else { return Ok(None) };
        let array = self.array(key)?;
        let fail = |why| Err(Error::Labels { path: self.path.clone(), key: key.into(), why });
        let Data::I64(labels) = array.data else { return fail("they are no integers".into()) };
        if labels.len() != samples {
            return fail(format!("{:?} labels for {samples} samples", array.shape));
        }
        Ok(Some(labels))
    }

    fn first_fit(&self, item_shape: &[usize], fits: impl Fn(&[usize]) -> bool) -> Result<String, Error> {
        let mut near = None;
        let mut arrays = vec![];
        for name in &self.names {
            // Arrays of other types, notes for example, are no candidates.
            let Ok((header, _)) = self.read(name, 0) else { continue };
            if fits(&header.shape) {
                return Ok(name.clone());
            }
            let item: usize = header.shape.iter().skip(1).product();
            if header.shape.len() > 1 && item == item_shape.iter().product::<usize>() {
                near = near.or(Some((name.clone(), header.shape.clone())));
            }
            arrays.push(format!("`{name}` {:?}", header.shape));
        }
        let (path, wanted) = (self.path.clone(), item_shape.to_vec());
        Err(match near {
            Some((key, found)) => Error::Shape { path, key, found, wanted },
            None => Error::NoInput { path, wanted, arrays: arrays.join(", ") },
        })
    }

    fn array_error(&self, key: &str, why: String) -> Error {
        Error::Array { path: self.path.clone(), key: key.into(), why }
    }

    /// Header and data of an array; no data if `limit` is 0.
    fn read(&self, name: &str, limit: usize) -> Result<(Header, Vec<u8>), Error> {
        if !self.names.iter().any(|known| known == name) {
            let (path, key) = (self.path.clone(), name.into());
            return Err(Error::Missing { path, key, names: self.names.join(", ") });
        }
        let fail = |why: String| self.array_error(name, why);
        let mut zip = self.zip.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entry = zip
            .zip_archive()
            .by_name(&npyz::npz::file_name_from_array_name(name))
            .map_err(|error| fail(error.to_string()))?;
        let header = Header::read(&mut entry).map_err(fail)?;
        let mut bytes = vec![];
        if limit > 0 {
            let size = header.bytes().map_err(fail)?;
            if size > limit {
                return Err(fail(format!("shape {:?} needs more than {limit} bytes", header.shape)));
            }
            let read = entry.take(size as u64).read_to_end(&mut bytes);
            read.map_err(|error| fail(error.to_string()))?;
            if bytes.len() != size {
                return Err(fail(format!("{} bytes of data for shape {:?}", bytes.len(), header.shape)));
            }
        }
        Ok((header, bytes))
    }
}

/// What stands before the numbers of a `.npy` file.
struct Header {
    /// Byte order, kind, bytes: `<f4`.
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Longest header that is read.
const LARGEST_HEADER: usize = 1 << 16;

impl Header {
    /// Reads magic, version, length and the Python dictionary (NumPy Enhancement Proposal 1, 2007). The dictionary of
    /// a plain array is flat, which makes a search for its three keys enough.
    fn read(from: &mut impl Read) -> Result<Self, String> {
        let mut bytes = |count: usize| {
            let mut buffer = vec![0; count];
            from.read_exact(&mut buffer).map_err(|error| error.to_string()).map(|()| buffer)
        };
        let start = bytes(8)?;
        if start[..6] != *b"\x93NUMPY" {
            return Err("is no .npy file".into());
        }
        let length = match start[6] {
            1 => bytes(2)?.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            2 | 3 => bytes(4)?.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte)),
            version => return Err(format!("has .npy version {version}")),
        };
        if length > LARGEST_HEADER {
            return Err(format!("has a header of {length} bytes"));
        }
        let text = String::from_utf8_lossy(&bytes(length)?).into_owned();
        let field = |key: &str| {
            let behind = text.split_once(&format!("'{key}'")).map(|(_, behind)| behind.trim_start());
            behind.and_then(|text| text.strip_prefix(':')).map(str::trim_start)
        };
        let quoted = field("descr").and_then(|text| text.strip_prefix('\'')?.split_once('\''));
        let (descr, _) = quoted.ok_or("is no plain array of numbers")?;
        let fortran_order = match field("fortran_order") {
            Some(text) if text.starts_with("True") => true,
            Some(text) if text.starts_with("False") => false,
            _ => return Err("has a header without fortran_order".into()),
        };
        let extents = field("shape").and_then(|text| text.strip_prefix('(')?.split_once(')'));
        let (extents, _) = extents.ok_or("has a header without shape")?;
        let shape = extents
            .split(',')
            .map(str::trim)
            .filter(|extent| !extent.is_empty())
            .map(|extent| extent.parse().map_err(|_| format!("has extent `{extent}`")))
            .map(|extent| shape::extent(extent?))
            .collect::<Result<Vec<usize>, String>>()?;
        shape::elements(&shape)?;
        Ok(Self { descr: descr.into(), fortran_order, shape })
    }

    /// Bytes of one element.
    fn item(&self) -> Result<usize, String> {
        match self.descr.get(1..) {
            Some("f2" | "f4" | "f8" | "i1" | "i2" | "i4" | "i8" | "u1" | "u2" | "u4" | "u8" | "b1") => {
                self.descr[2..].parse().map_err(|_| format!("has type `{}`", self.descr))
            }
            _ => Err(format!("has type `{}`, which is no number of up to 64 bits", self.descr)),
        }
    }

    fn bytes(&self) -> Result<usize, String> {
        Ok(shape::elements(&self.shape)? * self.item()?)
    }

    /// Decodes the data and brings it into row-major order.
    fn numbers(&self, bytes: &[u8]) -> Result<Data, String> {
        let item = self.item()?;
        let big = match self.descr.as_bytes().first() {
            Some(b'>') => true,
            Some(b'<' | b'|' | b'=') => false,
            _ => return Err(format!("has type `{}`", self.descr)),
        };
        // All elements as little-endian bit patterns in 64 bits.
        let bits = bytes.chunks_exact(item).map(|chunk| {
            let fold = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
            if big { chunk.iter().fold(0, fold) } else { chunk.iter().rev().fold(0, fold) }
        });
        let unused = 64 - 8 * item as u32;
        Ok(match &self.descr[1..] {
            "f2" => {
                Data::F32(self.row_major(bits.map(|b| half::f16::from_bits(b as u16).to_f32()).collect()))
            }
            "f4" => Data::F32(self.row_major(bits.map(|b| f32::from_bits(b as u32)).collect())),
            "f8" => Data::F32(self.row_major(bits.map(|b| f64::from_bits(b) as f32).collect())),
            "u8" => {
                let numbers: Result<Vec<i64>, _> = bits.map(i64::try_from).collect();
                Data::I64(self.row_major(numbers.map_err(|_| "holds integers beyond 2^63")?))
            }
            kind if kind.starts_with('i') => {
                Data::I64(self.row_major(bits.map(|b| ((b << unused) as i64) >> unused).collect()))
            }
            _ => Data::I64(self.row_major(bits.map(|b| b as i64).collect())),
        })
    }

    fn row_major<T: Copy>(&self, data: Vec<T>) -> Vec<T> {
        if !self.fortran_order {
            return data;
        }
        let mut strides = vec![];
        let mut stride = 1;
        for extent in &self.shape {
            strides.push(stride as isize);
            stride *= (*extent).max(1);
        }
        shape::Offsets::new(&self.shape, &strides, 0).map(|at| data[at]).collect()
    }
}

#[cfg(test)]
mod tests;
