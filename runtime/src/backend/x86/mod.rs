//! x86-64 with wide registers.
#![allow(unsafe_code)]

pub mod f32;
