//! `cargo bench -p tucano-benches --bench kernels [-- --json FILE] [-- --update]`: what layers of known networks take on every emulated core, beside
//! CMSIS-NN. `--update` records the counts in `benches/instructions.json`, which the test `differential` holds them to.
//!
//! As a test (`cargo test --benches`) it measures two cores. Needs what boards/setup.sh installs.

use std::path::PathBuf;

use comfy_table::CellAlignment;
use miette::{IntoDiagnostic, Result, WrapErr, ensure, miette};
use serde_json::{Map, Value, json};
use tucano_benches::figures::{LAYER_BOARDS, LAYERS, PEER};
use tucano_benches::instructions::{Instructions, compiler};
use tucano_converter::boards::differential::{self, Layer};
use tucano_converter::boards::firmware::OptLevel;
use tucano_converter::boards::{self, Board};
use tucano_converter::report::plain_table;

/// Boards of the short version.
const SHORT: [&str; 2] = ["qemu-m4", "qemu-m55"];

/// A board with its place in the peer's figures, and its layers.
struct Measured {
    title: &'static str,
    column: usize,
    board: &'static Board,
    layers: Vec<Layer>,
    /// Layers of floats, and operators without weights: their `macs` are elements.
    others: Vec<Layer>,
}

fn measure(wanted: impl Fn(&str) -> bool) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for (column, (title, name)) in LAYER_BOARDS.into_iter().enumerate().filter(|(_, (_, name))| wanted(name))
    {
        eprintln!("{name}");
        let board = boards::find(name)?;
        let layers = differential::run(board, OptLevel::Three, 0, 1)?.layers;
        let mut others = differential::elementwise(board, OptLevel::Three, 0, 1)?.layers;
        if differential::has_float_unit(board) {
            others.extend(differential::floats(board, OptLevel::Three, 0, 1)?.layers);
        }
        measured.push(Measured { title, column, board, layers, others });
    }
    Ok(measured)
}

fn per_mac(layer: &Layer) -> f64 {
    layer.instructions / layer.macs as f64
}

/// The peer's figure; a layer in place has that of the same layer.
fn peer(name: &str, column: usize) -> Option<f64> {
    let name = name.strip_suffix(" in place").unwrap_or(name);
    LAYERS.iter().find(|(known, _)| *known == name).and_then(|(_, figures)| figures[column])
}

/// Prints the tables; gives their JSON.
fn report(measured: &[Measured]) -> Value {
    let mut header = vec![String::from("layer")];
    header.extend(measured.iter().flat_map(|of| [of.title.into(), "peer".into(), "ratio".into()]));
    let mut table = plain_table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    table.set_width(200);
    let mut kernels = plain_table(&["layer", "core", "kernel", "scratch", "instructions"]);
    kernels.set_width(140);
    let mut documents = Vec::new();
    let names = measured.first().map_or(&[][..], |of| &of.layers);
    for name in names.iter().map(|layer| layer.name.as_str()) {
        let mut cells = vec![name.to_string()];
        let mut cores = Map::new();
        for of in measured {
            let Some(layer) = of.layers.iter().find(|layer| layer.name == name) else {
                cells.extend([String::new(), String::new(), String::new()]);
                continue;
            };
            let (ours, peer) = (per_mac(layer), peer(name, of.column));
            let ratio = peer.map(|peer| ours / peer);
            cells.push(format!("{ours:.3}"));
            cells.push(peer.map_or_else(String::new, |peer| format!("{peer:.3}")));
            cells.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
            kernels.add_row([
                name.to_string(),
                of.title.into(),
                layer.kernel.clone(),
                layer.scratch_bytes.to_string(),
                format!("{:.0}", layer.instructions),
            ]);
            cores.insert(
                of.board.name.into(),
                json!({
                    "kernel": layer.kernel, "scratch_bytes": layer.scratch_bytes, "macs": layer.macs,
                    "instructions": layer.instructions, "instructions_per_mac": ours, "peer_instructions_per_mac": peer, "ratio": ratio,
                }),
            );
        }
        table.add_row(cells);
        documents.push(json!({"layer": name, "boards": cores}));
    }
    let mut header = vec!["operator"];
    header.extend(measured.iter().map(|of| of.title));
    let mut others = plain_table(&header);
    // Some cores have fewer.
    for layer in measured.iter().map(|of| &of.others[..]).max_by_key(|others| others.len()).unwrap_or(&[]) {
        let mut cells = vec![layer.name.clone()];
        for of in measured {
            let same = of.others.iter().find(|other| other.name == layer.name);
            cells.push(same.map_or_else(String::new, |layer| format!("{:.2}", per_mac(layer))));
        }
        others.add_row(cells);
    }
    for column in others.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for column in table.column_iter_mut().skip(1).chain(kernels.column_iter_mut().skip(3)) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!(
        "{kernels}\n\n{table}\n\n{others}\n\nExecuted instructions per multiply-add, or per input element of operators without weights, under emulation, not cycles, code at opt-level 3; scratch in bytes. Ratio: tucano / peer, less is better.\n\
         Layers in place have the peer's figure of the same layer, which writes to another buffer. Peer: CMSIS-NN, {PEER}."
    );
    json!({"schema": "tucano.bench.kernels/1", "peer": PEER, "layers": documents})
}

fn main() -> Result<()> {
    let (mut bench, mut update, mut json) = (false, false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => bench = true,
            "--update" => update = true,
            "--json" => {
                json = Some(PathBuf::from(arguments.next().ok_or_else(|| miette!("--json needs a file"))?))
            }
            // Flags of the test runner, which it gives to every bench.
            _ => {}
        }
    }
    let measured = measure(|name| bench || SHORT.contains(&name))?;
    let document = report(&measured);
    for of in &measured {
        // Helium does 16 products, or elements, at once.
        let sound = |layer: &Layer| layer.instructions >= layer.macs as f64 / 16.0;
        for layers in [&of.layers, &of.others] {
            ensure!(!layers.is_empty() && layers.iter().all(sound), "{}: no measurement", of.board.name);
        }
    }
    if bench {
        let mut files = Vec::new();
        if update {
            let compiler = compiler(measured[0].board)?;
            let mut counts = Instructions { compiler, ..Instructions::default() };
            measured.iter().for_each(|of| counts.record(of.board, &[&of.layers[..], &of.others].concat()));
            files.push((Instructions::path(), counts.text()));
        }
        if let Some(path) = json {
            files.push((path, serde_json::to_string_pretty(&document).into_diagnostic()? + "\n"));
        }
        for (path, text) in files {
            std::fs::write(&path, text)
                .into_diagnostic()
                .wrap_err_with(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}
