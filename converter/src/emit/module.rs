//! The Rust module that includes a blob: what a program needs to size its arena and to link just the operators in use.

use std::fmt::Write;

use tucano::backend::spec::select::Isa;
use tucano::blob::{Fingerprint, InputContract};
use tucano::host::Runner;

use super::{Error, Program};
use crate::plan::needs::kernels;

/// The text of the module of a program that [`emit`](super::emit) made `bytes` of. `blob` is the blob's path as seen from the module, usually its file name.
///
/// The module needs only the crate `tucano`; arrays of quantisations are empty for `f32` models.
pub fn module(program: &Program, bytes: &[u8], blob: &str) -> Result<String, Error> {
    let layout = &program.plan.layout;
    let (inputs, outputs) = layout.contracts.split_at(layout.inputs.len());
    let mut text = String::new();
    let out = &mut text;
    // Writing into a string cannot fail.
    let _ = writeln!(
        out,
        "//! Network `{}`, written by the tucano converter.\n//!",
        one_line(&program.graph.name)
    );
    for (what, tensors, contracts) in
        [("Input", &layout.inputs, inputs), ("Output", &layout.outputs, outputs)]
    {
        for (k, (tensor, contract)) in tensors.iter().zip(contracts).enumerate() {
            let value = &program.graph.value(layout.tensors[*tensor].value);
            let dtype = program.dtype(layout.tensors[*tensor].value).name();
            let _ = writeln!(
                out,
                "//! {what} {k}, `{}`: {dtype} {:?}; stored axis `k` is axis `{:?}[k]` of the source model's {:?}.",
                one_line(&value.name),
                layout.tensors[*tensor].shape,
                axes(contract),
                &contract.shape[..usize::from(contract.rank)],
            );
        }
    }
    let _ = writeln!(
        out,
        "\n// No program needs all of it.\n#![allow(dead_code)]\n\n/// Bytes of working memory, which must lie at a multiple of {}.",
        crate::plan::ARENA_ALIGN
    );
    let _ = writeln!(out, "pub const ARENA_BYTES: usize = {};", program.plan.arena_bytes);
    let _ = writeln!(out, "/// Bytes that survive from run to run.\npub const STATE_BYTES: usize = 0;");
    for (what, tensors, contracts) in
        [("INPUT", &layout.inputs, inputs), ("OUTPUT", &layout.outputs, outputs)]
    {
        let name = what.to_lowercase();
        let shapes: Vec<&[usize]> = tensors.iter().map(|tensor| &layout.tensors[*tensor].shape[..]).collect();
        let slices = |items: Vec<String>| items.join(", ");
        let _ = writeln!(out, "/// Stored shape of each {name}.");
        let list = slices(shapes.iter().map(|shape| format!("&{shape:?}")).collect());
        let _ = writeln!(out, "pub const {what}_SHAPES: [&[usize]; {}] = [{list}];", shapes.len());
        let _ = writeln!(out, "/// Stored axis `k` of an {name} is this axis of the source model.");
        let list = slices(contracts.iter().map(|contract| format!("&{:?}", axes(contract))).collect());
        let _ = writeln!(out, "pub const {what}_AXES: [&[usize]; {}] = [{list}];", shapes.len());
        let quantizations: Vec<String> = tensors
            .iter()
            .filter_map(|tensor| program.graph.value(layout.tensors[*tensor].value).quantization)
            .filter(|_| program.quantized.is_some())
            .map(|q| format!("({:?}, {})", q.scale, q.zero_point))
            .collect();
        let _ = writeln!(out, "/// Scale and zero point of each {name}; none for floats.");
        let _ = writeln!(
            out,
            "pub const {what}_QUANTIZATION: [(f32, i32); {}] = [{}];",
            quantizations.len(),
            quantizations.join(", ")
        );
    }
    let codes: Vec<String> = program.op_codes()?.iter().map(|code| format!("{code:?}")).collect();
    let _ = writeln!(out, "\ntucano::op_set! {{\n    /// The operators of this network: no other is linked.");
    let tiles = if program.plan.regions.is_empty() { "" } else { "; tiles" };
    let _ = writeln!(out, "    pub struct Ops {{ {}{tiles} }}\n}}", codes.join(", "));
    // Validates the blob: what the fingerprint stands for.
    let runner = Runner::new(bytes).map_err(|fault| Error::Blob(fault.to_string()))?;
    if program.isa.has_kernels() {
        let _ = write!(out, "\n{}", declare_kernels(&kernels(&runner.model(), program.isa)));
    }
    let _ = writeln!(
        out,
        "\n/// The backend that weights and scratch are laid out for. Any other gives the same numbers, slowly.\npub type Backend = {};",
        backend_type(program.isa, true)
    );
    let _ = writeln!(
        out,
        "/// Runs this network on backend `B`.\npub type Session<'m, B = Backend> = tucano::Session<'m, Ops, B>;"
    );
    let _ = writeln!(out, "\n#[repr(C, align({}))]", tucano::blob::BLOB_ALIGN);
    let _ = writeln!(out, "struct Aligned<T: ?Sized>(T);");
    let _ = writeln!(out, "static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!({blob:?}));");
    let _ = writeln!(
        out,
        "/// The network; [`model`] makes it ready to run.\npub static BLOB: &[u8] = &ALIGNED.0;"
    );
    let _ = writeln!(
        out,
        "/// Tells [`BLOB`] from other blobs. It was validated when this module was written.\n\
         pub const FINGERPRINT: tucano::blob::Fingerprint = {};",
        fingerprint_text(&runner.model().blob().fingerprint())
    );
    let _ = writeln!(
        out,
        "\n/// The network, ready to run. Its fingerprint is compared; it is not validated again, and no code for that is linked. Other blobs are\n\
         /// for `tucano::Model::<Ops>::load`, and a copy of this one elsewhere in memory for `load_known`.\n///\n\
         /// # Errors\n/// `tucano::ErrorKind::Fingerprint`: the file beside this module is another one. Convert the model again.\n\
         pub fn model() -> Result<tucano::Model<'static, Ops>, tucano::Error> {{\n    \
         tucano::Model::load_known(BLOB, &FINGERPRINT)\n}}"
    );
    Ok(text)
}

/// A fingerprint as an expression.
pub fn fingerprint_text(fingerprint: &Fingerprint) -> String {
    let Fingerprint { length, structure, crc } = fingerprint;
    format!("tucano::blob::Fingerprint {{ length: {length}, structure: {structure}, crc: {crc:#010x} }}")
}

/// Declares the type `Kernels`, the kernels that a program links.
pub fn declare_kernels(names: &[&str]) -> String {
    format!(
        "/// The kernels that the operators take: no other is linked.\n#[derive(Clone, Copy, Debug)]\npub struct Kernels;\n\
         impl tucano::backend::Kernels for Kernels {{\n    \
         const NAMES: Option<&'static [&'static str]> = Some(&{names:?});\n}}\n"
    )
}

/// The type of a target's backend, with the declared kernels if the program `chooses` any.
pub fn backend_type(isa: Isa, chooses: bool) -> String {
    let kernels = if chooses && isa.has_kernels() { "<Kernels>" } else { "" };
    format!("tucano::backend::{}{kernels}", isa.backend())
}

fn axes(contract: &InputContract) -> Vec<usize> {
    contract.order[..usize::from(contract.rank)].iter().map(|axis| usize::from(*axis)).collect()
}

/// Names come from the model: they must not end a comment.
fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect()
}
