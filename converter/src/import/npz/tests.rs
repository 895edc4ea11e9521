use std::io::Write;

use super::*;

/// A `.npy` file of this header and data.
fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn archive(folder: &tempfile::TempDir, arrays: &[(&str, Vec<u8>)]) -> Archive {
    let path = folder.path().join("data.npz");
    let mut writer = npyz::npz::NpzWriter::create(&path).unwrap();
    for (name, bytes) in arrays {
        let zip = writer.zip_writer();
        zip.start_file(format!("{name}.npy"), Default::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    drop(writer);
    Archive::open(&path).unwrap()
}

fn floats(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn reads_all_number_types() {
    let folder = tempfile::tempdir().unwrap();
    let big: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|x| x.to_be_bytes()).collect();
    let double: Vec<u8> = [1.5_f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let cases = [
        ("big", npy("'>f4'", "False", "(2,)", &big)),
        ("double", npy("'<f8'", "False", "(2,)", &double)),
        ("half", npy("'<f2'", "False", "(2,)", &[0x00, 0x3E, 0x00, 0xC0])),
        ("single", npy("'<f4'", "False", "(2,)", &floats(&[1.5, -2.0]))),
        ("bool", npy("'|b1'", "False", "(2,)", &[1, 0])),
        ("byte", npy("'|u1'", "False", "(2,)", &[255, 1])),
        ("short", npy("'<i2'", "False", "(2,)", &[0xFF, 0xFF, 2, 0])),
        ("scalar", npy("'<i8'", "False", "()", &(-7_i64).to_le_bytes())),
    ];
    let archive = archive(&folder, &cases);
    for name in ["big", "double", "half", "single"] {
        assert_eq!(archive.array(name).unwrap().data, Data::F32(vec![1.5, -2.0]), "{name}");
    }
    assert_eq!(archive.array("bool").unwrap().data, Data::I64(vec![1, 0]));
    assert_eq!(archive.array("byte").unwrap().data, Data::I64(vec![255, 1]));
    assert_eq!(archive.array("short").unwrap().data, Data::I64(vec![-1, 2]));
    assert_eq!(
        archive.array("scalar").unwrap(),
        Array { name: "scalar".into(), shape: vec![], data: Data::I64(vec![-7]) }
    );
}

#[test]
fn column_major_arrays_are_turned() {
    let folder = tempfile::tempdir().unwrap();
    let data = floats(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let archive = archive(&folder, &[("x", npy("'<f4'", "True", "(2, 3)", &data))]);
    assert_eq!(archive.array("x").unwrap().data, Data::F32(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
}

#[test]
fn finds_the_input_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let arrays = [
        ("a_note", npy("'<U3'", "False", "()", &[0; 12])),
        ("batched", npy("'|u1'", "False", "(2, 1, 3)", &[1, 2, 3, 4, 5, 6])),
        ("flat", npy("'<f4'", "False", "(6,)", &floats(&[0.0; 6]))),
        ("plain", npy("'<f4'", "False", "(1, 3)", &floats(&[1.0, f32::NAN, 2.0]))),
        ("y", npy("'|u1'", "False", "(2,)", &[7, 8])),
    ];
    let archive = archive(&folder, &arrays);
    let found = archive.input(None, &[3]).unwrap();
    assert_eq!((found.name.as_str(), found.data), ("batched", Data::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])));
    let Err(Error::NotFinite { key, index, .. }) = archive.input(Some("plain"), &[3]) else { panic!("NaN") };
    assert_eq!((key.as_str(), index), ("plain", vec![0, 1]));
    assert!(matches!(archive.input(None, &[3, 1]), Err(Error::Shape { .. })), "same size, other shape");
    assert!(matches!(archive.input(None, &[64]), Err(Error::NoInput { .. })));
    assert!(matches!(archive.input(Some("flat"), &[3]), Err(Error::Shape { .. })));
    assert!(matches!(archive.input(Some("missing"), &[3]), Err(Error::Missing { .. })));
    assert_eq!(archive.labels(Some("y"), 2).unwrap(), Some(vec![7, 8]));
    assert_eq!(archive.labels(None, 2).unwrap(), None);
    assert!(matches!(archive.labels(Some("y"), 3), Err(Error::Labels { .. })));
    assert!(matches!(archive.labels(Some("plain"), 3), Err(Error::Labels { .. })));
}

#[test]
fn hostile_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let nested = format!("({})", "(".repeat(60_000));
    let cases = [
        npy("'<f4'", "False", "(1000000000,)", &[0; 4]),
        npy("'<f4'", "False", "(9223372036854775807, 9223372036854775807)", &[0; 4]),
        npy("'<f4'", "False", "(-1,)", &[0; 4]),
        npy("'<f4'", "False", &nested, &[0; 4]),
        npy("'<f4'", "False", "(2,)", &[0; 4]),
        npy("'|O'", "False", "(1,)", &[0; 4]),
        npy("'é4'", "False", "(1,)", &[0; 4]),
        npy("[('a', '<f4')]", "False", "(1,)", &[0; 4]),
        npy("'<f4'", "0", "(1,)", &[0; 4]),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(),
        b"\x93NUMPY".to_vec(),
        vec![],
    ];
    for case in cases {
        let archive = archive(&folder, &[("x", case)]);
        assert!(matches!(archive.array("x"), Err(Error::Array { .. })));
    }
}

#[test]
fn damaged_archives_give_errors() {
    let folder = tempfile::tempdir().unwrap();
    drop(archive(&folder, &[("x", npy("'<f4'", "False", "(2,)", &floats(&[1.0, 2.0])))]));
    let path = folder.path().join("data.npz");
    let bytes = std::fs::read(&path).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Archive::open(&path).and_then(|archive| archive.array("x"))
    };
    assert!(read(&bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "{length} bytes");
    }
    // Every byte changed in turn: an error or numbers, but no panic.
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xFF;
        let _ = read(&damaged);
    }
    assert!(matches!(Archive::open(folder.path()), Err(Error::Archive { .. })));
}
